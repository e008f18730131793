"""A bundle's variant in an engine: frames to features, features to probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from fer_edge.core.bundle import Bundle, Manifest, Variant
from fer_edge.core.errors import BundleError, FerEdgeError, InputError, SessionError
from fer_edge.core.json import encode
from fer_edge.core.metrics import softmax
from fer_edge.core.types import Array, Float32, Int64, Uint8
from fer_edge.runtime.providers import ENGINE_FOLDER, ENGINE_PROVIDERS, open_session
from fer_edge.runtime.session import Session, TensorSpec, all_finite

__all__ = ["Network", "NetworkInfo", "choose_variant", "suitable_variants"]


_BATCH_LIMIT: Final = 256  # frames or windows an engine gets at once: bounds the memory of its activations
_ANSWERS: Final[Mapping[str, str]] = {"encoder": "features", "head": "logits"}
"""What is looked at for NaN: attention enters these, so that what is wrong with it is wrong with them."""

_AUTOMATIC: Final[Mapping[str, tuple[str, ...]]] = {
    # Signed activations (`int8-trt`) have no fast convolutions in ONNX Runtime on x86: about as slow as fp32.
    "cpu": ("int8", "fp32"),
    # Never `int8-trt`: on processors without AMX OpenVINO takes unsigned activations alone; the signed ones of an
    # encoder with an LSTM it shifts into that range, and gets them wrong (a tenth of the labels: bench/results).
    "openvino": ("int8", "fp32"),
    "cuda": ("fp32",),  # ONNX Runtime's CUDA provider has no INT8 kernels: Q/DQ only adds work there
    "ort-tensorrt": ("int8-trt", "fp32"),
    "tensorrt": ("int8-trt", "fp32"),
    "rtx": ("fp32",),  # TensorRT-RTX promises no INT8 convolutions, so its engines are FP16 made of FP32 graphs
}


def choose_variant(manifest: Manifest, *, variant: str = "auto", provider: str = "cpu") -> str:
    """The variant that `variant` means: itself, or for ``"auto"`` int8 where the bundle has it, else fp32.

    On the provider ``"cuda"`` ``"auto"`` is fp32, because ONNX Runtime computes INT8 in floats there; on
    ``"ort-tensorrt"`` it is int8-trt, whose activations are signed. ``"auto"`` passes over a variant that
    ``fer-edge parity`` found wrong in this engine, on whatever machine that was.

    Raises:
        BundleError: the bundle has no such variant, or ``"auto"`` none that passed.
    """
    known = {each.name: each for each in manifest.variants}
    wanted = _suited(provider) if variant == "auto" else (variant,)
    here = [name for name in wanted if name in known]
    for name in here:
        if variant != "auto" or not _refuted(known[name], provider):
            return name
    if here:
        raise BundleError(
            f"the bundle {manifest.name!r}: {' and '.join(map(repr, here))} failed the parity check on {provider!r}; "
            "take another provider, or name the variant to run it all the same"
        )
    missing = " or ".join(map(repr, wanted))
    raise BundleError(f"the bundle {manifest.name!r} has no variant {missing}; it has {', '.join(known)}")


def suitable_variants(manifest: Manifest, *, provider: str) -> tuple[str, ...]:
    """The variants that a provider computes well: those that ``"auto"`` would take, the best first."""
    names = {each.name for each in manifest.variants}
    return tuple(name for name in _suited(provider) if name in names)


def _refuted(variant: Variant, provider: str) -> bool:
    """The parity chain's verdict in the manifest says that this engine gets the variant wrong."""
    chain = variant.parity.get("chain")
    stages = chain.get("stages") if isinstance(chain, Mapping) else None
    return any(
        isinstance(stage, Mapping) and stage.get("provider") == provider and stage.get("passed") is False
        for stage in stages or ()
    )


def _suited(provider: str) -> tuple[str, ...]:
    return _AUTOMATIC.get(provider, ("fp32",))


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """What really runs.

    Attributes:
        bundle: the bundle's name.
        sha256: of its manifest.
        variant: the variant chosen.
        precision: of that variant.
        provider: the engine.
        provider_version: its package and version.
        threads: threads of one run.
    """

    bundle: str
    sha256: str
    variant: str
    precision: str
    provider: str
    provider_version: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(encode(self))


