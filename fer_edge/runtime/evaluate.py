"""Logits of a network on labelled stills: the one evaluation loop, for calibration's gate and the benchmark alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fer_edge.errors import InputError
from fer_edge.preprocess import PreprocessSpec, prepare_stills

if TYPE_CHECKING:
    from fer_edge.runtime.network import Network

__all__ = ["evaluate"]


def evaluate(
    network: Network,
    stills: NDArray[np.uint8],
    spec: PreprocessSpec,
    *,
    batch: int = 64,
    window: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
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
    if batch < 1 or window < 1:
        raise InputError(f"batch and window must be at least 1, got {batch} and {window}")
    if len(stills) == 0:
        raise InputError("no still to evaluate")
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(stills), batch):
        frames = prepare_stills(np.asarray(stills[start : start + batch]), spec)
        features: NDArray[Any] = network.encode(frames)
        windows = np.repeat(features[:, None, :], window, axis=1)
        parts.append(network.logits(windows, np.full(len(frames), window, np.int64)))
        if progress is not None:
            progress(min(start + batch, len(stills)), len(stills))
    return np.concatenate(parts)
