"""The frame encoder as INT8 computes it, in torch: rounding that gradients pass through, with ranges that are learnt.

Rounded is what `fer_edge.calibrate` quantizes in the ONNX graph: what goes into every convolution and every residual
addition, and the convolutions' weights, one range a filter. Normalisation, LSTM and attention stay float. Batch
normalisations are folded into their convolutions first, as the exported graph has them: otherwise the rounded weights
would not be those that the engine multiplies by.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError
from fer_edge.core.int8_forms import HALF_RANGE_WEIGHTS, Form
from fer_edge.model.cnn import ResidualBlock
from fer_edge.model.deploy import fold_batch_norm
from fer_edge.model.network import FrameEncoder

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
"""Of any range: a filter of zeros has none."""


class Quantiser(nn.Module):
    """Rounds to 8-bit steps; the range is learnt along with the weights (LSQ: Esser et al. 2020, arXiv 1902.08153).

    The range is kept as its logarithm, so that a step of the optimiser changes it by a share of itself.
    """

    log_range: nn.Parameter
    zero: Tensor

    def __init__(self, channels: int | None = None, *, signed: bool) -> None:
        """`channels`: one range for each index of the first axis; one for all without it."""
        super().__init__()
        self.channels = channels
        self.signed = signed
        self.log_range = nn.Parameter(torch.zeros(channels or 1))
        self.register_buffer("zero", torch.zeros(channels or 1), persistent=False)
        self.low, self.high = (-128, 127) if signed else (0, 255)

    @property
    def scale(self) -> Tensor:
        """Size of a step: float32 (1,) or (channels,)."""
        return self.log_range.exp() / self.high

    @torch.no_grad()
    def set_range(self, largest: Tensor) -> None:
        """Take a range over: the largest absolute value, one number or one a channel."""
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
    """A convolution whose weights are rounded."""

    def __init__(self, plain: nn.Conv2d) -> None:
        assert plain.bias is not None  # folded
        kernel, stride = (plain.kernel_size[0], plain.kernel_size[1]), (plain.stride[0], plain.stride[1])
        assert not isinstance(plain.padding, str)
        padding = (plain.padding[0], plain.padding[1])
        super().__init__(plain.in_channels, plain.out_channels, kernel, stride, padding, groups=plain.groups)
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
    """A residual block, both of whose summands are rounded."""

    def __init__(self, plain: ResidualBlock) -> None:
        super().__init__()
        self.expand = _quantised_layers(plain.expand)
        self.relu = _QuantisedReLU()
        self.depthwise = _quantised_layer(plain.depthwise)
        self.reduce = _quantised_layers(plain.reduce)
        self.reduce[1] = Quantiser(signed=True)  # in the place of the batch normalisation, which is folded
        self.output = _QuantisedReLU()

    def forward(self, x: Tensor) -> Tensor:
        refined: Tensor = self.reduce(self.depthwise(self.relu(self.expand(x))))
        output: Tensor = self.output(x + refined)
        return output


def quantised(encoder: FrameEncoder, *, form: Form) -> FrameEncoder:
    """A copy that computes as INT8 does. Weights have their ranges; those of activations are yet to be set.

    Every module keeps its place, so that the names of weights are the encoder's own.

    Args:
        encoder: trained; not changed.
        form: how many steps there are on each side of zero.

    Raises:
        InputError: the encoder has a layer that this does not know how to round.
    """
    result = fold_batch_norm(encoder)
    signed = result.normalise.contrast  # without contrast normalisation pixels are 0 to 1
    result.normalise = nn.Sequential(result.normalise, Quantiser(signed=signed))  # type: ignore[assignment]
    for place, stage in enumerate(result.cnn):
        result.cnn[place] = _quantised_layer(stage)
    set_form(result, form)
    return result


def _quantised_layers(layers: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*map(_quantised_layer, layers))


def _quantised_layer(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return QuantisedConvolution(layer)
    if isinstance(layer, nn.ReLU):
        return _QuantisedReLU()
    if isinstance(layer, ResidualBlock):
        return _QuantisedBlock(layer)
    if isinstance(layer, nn.Sequential):
        return _quantised_layers(layer)
    if isinstance(layer, nn.Identity | nn.MaxPool2d):  # a maximum of rounded numbers is rounded
        return layer
    raise _unknown(layer)


def _unknown(layer: nn.Module) -> InputError:
    return InputError(
        f"quantization-aware training does not know the layer {type(layer).__name__} of this network; calibrate the "
        "bundle instead (fer-edge calibrate), or teach fer_edge.model.fake_quantization where to round"
    )


def quantisers(encoder: FrameEncoder) -> dict[str, Quantiser]:
    """Every quantizer of a `quantised` encoder, by the name of its module, in the order of computation."""
    return {name: module for name, module in encoder.named_modules() if isinstance(module, Quantiser)}


def set_form(encoder: FrameEncoder, form: Form) -> None:
    """Let a `quantised` encoder round as one of the forms does; ranges stay as they are.

    The forms differ in their steps: ``"int8"`` has 63 on either side of zero for weights and 255 for what is never
    negative, ``"int8-trt"`` 127 for both.
    """
    for name, quantiser in quantisers(encoder).items():
        if quantiser.channels is not None:
            quantiser.high = 63 if HALF_RANGE_WEIGHTS[form] else 127
            quantiser.low = -quantiser.high
        elif not quantiser.signed:
            quantiser.high = 255 if form == "int8" else 127
        assert quantiser.high > 0, name


class _Fixed(nn.Module):
    """A quantizer for the exporter, which wants numbers and one of two intervals."""

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
    """A copy of a `quantised` encoder that the ONNX exporter turns into QuantizeLinear and DequantizeLinear.

    Weights are rounded once here, since a quantizer in ONNX knows no interval but its type's.
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
    """The weights of a `quantised` encoder for a plain `FrameEncoder`: before rounding, batch normalisations that add.

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
            yield from _adding(f"{parent}.{int(place) + 1}", value)


def _adding(name: str, bias: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A batch normalisation that adds `bias` and does nothing else."""
    ones = torch.ones_like(bias)
    yield f"{name}.weight", ones
    yield f"{name}.bias", bias
    yield f"{name}.running_mean", torch.zeros_like(bias)
    yield f"{name}.running_var", ones - 1e-5  # nn.BatchNorm2d adds its epsilon
    yield f"{name}.num_batches_tracked", torch.zeros((), dtype=torch.int64, device=bias.device)