class Network:
    """Encoder and head of one variant, opened together and warmed up; a context manager.

    Calls from several threads are as safe as the engine's session (`OrtSession` and `DeviceSession`: at once, the
    others: one waits for the other).
    """

    def __init__(self, *, bundle: Bundle, variant: Variant, encoder: Session, head: Session) -> None:
        """Take two open sessions; `Network.open` is the way to get there from a bundle.

        Raises:
            SessionError: the graphs do not take and give what a bundle's graphs do, or compute NaN.
        """
        self.manifest = bundle.manifest
        self.variant = variant
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
        )
        self._check_interface()
        self._most_frames, self._most_windows = _batch_limit(encoder), _batch_limit(head)
        self._steps = _fewest_steps(head)
        self._warm_up()

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | os.PathLike[str],
        *,
        variant: str = "fp32",
        provider: str = "cpu",
        threads: int = 1,
        engines: Path | None = None,
    ) -> Network:
        """Load a variant's two graphs, or on TensorRT the engines that were built from them.

        Args:
            bundle: an open bundle, its folder, or a shipped bundle's name.
            variant: a variant's name, or ``"auto"`` (`choose_variant`).
            provider: the engine; it runs or it raises.
            threads: threads of one run.
            engines: the folder of the engines, for the providers that run built ones; the bundle's own folder
                `engines` where there is one, else the user's cache. For those that compile when they open a graph,
                where they keep what they compiled (`open_session`); nothing is kept without it.

        Raises:
            BundleError: no such bundle or variant, or a damaged one.
            InputError: an unknown provider, or fewer than one thread.
            SessionError: the engine is not to be had or refuses a graph, or a graph computes NaN; the graph is named.
                A built engine that is stale or foreign is named too, and never loaded.
            MissingPackageError: the engine's package is not installed.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle)
        chosen = bundle.variant(choose_variant(bundle.manifest, variant=variant, provider=provider))
        own = bundle.path / ENGINE_FOLDER
        place = engines or (own if provider in ENGINE_PROVIDERS and own.is_dir() else None)
        sessions: list[Session] = []
        try:
            for part, file in (("encoder", chosen.encoder), ("head", chosen.head)):
                graph = bundle.read_graph(file)
                try:
                    sessions.append(open_session(graph, provider=provider, threads=threads, engines=place))
                except SessionError as error:
                    raise SessionError(f"{bundle.path}: {chosen.name} {part}: {error}") from error
            try:
                return cls(bundle=bundle, variant=chosen, encoder=sessions[0], head=sessions[1])
            except SessionError as error:
                raise SessionError(f"{bundle.path}: {error}") from error
        except FerEdgeError:
            for session in sessions:
                session.close()
            raise

    @property
    def frame_size(self) -> int:
        """Side S of a frame, in pixels."""
        return self.manifest.preprocess.size

    @property
    def feature_size(self) -> int:
        """Width F of a feature vector."""
        return self.manifest.sequence.feature_size

    @property
    def window(self) -> int:
        """Frames T of a full window."""
        return self.manifest.sequence.window

    def encode(self, frames: Uint8) -> Float32:
        """Features of frames.

        Args:
            frames: uint8 (N, S, S) grey, prepared as the manifest says; more than 256, or than the engine was built
                for, are done in turns.

        Returns:
            float32 (N, F).

        Raises:
            InputError: another type or shape, or no frame.
            SessionError: the engine failed or gave NaN.
        """
        return self.encode_with_attention(frames)[0]

    def encode_with_attention(self, frames: Uint8) -> tuple[Float32, Float32]:
        """As `encode`, with the weight of each region token: float32 (N, F) and float32 (N, tokens)."""
        limit = self._most_frames
        if isinstance(frames, np.ndarray) and frames.ndim and len(frames) > limit:
            return _in_turns(lambda part: self.encode_with_attention(frames[part]), len(frames), limit)
        outputs = self._run("encoder", self.encoder, {"frames": frames})
        return outputs["features"], outputs["attention"]

    def logits(self, features: Float32, length: Int64) -> Float32:
        """Scores of windows, before temperature.

        Args:
            features: float32 (B, T, F); a window that is not full repeats its oldest feature in front. Where the
                engine was built for longer windows, that is done here for those that are too short.
            length: int64 (B,), how many of the T are real, 1 to T.

        Returns:
            float32 (B, classes).

        Raises:
            InputError: another type or shape, or a length out of range.
            SessionError: the engine failed or gave NaN.
        """
        return self.logits_with_attention(features, length)[0]

    def logits_with_attention(self, features: Float32, length: Int64) -> tuple[Float32, Float32]:
        """As `logits`, with the weight of each frame: float32 (B, classes) and float32 (B, T)."""
        limit = self._most_windows
        if isinstance(features, np.ndarray) and features.ndim == 3:
            if limit < len(features) == len(length):
                return _in_turns(
                    lambda part: self.logits_with_attention(features[part], length[part]), len(features), limit
                )
            if self._steps is not None and features.shape[1] < self._steps:
                return self._short(features, length, self._steps)
        outputs = self._run("head", self.head, {"features": features, "length": length})
        return outputs["logits"], outputs["attention"]

    def probabilities(self, features: Float32, length: Int64) -> Float32:
        """Softmax of `logits` over the variant's temperature: float32 (B, classes), rows of sum 1."""
        return softmax(self.logits(features, length), temperature=self.variant.temperature)

    def close(self) -> None:
        """Close both sessions; a second call does nothing."""
        self.encoder.close()
        self.head.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _short(self, features: Float32, length: Int64, steps: int) -> tuple[Float32, Float32]:
        """A window shorter than the engine's: its oldest feature is repeated, and gets the repetitions' weight."""
        missing = steps - features.shape[1]
        filled = np.concatenate([np.repeat(features[:, :1], missing, axis=1), features], axis=1)
        logits, weights = self.logits_with_attention(filled, length)
        kept = weights[:, missing:].copy()
        kept[:, 0] += weights[:, :missing].sum(axis=1)
        return logits, kept

    def _run(self, part: str, session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
        length = feeds.get("length")
        if isinstance(length, np.ndarray) and length.size:
            features = feeds["features"]
            steps = features.shape[1] if isinstance(features, np.ndarray) and features.ndim > 1 else 0
            given = length.ravel().tolist()
            if steps and (min(given) < 1 or max(given) > steps):
                raise InputError(f"length: got {length.tolist()}, expected 1 to {steps}, the frames of the window")
            if steps and len(length) != len(features):
                raise InputError(f"length: got {len(length)} of them for {len(features)} windows")
        outputs = session.run(feeds)
        name = _ANSWERS[part]
        if not all_finite(outputs[name]):
            raise SessionError(
                f"the {part} of variant {self.variant.name!r} computes NaN or infinity in {name!r} on "
                f"{session.provider}; the graph's weights or its arithmetic are broken, export it again"
            )
        return outputs

    def _check_interface(self) -> None:
        size, width, classes = self.frame_size, self.feature_size, len(self.manifest.labels)
        uint8, float32, int64 = np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int64)
        expected = {
            "encoder": (
                [TensorSpec(name="frames", dtype=uint8, shape=(None, size, size))],
                [TensorSpec(name="features", dtype=float32, shape=(None, width))],
            ),
            "head": (
                [
                    TensorSpec(name="features", dtype=float32, shape=(None, None, width)),
                    TensorSpec(name="length", dtype=int64, shape=(None,)),
                ],
                [TensorSpec(name="logits", dtype=float32, shape=(None, classes))],
            ),
        }
        for part, session in (("encoder", self.encoder), ("head", self.head)):
            inputs, outputs = expected[part]
            _match(f"the {part}'s input", session.inputs, inputs)
            _match(f"the {part}'s output", session.outputs, outputs)
            if "attention" not in {spec.name for spec in session.outputs}:
                raise SessionError(f"the {part} has no output 'attention'")

    def _warm_up(self) -> None:
        """One pass at both ends of the window over a fixed frame of all grey levels; `_run` looks for NaN."""
        size = self.frame_size
        rows, columns = np.mgrid[0:size, 0:size]
        frame = ((rows * 37 + columns * 101 + rows * columns * 7) % 256).astype(np.uint8)
        features = self.encode(frame[None])
        for steps in {1, self.window}:
            self.logits(np.repeat(features[:, None], steps, axis=1), np.array([steps], np.int64))


