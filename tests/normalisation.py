"""The first step of every exported graph in numpy: the reference that graphs are compared with."""

from __future__ import annotations

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import GCN_EPSILON, PreprocessSpec, check_stack
from fer_edge.core.types import Float32, Uint8

__all__ = ["normalise"]


def normalise(frames: Uint8, spec: PreprocessSpec) -> Float32:
    """Compute the exported graph's first step in FP32: x / 255, then global contrast normalisation frame by frame.

    Args:
        frames: uint8 (N, S, S) grey, prepared.
        spec: size and normalisation.

    Returns:
        float32 (N, S, S); with ``"gcn"`` every frame has mean 0 and, unless constant, variance close to 1.

    Raises:
        InputError: another type, shape or size.
    """
    check_stack(frames, "frames")
    if frames.shape[1:] != (spec.size, spec.size):
        raise InputError(f"frames: got shape {frames.shape}, expected (N, {spec.size}, {spec.size})")
    scaled = frames.astype(np.float32) / np.float32(255)
    if spec.normalisation == "scale":
        return scaled
    centred = scaled - scaled.mean(axis=(1, 2), keepdims=True)
    variance = np.square(centred).mean(axis=(1, 2), keepdims=True)
    # The mean of equal floats can miss them by an ulp, which the small epsilon would amplify.
    constant = frames.min(axis=(1, 2), keepdims=True) == frames.max(axis=(1, 2), keepdims=True)
    return np.where(constant, np.float32(0), centred / np.sqrt(variance + np.float32(GCN_EPSILON)))
