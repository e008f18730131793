"""2:4 sparsity: of every four weights along the input channels, two stay zero.

The recipe of NVIDIA's sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378): keep the two largest of every four
weights of the trained network and train on with the others at zero. The groups of four are TensorRT's: consecutive
input channels of one output channel at one kernel position.
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
    """Masks of the weights that may be non-zero.

    Attributes:
        layers: the convolutions by their name in the network.
        masks: bool (K, C, R, S) of each of them.
    """

    layers: dict[str, nn.Conv2d]
    masks: dict[str, Tensor]

    @torch.no_grad()
    def apply(self) -> None:
        """Set the masked weights to zero; call it after every optimiser step."""
        for name, layer in self.layers.items():
            self.masks[name] = self.masks[name].to(layer.weight.device)
            layer.weight.mul_(self.masks[name])

    def facts(self, spec: SparsitySpec) -> dict[str, Any]:
        """Return what a run records of them."""
        return {
            "pattern": spec.pattern,
            "min_channels": spec.min_channels,
            "convolutions": list(self.layers),
            "zeros": sum(int((~mask).sum()) for mask in self.masks.values()),
            "of_weights": sum(mask.numel() for mask in self.masks.values()),
        }


def two_of_four(network: nn.Module, spec: SparsitySpec) -> WeightMasks:
    """Compute masks that keep the two largest of every four weights along the input channels.

    Args:
        network: not changed; its convolutions with at least `min_channels` input and output channels, the input
            channels a multiple of four, are masked.
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
            f"--sparsity {spec.pattern}: got no convolution with {spec.min_channels} input and output channels, the "
            "input channels a multiple of four; lower sparsity.min_channels or set round_to to a multiple of four"
        )
    masks = {}
    for name, layer in layers.items():
        outputs, inputs, *kernel = layer.weight.shape
        size = layer.weight.detach().abs().view(outputs, inputs // 4, 4, *kernel)
        kept = size.topk(2, dim=2).indices
        masks[name] = torch.zeros_like(size, dtype=torch.bool).scatter_(2, kept, True).view_as(layer.weight)
    return WeightMasks(layers=layers, masks=masks)
