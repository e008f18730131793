"""Multiply-accumulates and parameters of a model, from its configuration."""

from __future__ import annotations

import torch

from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.model.weight_fusion import tail_sizes

__all__ = ["encoder_macs", "head_macs", "parameter_count"]


def parameter_count(config: ModelConfig) -> int:
    """Count the parameters of encoder and head together, as a bundle's manifest does."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AttentionCnnBiLstm(config).parameters())


def encoder_macs(config: ModelConfig) -> int:
    """Count the multiply-accumulates of one frame: convolutions, recurrences and matrix products, as exported."""
    side, inputs, total = config.input_size, 1, 0
    for index, (channels, widths) in enumerate(zip(config.channels, config.blocks, strict=True)):
        strided = index == 0 and config.stem == "strided"
        side //= 2 if strided else 1
        kernel = (config.stem_kernel if index == 0 else 3) ** 2 * inputs * channels
        kernel += sum(2 * 9 * channels * width for width in widths)
        total += side**2 * kernel
        side //= 2 if index < 3 and not strided else 1
        inputs = channels
    width, tokens = config.feature_size, config.tokens
    total += config.map_size**2 * tokens * inputs  # the means over the regions
    total += tokens * _bilstm_macs(inputs, config.spatial_hidden) + tokens * inputs * width
    return total + _attention_macs(width, tokens)


def head_macs(config: ModelConfig, steps: int) -> int:
    """Count the multiply-accumulates of the head on a window of `steps` frames, as exported."""
    width = config.feature_size
    total = steps * _bilstm_macs(width, config.temporal_hidden) + _attention_macs(width, steps)
    return total + sum(inputs * outputs for inputs, outputs in tail_sizes(config))


def _bilstm_macs(inputs: int, hidden: int) -> int:
    return 2 * 4 * hidden * (inputs + hidden)


def _attention_macs(width: int, steps: int) -> int:
    return width * width + 2 * steps * width
