"""What a trained network computes in fewer steps: arithmetic that weights can take over, taken over before an export.

On a small network every node of the graph is a share of its time. `fer_edge.train.from_bundle` takes all of it back.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fer_edge.model.attention import PointMultiplicationAttention
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import FrameEncoder, SequenceHead

__all__ = ["deployed_encoder", "deployed_head"]


@torch.no_grad()
def deployed_encoder(encoder: FrameEncoder, config: ModelConfig) -> FrameEncoder:
    """A copy that computes the same in evaluation mode.

    - The means over the regions are one matrix product: for its pooling ONNX Runtime reorders a float feature map, and
      back again.
    - The shortcut has no bias. The weights over the regions sum to one, so the output's normalisation may add it to the
      feature instead; all products of the attention move together without it, which the softmax does not notice; and
      the query's own bias makes up for what the query loses.
    - The attention's scale is the query's.

    Args:
        encoder: not changed. One whose CNN rounds (`fer_edge.model.quantised`) keeps its rounding.
        config: its shape.
    """
    result = copy.deepcopy(encoder).eval()
    shortcut, query, mean = encoder.shortcut, result.attention.query, result.output.running_mean
    assert mean is not None  # it counts its statistics
    result.add_module("regions", _RegionMeans(config.map_size, config.token_grid))
    result.shortcut = nn.Linear(shortcut.in_features, shortcut.out_features, bias=False)
    result.shortcut.weight.copy_(shortcut.weight)
    query.bias.add_(query.weight @ shortcut.bias)
    mean -= shortcut.bias
    _scale_query(result.attention)
    return result


@torch.no_grad()
def deployed_head(head: SequenceHead) -> SequenceHead:
    """A copy that computes the same in evaluation mode: LDA is one layer, the attention's scale the query's.

    Args:
        head: not changed.
    """
    result = copy.deepcopy(head).eval()
    projection = head.lda.projection
    linear = nn.Linear(*projection.shape)
    linear.weight.copy_(projection.T)
    linear.bias.copy_(-head.lda.mean @ projection)
    result.add_module("lda", linear)
    _scale_query(result.attention)
    return result


class _RegionMeans(nn.Module):
    """Means over the cells of a grid laid on a feature map, by one matrix product."""

    matrix: Tensor

    def __init__(self, size: int, grid: int) -> None:
        super().__init__()
        cell = torch.arange(size) // (size // grid)
        region = (cell.unsqueeze(1) * grid + cell).flatten()
        matrix = nn.functional.one_hot(region, grid**2) / (size // grid) ** 2
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, C, tokens), row by row."""
        return torch.matmul(maps.flatten(2), self.matrix)


def _scale_query(attention: PointMultiplicationAttention) -> None:
    attention.query.weight.mul_(attention.scale)
    attention.query.bias.mul_(attention.scale)
    attention.scale = 1.0
