"""A bundle's variant in an engine: prepared faces to features, features to probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from fer_edge.core.accuracy import softmax
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import BundleError, FerEdgeError, InputError, SessionError
from fer_edge.core.graph_interface import graph_misfits
from fer_edge.core.json import encode, is_one_of
from fer_edge.core.labels import READINGS, Reading
from fer_edge.core.manifest import Manifest, Variant
from fer_edge.core.types import Array, Float32, Int64, Uint8
from fer_edge.core.variant import Part
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.one_process import OneProcess
from fer_edge.runtime.providers import ENGINE_FOLDER, ENGINE_PROVIDERS, open_session
from fer_edge.runtime.session import Session, all_finite

__all__ = ["BundleSource", "Network", "NetworkInfo", "PathLike", "choose_variant", "open_bundle", "suitable_variants"]

PathLike: TypeAlias = "str | os.PathLike[str]"
BundleSource: TypeAlias = "Bundle | str | os.PathLike[str]"
"""An open bundle, its folder, or the name of a shipped bundle."""

_BATCH_LIMIT: Final = 256  # frames or windows per run: bounds the memory of the engine's activations
_CHECKED: Final[Mapping[str, str]] = {"encoder": "features", "head": "logits"}
"""The output that is checked for NaN; a NaN in the attention reaches it too."""

_AUTOMATIC: Final[Mapping[str, tuple[str, ...]]] = {
    # Signed activations (`int8-trt`) have no fast convolutions in ONNX Runtime on x86: about as slow as fp32.
    "cpu": ("int8", "fp32"),
    # Never `int8-trt`: without AMX OpenVINO computes unsigned activations only; it shifts the signed ones of an encoder
    # with an LSTM and gets a tenth of the labels wrong (bench/results).
    "openvino": ("int8", "fp32"),
    # As fast as `int8-trt` there, and its activations use the whole of 8 bits: fewer labels change (bench/results).
    "litert": ("int8", "fp32"),
    "cuda": ("fp32",),  # ONNX Runtime's CUDA provider has no INT8 kernels: Q/DQ only adds work there
    "ort-tensorrt": ("int8-trt", "fp32"),
    "tensorrt": ("int8-trt", "fp32"),
    "rtx": ("fp32",),  # TensorRT-RTX promises no INT8 convolutions, so its engines are FP16 from FP32 graphs
}


def choose_variant(manifest: Manifest, *, variant: str = "auto", provider: str = "cpu") -> str:
    """Resolve a variant's name; ``"auto"`` is the bundle's first variant of `suitable_variants`.

    ``"auto"`` skips a variant whose recorded parity check failed in this engine, on any machine.

    Raises:
        InputError: a variant that is not text.
        BundleError: the bundle has no such variant, or none for ``"auto"`` that passed.
    """
    check_type("variant", variant, str, "a variant's name or 'auto'")
    known = {each.name: each for each in manifest.variants}
    if variant in known:
        return variant
    here = suitable_variants(manifest, provider=provider) if variant == "auto" else ()
    for name in here:
        if not _refuted(known[name], provider):
            return name
    if here:
        raise BundleError(
            f"the bundle {manifest.name!r}: {' and '.join(map(repr, here))} failed the parity check on {provider!r}; "
            "take another provider, or name the variant to run it all the same"
        )
    missing = " or ".join(map(repr, _AUTOMATIC.get(provider, ("fp32",)) if variant == "auto" else (variant,)))
    raise BundleError(f"the bundle {manifest.name!r} has no variant {missing}; it has {', '.join(known)}")


def suitable_variants(manifest: Manifest, *, provider: str) -> tuple[str, ...]:
    """Return the bundle's variants that a provider computes well, the best first."""
    names = {each.name for each in manifest.variants}
    return tuple(name for name in _AUTOMATIC.get(provider, ("fp32",)) if name in names)


