"""LDA and the DenseNet block behind it: dimensionality reduction and reconstruction (section 3.7)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["DenseLayer", "DenseNetBlock", "LinearDiscriminants"]


class LinearDiscriminants(nn.Module):
    """The projection on the discriminants of Linear Discriminant Analysis, fixed once fitted (`fer_edge.train.lda`).

    Buffers rather than parameters: no gradient step moves them. `fitted` tells an exporter that they mean something.
    """

    mean: Tensor
    projection: Tensor
    fitted: Tensor

    def __init__(self, width: int, discriminants: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("projection", torch.eye(width, discriminants))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, context: Tensor) -> Tensor:
        """(B, W) -> (B, discriminants)."""
        return torch.matmul(context - self.mean, self.projection)


class DenseLayer(nn.Module):
    """One layer of a `DenseNetBlock`."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(width, growth)

    def forward(self, features: Tensor) -> Tensor:
        """(B, W) -> (B, growth)."""
        output: Tensor = self.linear(self.relu(self.normalise(features)))
        return output


class DenseNetBlock(nn.Module):
    """BN-ReLU-linear layers, each fed the concatenation of all before it (Huang et al. 2017, arXiv 1608.06993)."""

    def __init__(self, width: int, *, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(width + index * growth, growth) for index in range(layers))
        self.output_size = width + layers * growth

    def forward(self, features: Tensor) -> Tensor:
        """(B, W) -> (B, W + layers x growth)."""
        for layer in self.layers:
            features = torch.cat((features, layer(features)), dim=1)
        return features

    def each_layer(self) -> Iterator[DenseLayer]:
        """The layers, first to last."""
        for layer in self.layers:
            assert isinstance(layer, DenseLayer)
            yield layer
