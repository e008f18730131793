"""A trained network as the beginning of a narrower one of a given shape: its strongest filters, units and columns.

Pruning (`fer_edge.train.narrow`) finds a shape; here the shape is the recipe's. Filters are ranked by the scale of
their batch normalisations (Liu et al. 2017, arXiv 1708.06519). The function is not kept, what it is made of is: the
training that follows begins with filters that see and gates that open and close.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from fer_edge.model.cnn import FrameCNN, ResidualBlock
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.importance import Ranking
from fer_edge.train.narrow import PrunedModel, carry_over

__all__ = ["shrinks_to", "shrunk"]


def shrinks_to(config: ModelConfig, larger: ModelConfig) -> bool:
    """Whether `config` is `larger` with narrower layers, or with none.

    A stage may have fewer residual blocks at its end, or further ones, which begin as their shortcuts. The DenseNet
    block may be of any shape: it is trained anew behind every LDA.
    """
    alike = replace(
        larger,
        channels=config.channels,
        blocks=config.blocks,
        spatial_hidden=config.spatial_hidden,
        temporal_hidden=config.temporal_hidden,
        attention_size=config.attention_size,
        dense_layers=config.dense_layers,
        dense_growth=config.dense_growth,
    )
    stages = zip(config.blocks, larger.blocks, strict=True)
    return (
        alike == config
        and all(map(int.__le__, config.channels, larger.channels))
        and all(all(map(int.__le__, narrow, wide)) for narrow, wide in stages)
        and config.spatial_hidden <= larger.spatial_hidden
        and config.attention_size <= larger.attention_size
    )


def _blocks(layers: list[nn.Module]) -> list[ResidualBlock]:
    return [layer for layer in layers if isinstance(layer, ResidualBlock)]


def _scale(norm: nn.Module) -> Tensor:
    return norm.get_parameter("weight").abs()


def _largest(worth: Tensor, count: int) -> Tensor:
    return worth.topk(count).indices.sort().values


def _convolutions(layers: Iterable[nn.Module]) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Every convolution among the layers, with the normalisation behind it."""
    return [(layer, norm) for layer, norm in pairwise(layers) if isinstance(layer, nn.Conv2d)]


def _copy(source: Iterable[nn.Module], target: Iterable[nn.Module], inputs: Tensor, outputs: Tensor) -> None:
    """The kept filters of the convolutions and of the normalisation behind each.

    Args:
        source: a convolution, or a depthwise one before a pointwise one, among their other layers.
        target: the same, narrower.
        inputs: int64, channels of the first one's input that are left.
        outputs: int64, filters of the last one that are left.
    """
    for (convolution, norm), (smaller, smaller_norm) in zip(_convolutions(source), _convolutions(target), strict=True):
        depthwise = convolution.groups > 1
        kept, weight = (inputs if depthwise else outputs), convolution.weight
        smaller.load_state_dict({"weight": weight[kept] if depthwise else weight[kept][:, inputs]})
        state = norm.state_dict()
        smaller_norm.load_state_dict({name: value[kept] if value.ndim else value for name, value in state.items()})


@torch.no_grad()
def shrunk(model: AttentionCnnBiLstm, temporary: nn.Linear, config: ModelConfig) -> PrunedModel:
    """The network with the filters, units and columns that fit a shape.

    Args:
        model: the trained network, with batch normalisations that are not folded; not changed.
        temporary: its temporary classifier.
        config: a shape that `shrinks_to` the network's own.
    """
    cnn = FrameCNN(config)  # residual blocks that the network does not have are their shortcuts in it
    seen = torch.zeros(1, dtype=torch.int64)
    for source, target in zip(model.encoder.cnn.children(), cnn.children(), strict=True):
        layers, narrower_layers = list(source.children()), list(target.children())
        blocks = list(zip(_blocks(layers), _blocks(narrower_layers), strict=False))
        scale = _scale(_convolutions(layers)[-1][1]) + sum(_scale(block.reduce[1]) for block, _ in blocks)
        kept = _largest(scale, len(_scale(_convolutions(narrower_layers)[-1][1])))
        _copy(layers, narrower_layers, seen, kept)
        for block, narrower in blocks:
            inner = _largest(_scale(block.expand[1]), narrower.width)
            _copy(block.expand, narrower.expand, kept, inner)
            _copy(block.depthwise.children(), narrower.depthwise.children(), inner, inner)
            _copy(block.reduce, narrower.reduce, inner, kept)
        seen = kept
    return carry_over(model, temporary, config, cnn=cnn, filters=seen, ranking=Ranking(importance="bn-scale"))
