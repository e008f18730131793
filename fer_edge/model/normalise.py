"""uint8 pixels to normalised floats, inside the graph."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

__all__ = ["PixelNormalisation"]


class PixelNormalisation(nn.Module):
    """x / 255, then global contrast normalisation of each image.

    Subtracts the image's mean and divides by its standard deviation (section 3.1 of the paper), with 1e-6 added to the
    variance so that a constant image gives zeros. Always FP32: `fer_edge.core.preprocess.normalise` is the reference.

    A quotient does not change with the scale of its pixels, so contrast normalisation takes them as they come and adds
    an epsilon in their unit: three nodes of a graph, where the steps one by one are ten.
    """

    def __init__(self, normalisation: Literal["gcn", "scale"]) -> None:
        super().__init__()
        self.contrast = normalisation == "gcn"

    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (N, S, S) grey -> float32 (N, 1, S, S)."""
        pixels = frames.float().unsqueeze(1)  # TensorRT reshapes no uint8, so the cast comes first
        return nn.functional.instance_norm(pixels, eps=1e-6 * 255.0**2) if self.contrast else pixels / 255.0