def _refuted(variant: Variant, provider: str) -> bool:
    """Return whether the manifest's parity record fails this variant in this engine."""
    chain = variant.parity.get("chain")
    stages = chain.get("stages") if isinstance(chain, Mapping) else None
    return any(
        isinstance(stage, Mapping) and stage.get("provider") == provider and stage.get("passed") is False
        for stage in stages or ()
    )


def open_bundle(bundle: BundleSource) -> Bundle:
    """Return an open bundle, opening it where a folder or a name is given.

    Raises:
        InputError: another type.
        BundleError: no such bundle, or a damaged one.
    """
    if isinstance(bundle, Bundle):
        return bundle
    check_type("bundle", bundle, (str, os.PathLike), "a Bundle, its folder or a shipped bundle's name")
    return Bundle.open(bundle)


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """What runs.

    Attributes:
        bundle: the bundle's name.
        sha256: hash of its manifest.
        variant: the variant chosen.
        precision: precision of that variant.
        provider: the engine.
        provider_version: its package and version.
        threads: threads of one run.
        reading: the head that runs: ``"crowd"`` or ``"fer2013"``.

    Example:
        >>> from fer_edge.runtime import Recognizer
        >>> with Recognizer("nano", variant="fp32") as recognizer:
        ...     recognizer.info.bundle, recognizer.info.provider
        ('nano', 'cpu')
    """

    bundle: str
    sha256: str
    variant: str
    precision: str
    provider: str
    provider_version: str
    threads: int
    reading: Reading = "fer2013"

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(encode(self))


