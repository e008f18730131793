"""Initial weights from a trained network of another shape: deeper, wider or narrower.

Larger: as in Net2Net (Chen et al. 2016, arXiv 1511.05641), the new network computes the old one's function. Narrower:
keeps the filters with the largest batch normalisation scale (Liu et al. 2017, arXiv 1708.06519), the strongest hidden
units and attention columns; the function changes, the training that follows starts from trained filters.
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
from fer_edge.train.structured_pruning import PrunedModel, carry_over

__all__ = ["grown", "grows_from", "shrinks_to", "shrunk"]


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


def grows_from(config: ModelConfig, smaller: ModelConfig) -> bool:
    """Whether `config` is `smaller` with further residual blocks or a wider CNN, or with neither."""
    stages = zip(config.blocks, smaller.blocks, strict=True)
    return (
        replace(config, channels=smaller.channels, blocks=smaller.blocks) == smaller
        and all(map(int.__ge__, config.channels, smaller.channels))
        and all(len(large) >= len(small) and all(map(int.__ge__, large, small)) for large, small in stages)
    )


@torch.no_grad()
def grown(model: AttentionCnnBiLstm, config: ModelConfig) -> AttentionCnnBiLstm:
    """The same function in a network with further residual blocks or a wider CNN.

    As in Net2Net (Chen et al. 2016, arXiv 1511.05641). Behind a ReLU, a residual block whose last batch normalisation
    scales by zero passes its input on. A new filter begins as in a fresh network, and what was there before weighs it
    by zero until training finds a use for it: unlike a filter that was copied it has no twin to tell itself from.

    Args:
        model: the trained network.
        config: a shape that `grows_from` the network's own.
    """
    if config == model.config:
        return model
    larger = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    state = larger.state_dict()
    for name, value in model.state_dict().items():
        state[name] = _padded(value, state[name])
    larger.load_state_dict(state)
    return larger


def _padded(value: Tensor, fresh: Tensor) -> Tensor:
    """A tensor in the place of a larger one: the rows that it has weigh inputs that it has not by zero."""
    if value.shape == fresh.shape:
        return value
    padded = fresh.clone()
    padded[: len(value)] = 0
    padded[tuple(map(slice, value.shape))] = value
    return padded
