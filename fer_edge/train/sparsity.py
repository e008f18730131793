"""2:4 sparsity: of every four weights along the input channels, two that are zero and stay zero.

As NVIDIA trains for its sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378): the two largest of every four
weights of the dense, trained network are kept, and it is trained on with the others held at zero. The groups of four
are TensorRT's: consecutive input channels of one output channel at one place of the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError
from fer_edge.train.recipe import SparsitySpec

__all__ = ["WeightMasks", "two_of_four"]


@dataclass(frozen=True, kw_only=True)
class WeightMasks:
    """Which weights of a network stay zero.

    Attributes:
        layers: the convolutions by their name in the network.
        masks: bool (K, C, R, S) of each of them, True where a weight may be anything.
    """

    layers: dict[str, nn.Conv2d]
    masks: dict[str, Tensor]

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights to zero that are to be; after every step of an optimiser."""
        for name, layer in self.layers.items():
            if self.masks[name].device != layer.weight.device:
                self.masks[name] = self.masks[name].to(layer.weight.device)
            layer.weight.mul_(self.masks[name])

    def facts(self, spec: SparsitySpec) -> dict[str, Any]:
        """What a run records of it."""
        weights = sum(mask.numel() for mask in self.masks.values())
        return {
            "pattern": spec.pattern,
            "min_channels": spec.min_channels,
            "convolutions": list(self.layers),
            "zeros": sum(int((~mask).sum()) for mask in self.masks.values()),
            "of_weights": weights,
        }


def two_of_four(network: nn.Module, spec: SparsitySpec) -> WeightMasks:
    """Masks that keep the two largest of every four weights along the input channels; the network is not changed yet.

    Args:
        network: its convolutions with at least `min_channels` input channels, a multiple of four, and output channels
            are taken.
        spec: the pattern ``"2:4"``.

    Raises:
        InputError: no convolution is large enough.
    """
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.in_channels % 4 == 0
        and min(module.in_channels, module.out_channels) >= spec.min_channels
    }
    if not layers:
        raise InputError(
            f"--sparsity {spec.pattern}: no convolution has {spec.min_channels} input and output channels or more, the "
            "input channels a multiple of four; lower sparsity.min_channels or set round_to to a multiple of four"
        )
    masks = {}
    for name, layer in layers.items():
        outputs, inputs, *kernel = layer.weight.shape
        size = layer.weight.detach().abs().view(outputs, inputs // 4, 4, *kernel)
        kept = size.topk(2, dim=2).indices
        masks[name] = torch.zeros_like(size, dtype=torch.bool).scatter_(2, kept, True).view_as(layer.weight)
    return WeightMasks(layers=layers, masks=masks)
