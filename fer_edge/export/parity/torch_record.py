"""What torch computed when a run was exported: a few numbers in the manifest that later graphs are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import decode
from fer_edge.core.manifest import Manifest, Variant
from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.core.types import Float32, Int64, Uint8
from fer_edge.data.faces.stills import synthetic_stills

__all__ = ["RECORD", "RecordedOutputs", "generated_frames", "record_outputs", "recorded_outputs"]

RECORD: Final = "torch"
"""The key of the record in a variant's `parity`."""

_FACES: Final = 32
_SEED: Final = 0


@dataclass(frozen=True, kw_only=True)
class RecordedOutputs:
    """Torch's outputs on generated faces; no image of a person is among them.

    Attributes:
        faces: how many were generated.
        seed: of the generator.
        frames_sha256: of the prepared frames, so that a changed generator is noticed and not taken for a difference.
        feature_mean: of each face's features.
        feature_spread: their standard deviation.
        logits: of each face on its own, before temperature.
        window_logits: of the faces in windows of the manifest's length, in order.
    """

    faces: int
    seed: int
    frames_sha256: str
    feature_mean: tuple[float, ...]
    feature_spread: tuple[float, ...]
    logits: tuple[tuple[float, ...], ...]
    window_logits: tuple[tuple[float, ...], ...]

    def frames(self, spec: PreprocessSpec) -> Uint8:
        """The frames: uint8 (faces, S, S).

        Raises:
            InputError: the generator draws other faces than when the record was made.
        """
        frames = generated_frames(self.faces, spec, seed=self.seed)
        if sha256_bytes(frames.tobytes()) != self.frames_sha256:
            raise InputError(
                f"the record of torch's outputs was made on other generated faces than this version draws (sha256 "
                f"{self.frames_sha256[:12]}...); export the run again, or give the run with --run"
            )
        return frames


def record_outputs(
    encoder: Callable[[Uint8], Float32],
    head: Callable[[Float32, Int64], Float32],
    spec: PreprocessSpec,
    *,
    window: int,
) -> RecordedOutputs:
    """Run a network on generated faces and keep what it makes of them.

    Args:
        encoder: uint8 (N, S, S) -> features float32 (N, F).
        head: features float32 (B, T, F), lengths int64 (B,) -> logits float32 (B, C).
        spec: how faces become frames.
        window: T of a full window.
    """
    count = max(_FACES, window)
    frames = generated_frames(count, spec)
    features = encoder(frames)
    windows = features[: count // window * window].reshape(-1, window, features.shape[1])
    return RecordedOutputs(
        faces=count,
        seed=_SEED,
        frames_sha256=sha256_bytes(frames.tobytes()),
        feature_mean=_row(features.mean(axis=1)),
        feature_spread=_row(features.std(axis=1)),
        logits=tuple(map(_row, head(features[:, None], np.ones(count, np.int64)))),
        window_logits=tuple(map(_row, head(windows, np.full(len(windows), window, np.int64)))),
    )


def recorded_outputs(manifest: Manifest, variant: Variant) -> RecordedOutputs | None:
    """The record of a variant; None where there is none.

    Raises:
        BundleError: the record cannot be read.
    """
    value = variant.parity.get(RECORD)
    if value is None:
        return None
    try:
        return decode(RecordedOutputs, value)
    except InputError as error:
        raise BundleError(f"{manifest.name}: variant {variant.name}: parity.{RECORD}: {error}") from error


def generated_frames(count: int, spec: PreprocessSpec, *, seed: int = _SEED) -> Uint8:
    """Frames of faces of nobody: uint8 (count, S, S)."""
    return prepare_stills(synthetic_stills(count, seed=seed)[0], spec)


def _row(values: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in values)