def _batch_limit(session: Session) -> int:
    """Rows that one run of the session takes at most."""
    limits = [spec.limits[0][1] for spec in session.inputs if spec.limits]
    fixed = [spec.shape[0] for spec in session.inputs if spec.shape[0] is not None]
    return min([_BATCH_LIMIT, *limits, *fixed])


def _fewest_steps(head: Session) -> int | None:
    """The fewest frames that the head was built for; None where it takes any."""
    spec = next(spec for spec in head.inputs if spec.name == "features")
    return spec.limits[1][0] if spec.limits else spec.shape[1]


def _in_turns(run: Callable[[slice], tuple[Float32, Float32]], count: int, limit: int) -> tuple[Float32, Float32]:
    parts = [run(slice(start, start + limit)) for start in range(0, count, limit)]
    return np.concatenate([first for first, _ in parts]), np.concatenate([second for _, second in parts])


def _match(what: str, got: tuple[TensorSpec, ...], expected: list[TensorSpec]) -> None:
    found = {spec.name: spec for spec in got}
    for spec in expected:
        match = found.get(spec.name)
        fits = (
            match is not None
            and match.dtype == spec.dtype
            and len(match.shape) == len(spec.shape)
            and all(a is None or b is None or a == b for a, b in zip(match.shape, spec.shape, strict=True))
        )
        if not fits:
            listed = ", ".join(map(str, got))
            raise SessionError(f"{what} {spec.name!r} does not fit the manifest: got {listed}, expected {spec}")
