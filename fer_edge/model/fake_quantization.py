"""Fake quantization of the frame encoder: INT8 rounding in torch with learnt ranges and straight-through gradients.

The tensors that `fer_edge.calibrate` quantizes in the ONNX graph are rounded: inputs of convolutions and of residual
additions, and the convolutions' weights, one range a filter. Normalisation, LSTM and attention stay float. Batch
normalisations are folded first, as in the exported graph, so that the rounded weights are the engine's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import HALF_RANGE_WEIGHTS, Form
from fer_edge.model.cnn import ResidualBlock
from fer_edge.model.deploy import fold_batch_norm
from fer_edge.model.network import FrameEncoder
from fer_edge.model.weight_fusion import neutral_batch_norm

__all__ = [
    "QuantisedConvolution",
    "Quantiser",
    "fixed",
    "plain_state",
    "quantised",
    "quantisers",
    "set_form",
]

_SMALLEST: Final = 1e-4
"""Smallest range, for filters of zeros."""


class Quantiser(nn.Module):
    """Rounds to 8-bit steps; the range is learnt along with the weights (LSQ: Esser et al. 2020, arXiv 1902.08153).

    The logarithm of the range is the parameter, so that optimiser steps are relative.
    """

    log_range: nn.Parameter
    zero: Tensor

    def __init__(self, channels: int | None = None, *, signed: bool) -> None:
        """Create one range for each index of the first axis, or one for all without `channels`."""
        super().__init__()
        self.channels = channels
        self.signed = signed
        self.log_range = nn.Parameter(torch.zeros(channels or 1))
        self.register_buffer("zero", torch.zeros(channels or 1), persistent=False)
        self.low, self.high = (-128, 127) if signed else (0, 255)

    @property
    def scale(self) -> Tensor:
        """Step size: float32 (1,) or (channels,)."""
        return self.log_range.exp() / self.high

    @torch.no_grad()
    def set_range(self, largest: Tensor) -> None:
        """Set the range to the largest absolute value, one number or one a channel."""
        self.log_range.copy_(largest.detach().reshape(-1).abs().clamp(min=_SMALLEST).log())

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, channels first where there are several; the same shape and type."""
        gradient = (self.high * x.numel() / len(self.log_range)) ** -0.5  # section 2.2 of LSQ
        if self.channels is None:
            return torch._fake_quantize_learnable_per_tensor_affine(
                x, self.scale, self.zero, self.low, self.high, gradient
            )
        return torch._fake_quantize_learnable_per_channel_affine(
            x, self.scale, self.zero, 0, self.low, self.high, gradient
        )


