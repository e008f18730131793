"""Deployment form of a trained network: batch normalisations folded and layers fused, for fewer graph nodes.

`fer_edge.train.bundle_weights` splits the fused weights again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fer_edge.model.config import ModelConfig
from fer_edge.model.network import FrameEncoder, SequenceHead
from fer_edge.model.weight_fusion import Affine, merged_attention, merged_tail

__all__ = ["deployed_encoder", "deployed_head", "fold_batch_norm", "folded"]


@torch.no_grad()
def deployed_encoder(encoder: FrameEncoder, config: ModelConfig) -> FrameEncoder:
    """Copy an encoder in its deployment form, with the same function in evaluation mode.

    - The means over the regions are one matrix product: ONNX Runtime reorders a float feature map for pooling.
    - The shortcut's bias moves into the output's normalisation, since the attention weights sum to one. It shifts all
      products of the attention alike, which the softmax ignores; the query's bias compensates for the query's part.
    - Query, key and scale of the attention are one query.

    Args:
        encoder: not changed. One whose CNN rounds (`fer_edge.model.fake_quantization`) keeps its rounding.
    """
    result = copy.deepcopy(encoder).eval()
    shortcut, mean = encoder.shortcut, result.output.running_mean
    assert mean is not None
    result.add_module("regions", _RegionMeans(config.map_size, config.token_grid))
    result.shortcut = nn.Linear(shortcut.in_features, shortcut.out_features, bias=False)
    result.shortcut.weight.copy_(shortcut.weight)
    result.add_module("attention", _KeylessAttention(merged_attention(encoder.attention, moved_by=shortcut.bias)))
    mean -= shortcut.bias
    return result


@torch.no_grad()
def deployed_head(head: SequenceHead, config: ModelConfig) -> SequenceHead:
    """Copy a head in its deployment form, with the same function in evaluation mode.

    - Query, key and scale of the attention are one query, as in the encoder.
    - LDA, DenseNet block and classifier are linear layers with a ReLU between any two (`fer_edge.model.weight_fusion`).

    Args:
        head: not changed.
    """
    result = copy.deepcopy(head).eval()
    result.add_module("attention", _KeylessAttention(merged_attention(head.attention)))
    steps, classifier = merged_tail(head, config)
    result.add_module("lda", nn.Identity())
    result.add_module("reconstruction", _ReluSteps(steps))
    result.classifier = _linear(classifier)
    return result


class _KeylessAttention(nn.Module):
    """`PointMultiplicationAttention` with a fused query."""

    def __init__(self, query: Affine) -> None:
        super().__init__()
        self.query = _linear(query)

    def forward(self, query: Tensor, values: Tensor, blocked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `PointMultiplicationAttention.forward`."""
        products = torch.matmul(self.query(query).unsqueeze(1), values.transpose(1, 2))
        if blocked is not None:
            products = products.masked_fill(blocked, -1e4)
        weights = torch.softmax(products, dim=2)
        return torch.matmul(weights, values).squeeze(1), weights.squeeze(1)


class _ReluSteps(nn.Module):
    """Linear layers with a ReLU behind each."""

    def __init__(self, steps: Iterable[Affine]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(map(_linear, steps))

    def forward(self, features: Tensor) -> Tensor:
        """(B, W) -> (B, outputs of the last step)."""
        for step in self.steps:
            features = torch.relu(step(features))
        return features


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


def _linear(affine: Affine) -> nn.Linear:
    weight, bias = affine
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def fold_batch_norm(encoder: FrameEncoder) -> FrameEncoder:
    """Copy an encoder with its batch normalisations folded into the convolutions before them, in evaluation mode."""
    folded = copy.deepcopy(encoder).eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                convolution, normalisation = module[place], module[place + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                    module[place] = nn.utils.fusion.fuse_conv_bn_eval(convolution, normalisation)
                    module[place + 1] = nn.Identity()
    return folded


def folded(encoder: FrameEncoder) -> FrameEncoder:
    """Copy an encoder for inference: batch normalisations folded, channels last.

    On a CPU with native bf16 it is two to three times as fast as the trained module.
    """
    channels_last: FrameEncoder = fold_batch_norm(encoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return channels_last
