"""Logits of a network on labelled stills: the one evaluation loop, for calibration's gate and the benchmark alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.core.types import Array, Float32, Uint8

if TYPE_CHECKING:
    from fer_edge.runtime.inference import Network

__all__ = ["StillOutputs", "evaluate", "evaluate_windows"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StillOutputs:
    """What a network says of stills.

    Attributes:
        features: float32 (N, F) of the encoder.
        by_window: window T -> float32 (N, C), logits before temperature.
    """

    features: Float32
    by_window: Mapping[int, Float32]


def evaluate(
    network: Network,
    stills: Uint8,
    spec: PreprocessSpec,
    *,
    batch: int = 64,
    window: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Float32:
    """Logits of every still, before temperature.

    Args:
        network: an open network.
        stills: uint8 (N, H, W) grey faces, already cropped; may be memory-mapped, `batch` of them are read at a time.
        spec: the bundle's preprocessing.
        batch: stills in one call.
        window: frames T that the head sees; each still is repeated T times.
        progress: called with (stills done, N).

    Returns:
        float32 (N, C).

    Raises:
        InputError: no still, another dtype or shape, or batch or window below 1.
        SessionError: the engine failed, or gave a logit that is not finite.
    """
    outputs = evaluate_windows(network, stills, spec, batch=batch, windows=(window,), progress=progress)
    return outputs.by_window[window]


def evaluate_windows(
    network: Network,
    stills: Uint8,
    spec: PreprocessSpec,
    *,
    batch: int = 64,
    windows: Sequence[int] = (1,),
    progress: Callable[[int, int], None] | None = None,
) -> StillOutputs:
    """As `evaluate`, at several windows, for one pass of the encoder."""
    if batch < 1 or not windows or min(windows) < 1:
        raise InputError(f"batch and window must be at least 1, got {batch} and {', '.join(map(str, windows))}")
    if len(stills) == 0:
        raise InputError("no still to evaluate")
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