class QuantisedConvolution(nn.Conv2d):
    """A convolution with rounded weights."""

    def __init__(self, plain: nn.Conv2d) -> None:
        assert plain.bias is not None  # folded
        kernel, stride = (plain.kernel_size[0], plain.kernel_size[1]), (plain.stride[0], plain.stride[1])
        assert not isinstance(plain.padding, str)
        padding = (plain.padding[0], plain.padding[1])
        super().__init__(plain.in_channels, plain.out_channels, kernel, stride, padding)
        self.load_state_dict(plain.state_dict())
        self.quantiser = Quantiser(plain.out_channels, signed=True)
        self.quantiser.low = -127
        self.quantiser.set_range(self.weight.flatten(1).abs().amax(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        output: Tensor = self._conv_forward(x, self.quantiser(self.weight), self.bias)
        return output


class _QuantisedReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.quantiser = Quantiser(signed=False)

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = self.quantiser(self.relu(x))
        return rounded


class _QuantisedBlock(nn.Module):
    """A residual block with rounded summands."""

    def __init__(self, plain: ResidualBlock) -> None:
        super().__init__()
        self.expand = _quantised_layer(plain.expand)
        self.relu = _QuantisedReLU()
        self.reduce = _quantised_layer(plain.reduce)
        self.reduce[1] = Quantiser(signed=True)  # replaces the folded batch normalisation
        self.output = _QuantisedReLU()

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = self.reduce(self.relu(self.expand(x)))
        output: Tensor = self.output(x + refined)
        return output


def quantised(encoder: FrameEncoder, *, form: Form) -> FrameEncoder:
    """Copy an encoder with INT8 rounding; the ranges of activations are not set yet.

    The names of weights are the encoder's own.

    Args:
        encoder: trained; not changed.
        form: number of steps on each side of zero.

    Raises:
        InputError: the encoder has a layer that cannot be rounded.
    """
    result = fold_batch_norm(encoder)
    signed = result.normalise.contrast  # without contrast normalisation pixels are 0 to 1
    result.normalise = nn.Sequential(result.normalise, Quantiser(signed=signed))  # type: ignore[assignment]
    for place, stage in enumerate(result.cnn):
        result.cnn[place] = _quantised_layer(stage)
    set_form(result, form)
    return result


def _quantised_layer(layer: nn.Module) -> Any:
    if isinstance(layer, nn.Conv2d):
        return QuantisedConvolution(layer)
    if isinstance(layer, nn.ReLU):
        return _QuantisedReLU()
    if isinstance(layer, ResidualBlock):
        return _QuantisedBlock(layer)
    if isinstance(layer, nn.Sequential):
        return nn.Sequential(*map(_quantised_layer, layer))
    if isinstance(layer, nn.Identity | nn.MaxPool2d):  # a maximum of rounded numbers is rounded
        return layer
    raise InputError(
        f"quantization-aware training: got a layer {type(layer).__name__}, expected convolutions, ReLU, pooling and "
        "residual blocks; calibrate the bundle instead (fer-edge calibrate)"
    )


def quantisers(encoder: FrameEncoder) -> dict[str, Quantiser]:
    """Return the quantizers of a `quantised` encoder by module name, in the order of computation."""
    return {name: module for name, module in encoder.named_modules() if isinstance(module, Quantiser)}


def set_form(encoder: FrameEncoder, form: Form) -> None:
    """Set the INT8 form of a `quantised` encoder; ranges stay.

    The forms differ in their steps: ``"int8"`` has 63 on each side of zero for weights and 255 for unsigned
    activations, ``"int8-trt"`` 127 for both.
    """
    for name, quantiser in quantisers(encoder).items():
        if quantiser.channels is not None:
            quantiser.high = 63 if HALF_RANGE_WEIGHTS[form] else 127
            quantiser.low = -quantiser.high
        elif not quantiser.signed:
            quantiser.high = 255 if form == "int8" else 127
        assert quantiser.high > 0, name


class _Fixed(nn.Module):
    """A quantizer with constant ranges for the ONNX exporter."""

    def __init__(self, quantiser: Quantiser) -> None:
        super().__init__()
        self.scale = quantiser.scale.detach().clone()
        self.channels = quantiser.channels
        self.low, self.high = (0, 255) if quantiser.high == 255 else (-128, 127)

    def forward(self, x: Tensor) -> Tensor:
        if self.channels is None:
            return torch.fake_quantize_per_tensor_affine(x, float(self.scale), 0, self.low, self.high)
        zero = torch.zeros(self.channels, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, self.scale, zero, 0, self.low, self.high)


@torch.no_grad()
def fixed(encoder: FrameEncoder) -> FrameEncoder:
    """Copy a `quantised` encoder for the ONNX exporter, which makes QuantizeLinear and DequantizeLinear of it.

    Weights are rounded here, since ONNX quantizers have the full interval of their type.
    """
    result = copy.deepcopy(encoder).eval().cpu()
    for module in result.modules():
        if isinstance(module, QuantisedConvolution):
            module.weight.copy_(module.quantiser(module.weight))
    for name, quantiser in quantisers(result).items():
        owner, _, own = name.rpartition(".")
        setattr(result.get_submodule(owner), own, _Fixed(quantiser))
    return result


def plain_state(encoder: FrameEncoder) -> Iterator[tuple[str, Tensor]]:
    """Return the unrounded weights of a `quantised` encoder for a plain one, with neutral batch normalisations.

    Yields:
        names and tensors of the plain encoder's state.
    """
    names = dict(encoder.named_modules())
    for key, value in encoder.state_dict().items():
        owner, _, own = key.rpartition(".")
        module = names[owner]
        if isinstance(module, Quantiser):
            continue
        if not isinstance(module, QuantisedConvolution) or own == "weight":
            yield key, value
        else:
            parent, _, place = owner.rpartition(".")
            yield from neutral_batch_norm(f"{parent}.{int(place) + 1}", torch.ones_like(value), value)
