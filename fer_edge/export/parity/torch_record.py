"""Torch's outputs at export time, recorded in `provenance.json`, for later comparison without torch.

The frames are patterns, computed in integers from a hash: no library version and no change of the drawn faces alters
them, so that a record stays valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.json import decode
from fer_edge.core.provenance import Provenance
from fer_edge.core.types import Float32, Int64, Uint8

__all__ = ["RecordedOutputs", "pattern_frames", "record_outputs", "recorded_outputs"]

_FRAMES: Final = 32
_GRID: Final = 8


@dataclass(frozen=True, kw_only=True)
class RecordedOutputs:
    """Torch's outputs on `pattern_frames`.

    Attributes:
        frames: number of frames.
        feature_mean: of each frame's features.
        feature_spread: their standard deviation.
        logits: of each frame on its own, before temperature.
        window_logits: of the frames in windows of the manifest's length, in order.
    """

    frames: int
    feature_mean: tuple[float, ...]
    feature_spread: tuple[float, ...]
    logits: tuple[tuple[float, ...], ...]
    window_logits: tuple[tuple[float, ...], ...]


def record_outputs(
    encoder: Callable[[Uint8], Float32], head: Callable[[Float32, Int64], Float32], *, size: int, window: int
) -> RecordedOutputs:
    """Run a network on `pattern_frames` and record its outputs.

    Args:
        encoder: uint8 (N, S, S) -> features float32 (N, F).
        head: features float32 (B, T, F), lengths int64 (B,) -> logits float32 (B, C).
        size: S, in pixels.
        window: T of a full window.
    """
    count = max(_FRAMES, window)
    features = encoder(pattern_frames(count, size))
    windows = features[: count // window * window].reshape(-1, window, features.shape[1])
    return RecordedOutputs(
        frames=count,
        feature_mean=_row(features.mean(axis=1)),
        feature_spread=_row(features.std(axis=1)),
        logits=tuple(map(_row, head(features[:, None], np.ones(count, np.int64)))),
        window_logits=tuple(map(_row, head(windows, np.full(len(windows), window, np.int64)))),
    )


def recorded_outputs(provenance: Provenance, variant: str) -> RecordedOutputs | None:
    """Return the record of a variant; None where there is none.

    Raises:
        BundleError: the record cannot be read.
    """
    value = provenance.outputs.get(variant)
    if value is None:
        return None
    try:
        return decode(RecordedOutputs, value, where=f"outputs.{variant}")
    except InputError as error:
        raise BundleError(f"provenance.json: {error}") from error


def pattern_frames(count: int, size: int) -> Uint8:
    """Compute frames uint8 (count, size, size): coarse blocks with fine noise."""
    drawn = hashlib.shake_256(b"fer-edge").digest(count * (_GRID * _GRID + size * size))
    values = np.frombuffer(drawn, np.uint8).astype(np.int64)
    coarse = values[: count * _GRID * _GRID].reshape(count, _GRID, _GRID)
    fine = values[count * _GRID * _GRID :].reshape(count, size, size)
    cell = np.arange(size) * _GRID // size
    return ((3 * coarse[:, cell][:, :, cell] + fine) // 4).astype(np.uint8)


def _row(values: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in values)