class Network(OneProcess):
    """Encoder and one head of a variant, opened together and warmed up; a context manager.

    Use `Network.open`. Calls from several threads are as safe as the engine's `Session`.

    Raises:
        SessionError: the graphs' inputs and outputs do not fit the manifest, or they compute NaN.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import Network
        >>> with Network.open("nano") as network:
        ...     features = network.encode(np.zeros((2, network.frame_size, network.frame_size), np.uint8))
        ...     network.probabilities(features[:, None], np.ones(2, np.int64)).shape
        (2, 7)
    """

    def __init__(
        self, *, bundle: Bundle, variant: Variant, encoder: Session, head: Session, reading: Reading = "fer2013"
    ) -> None:
        self.manifest = bundle.manifest
        self.variant = variant
        self.reading: Reading = reading
        crowd = variant.crowd if reading == "crowd" else None
        self.temperature = variant.temperature if crowd is None else crowd.temperature
        self.outputs = self.manifest.labels if crowd is None else crowd.labels
        self.encoder = encoder
        self.head = head
        self.info = NetworkInfo(
            bundle=bundle.manifest.name,
            sha256=bundle.sha256,
            variant=variant.name,
            precision=variant.precision,
            provider=encoder.provider,
            provider_version=encoder.provider_version,
            threads=encoder.threads,
            reading=reading,
        )
        self.frame_size = self.manifest.preprocess.size
        self.feature_size = self.manifest.sequence.feature_size
        self.window = self.manifest.sequence.window
        self._most_frames, self._most_windows = _batch_limit(encoder), _batch_limit(head)
        features = next(spec for spec in head.inputs if spec.name == "features")
        least = features.limits[1][0] if features.limits else features.shape[1]
        self._steps = features.steps or (least or 1,)
        self.warm_up()

    @classmethod
    def open(
        cls,
        bundle: BundleSource,
        *,
        variant: str = "fp32",
        provider: str = "cpu",
        threads: int = 1,
        engines: PathLike | None = None,
        reading: Reading | None = "fer2013",
    ) -> Network:
        """Load a variant's encoder and one head, or on TensorRT the engines that were built from them.

        Args:
            bundle: an open bundle, its folder, or the name of a shipped bundle.
            variant: a variant's name, or ``"auto"`` (`choose_variant`).
            provider: the engine; another one is never used in its place.
            threads: threads of one run.
            engines: the folder of built engines; by default the bundle's folder `engines` where it exists, else the
                user's cache. For engines that compile a graph when they open it, the folder of their cache
                (`open_session`); without it nothing is kept.
            reading: the head: ``"crowd"`` (what people see, and whether a face can be judged) or ``"fer2013"`` (the
                labels of FER2013); None takes ``"crowd"`` where the variant has it.

        Raises:
            BundleError: no such bundle, variant or head, or a damaged one.
            InputError: an unknown provider, fewer than one thread, or an argument of another type.
            SessionError: the engine is not available or refuses a graph, a graph computes NaN, or a built engine is
                stale or foreign.
            MissingPackageError: the engine's package is not installed.
        """
        bundle = open_bundle(bundle)
        check_type("provider", provider, str, "a provider's name")
        if engines is not None:
            check_type("engines", engines, (str, os.PathLike), "a folder or None")
            engines = Path(engines)
        elif provider in (*ENGINE_PROVIDERS, "litert") and (bundle.path / ENGINE_FOLDER).is_dir():
            engines = bundle.path / ENGINE_FOLDER
        chosen = bundle.variant(choose_variant(bundle.manifest, variant=variant, provider=provider))
        if not is_one_of(reading, (None, *READINGS)):
            raise InputError(f"reading: got {reading!r}, expected one of {', '.join(READINGS)}, or None")
        read: Reading = reading or chosen.readings[0]
        sessions: list[Session] = []
        what = chosen.name
        try:
            part: Part
            for part in ("encoder", "crowd" if read == "crowd" else "head"):
                what = f"{chosen.name} {part}"
                graph = bundle.graph_bytes(chosen.name, part)
                if faults := graph_misfits(graph, bundle.manifest, part):
                    raise BundleError(f"{bundle.path}: {what}: {'; '.join(faults)}; export the bundle again")
                sessions.append(open_session(graph, provider=provider, threads=threads, engines=engines))
            what = chosen.name
            return cls(bundle=bundle, variant=chosen, encoder=sessions[0], head=sessions[1], reading=read)
        except FerEdgeError as error:
            for session in sessions:
                session.close()
            if isinstance(error, SessionError):
                raise SessionError(f"{bundle.path}: {what}: {error}") from error
            raise

    def encode(self, frames: Uint8) -> Float32:
        """Compute the features of prepared faces.

        Args:
            frames: uint8 (N, S, S) grey, prepared (`prepare_face`); more than 256, or than the engine was built for,
                are computed in several runs.

        Returns:
            float32 (N, F).

        Raises:
            InputError: another type or shape, or no frame.
            SessionError: the engine failed or computed NaN.
        """
        return self.encode_with_attention(frames)[0]

    def encode_with_attention(self, frames: Uint8) -> tuple[Float32, Float32]:
        """Compute features, float32 (N, F), and the weights of the region tokens, float32 (N, tokens)."""
        limit = self._most_frames
        if isinstance(frames, np.ndarray) and frames.ndim and len(frames) > limit:
            return _in_parts(lambda part: self.encode_with_attention(frames[part]), len(frames), limit)
        outputs = self._run("encoder", self.encoder, {"frames": frames})
        return outputs["features"], outputs["attention"]

    def logits(self, features: Float32, length: Int64) -> Float32:
        """Compute the logits of windows, before temperature.

        Args:
            features: float32 (B, T, F); a window that is not full repeats its oldest feature in front. A window shorter
                than the engine was built for is filled that way here.
            length: int64 (B,), number of real frames of each window, 1 to T.

        Returns:
            float32 (B, classes).

        Raises:
            InputError: another type or shape, or a length out of range.
            SessionError: the engine failed or computed NaN.
        """
        return self.logits_with_attention(features, length)[0]

    def logits_with_attention(self, features: Float32, length: Int64) -> tuple[Float32, Float32]:
        """Compute logits, float32 (B, classes), and the weights of the frames, float32 (B, T)."""
        limit = self._most_windows
        if isinstance(features, np.ndarray) and features.ndim == 3:
            if limit < len(features) == len(length):
                return _in_parts(
                    lambda part: self.logits_with_attention(features[part], length[part]), len(features), limit
                )
            steps = next((steps for steps in self._steps if steps >= features.shape[1]), features.shape[1])
            if steps > features.shape[1]:
                return self._filled(features, length, steps)
        outputs = self._run("head", self.head, {"features": features, "length": length})
        return outputs["logits"], outputs["attention"]

    def probabilities(self, features: Float32, length: Int64) -> Float32:
        """Compute softmax(logits / temperature): float32 (B, classes), each row of sum 1; classes as `outputs`."""
        return self.probabilities_with_attention(features, length)[0]

    def probabilities_with_attention(self, features: Float32, length: Int64) -> tuple[Float32, Float32]:
        """Compute `probabilities`, and the weights of the frames, float32 (B, T)."""
        logits, weights = self.logits_with_attention(features, length)
        probabilities = softmax(logits, temperature=self.temperature)
        if not all_finite(probabilities):
            raise SessionError(
                f"variant {self.variant.name!r}: got NaN among the probabilities, expected finite ones; the logits "
                f"overflow at the temperature {self.temperature:g}, export the bundle again"
            )
        return probabilities, weights

    def close(self) -> None:
        """Close both sessions; a second call does nothing."""
        self.encoder.close()
        self.head.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _filled(self, features: Float32, length: Int64, steps: int) -> tuple[Float32, Float32]:
        """Repeat a short window's oldest feature; it gets the weights of its repetitions."""
        missing = steps - features.shape[1]
        filled = np.concatenate([np.repeat(features[:, :1], missing, axis=1), features], axis=1)
        logits, weights = self.logits_with_attention(filled, length)
        kept = weights[:, missing:].copy()
        kept[:, 0] += weights[:, :missing].sum(axis=1)
        return logits, kept

    def _run(self, part: str, session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
        length = feeds.get("length")
        if isinstance(length, np.ndarray) and length.size and length.dtype == np.int64:
            features = feeds["features"]
            steps = features.shape[1] if isinstance(features, np.ndarray) and features.ndim > 1 else 0
            given = length.ravel().tolist()
            if steps and (min(given) < 1 or max(given) > steps):
                raise InputError(f"length: got {length.tolist()}, expected 1 to {steps}, the frames of the window")
            if steps and len(length) != len(features):
                raise InputError(f"length: got {len(length)} of them for {len(features)} windows")
        outputs = session.run(feeds)
        name = _CHECKED[part]
        if not all_finite(outputs[name]):
            raise SessionError(
                f"the {part} of variant {self.variant.name!r} computes NaN or infinity in {name!r} on "
                f"{session.provider}; the graph's weights or its arithmetic are broken, export it again"
            )
        return outputs

    def warm_up(self) -> None:
        """Run a fixed frame at both ends of the window.

        Raises:
            SessionError: the engine failed or computed NaN.
        """
        size = self.frame_size
        rows, columns = np.mgrid[0:size, 0:size]
        frame = ((rows * 37 + columns * 101 + rows * columns * 7) % 256).astype(np.uint8)
        features = self.encode(frame[None])
        for steps in {1, self.window}:
            self.logits(np.repeat(features[:, None], steps, axis=1), np.array([steps], np.int64))


def _batch_limit(session: Session) -> int:
    """Return the largest batch of one run."""
    limits = [spec.limits[0][1] for spec in session.inputs if spec.limits]
    fixed = [spec.shape[0] for spec in session.inputs if spec.shape[0] is not None]
    return min([_BATCH_LIMIT, *limits, *fixed])


def _in_parts(run: Callable[[slice], tuple[Float32, Float32]], count: int, limit: int) -> tuple[Float32, Float32]:
    parts = [run(slice(start, start + limit)) for start in range(0, count, limit)]
    return np.concatenate([first for first, _ in parts]), np.concatenate([second for _, second in parts])
