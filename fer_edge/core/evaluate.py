"""The one evaluation loop over stills, for calibration's gate, the benchmark and the demo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.core.types import Array, Float32, Int64, Uint8

__all__ = ["StillNetwork", "StillOutputs", "evaluate"]


class StillNetwork(Protocol):
    """What `evaluate` needs of a network; `fer_edge.runtime.Network` has it."""

    def encode(self, frames: Uint8) -> Float32:
        """Compute features: uint8 (N, S, S) -> float32 (N, F)."""

    def logits(self, features: Float32, length: Int64) -> Float32:
        """Compute logits: float32 (B, T, F), int64 (B,) -> float32 (B, C)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StillOutputs:
    """Outputs of a network for stills.

    Attributes:
        features: float32 (N, F).
        by_window: window T -> float32 (N, C), logits before temperature.
    """

    features: Float32
    by_window: Mapping[int, Float32]


def evaluate(
    network: StillNetwork,
    stills: Uint8,
    spec: PreprocessSpec,
    *,
    batch: int = 64,
    windows: Sequence[int] = (1,),
    progress: Callable[[int, int], None] | None = None,
) -> StillOutputs:
    """Compute features and logits of every still, with one pass of the encoder for all windows.

    Args:
        stills: uint8 (N, H, W) grey raw crops; may be memory-mapped, `batch` of them are read at a time.
        spec: the bundle's preprocessing.
        batch: stills per run.
        windows: frames T of the head's windows; each still is repeated T times.
        progress: called with (stills done, N).

    Raises:
        InputError: no still, another dtype or shape, or batch or a window below 1.
        SessionError: the engine failed, or computed NaN.
    """
    if batch < 1 or not windows or min(windows) < 1:
        raise InputError(f"batch, windows: got {batch} and {tuple(windows)}, expected 1 or more each")
    if len(stills) == 0:
        raise InputError("stills: got none, expected at least one")
    encoded: list[Float32] = []
    parts: dict[int, list[Float32]] = {window: [] for window in windows}
    for start in range(0, len(stills), batch):
        frames = prepare_stills(np.asarray(stills[start : start + batch]), spec)
        features: Array = network.encode(frames)
        encoded.append(features)
        for window, found in parts.items():
            repeated = np.repeat(features[:, None, :], window, axis=1)
            found.append(network.logits(repeated, np.full(len(frames), window, np.int64)))
        if progress is not None:
            progress(min(start + batch, len(stills)), len(stills))
    return StillOutputs(
        features=np.concatenate(encoded),
        by_window={window: np.concatenate(found) for window, found in parts.items()},
    )
