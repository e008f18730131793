"""The reference CNN: its time turns milliseconds into a ratio, `x`, that can be compared between machines.

48x48x1 -> four times [3x3 convolution, padding 1, no bias; batch normalisation; ReLU] with 64, 128, 256, 256 channels,
2x2 max pooling after the first three -> global average pooling -> linear to 7. FP32; the engine folds the batch
normalisation. The weights are seeded and the bytes are the same on every machine, with or without the `onnx` package
(a Jetson has none): fields are written as protobuf's deterministic serialisation writes them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Float32

__all__ = ["REFERENCE_CHANNELS", "REFERENCE_SIZE", "reference_graph", "reference_input"]

REFERENCE_CHANNELS: Final = (64, 128, 256, 256)
REFERENCE_SIZE: Final = 48
_SEED: Final = 2013
_OPSET: Final = 17
_IR_VERSION: Final = 8


@functools.cache
def reference_graph() -> bytes:
    """Build the ONNX model (opset 17, IR 8): ``faces`` float32 (N, 1, 48, 48) -> ``logits`` float32 (N, 7)."""
    # RandomState's stream is frozen, and uniform draws are exact: the same bytes with every numpy.
    generator = np.random.RandomState(_SEED)
    nodes: list[bytes] = []
    weights: dict[str, Float32] = {}
    tensor, width = "faces", 1
    for layer, channels in enumerate(REFERENCE_CHANNELS, start=1):
        weights[f"conv{layer}.weight"] = _he_uniform(generator, (channels, width, 3, 3))
        for name, low, high in (("scale", 0.5, 1.5), ("bias", -0.1, 0.1), ("mean", -0.1, 0.1), ("variance", 0.5, 1.5)):
            weights[f"norm{layer}.{name}"] = generator.uniform(low, high, channels).astype(np.float32)
        statistics = [f"norm{layer}.{name}" for name in ("scale", "bias", "mean", "variance")]
        kernel = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
        nodes += [
            _node("Conv", [tensor, f"conv{layer}.weight"], f"conv{layer}", **kernel),
            _node("BatchNormalization", [f"conv{layer}", *statistics], f"norm{layer}"),
            _node("Relu", [f"norm{layer}"], f"relu{layer}"),
        ]
        tensor, width = f"relu{layer}", channels
        if layer < len(REFERENCE_CHANNELS):
            nodes.append(_node("MaxPool", [tensor], f"pool{layer}", kernel_shape=[2, 2], strides=[2, 2]))
            tensor = f"pool{layer}"
    weights["linear.weight"] = _he_uniform(generator, (len(EXPRESSIONS), width))
    weights["linear.bias"] = generator.uniform(-0.1, 0.1, len(EXPRESSIONS)).astype(np.float32)
    nodes += [
        _node("GlobalAveragePool", [tensor], "pooled"),
        _node("Flatten", ["pooled"], "flat"),
        _node("Gemm", ["flat", "linear.weight", "linear.bias"], "logits", transB=1),
    ]
    # Field numbers of onnx.proto, in ascending order: that is what makes the bytes deterministic.
    graph = b"".join(
        [
            *(_field(1, node) for node in nodes),
            _field(2, "reference-cnn"),
            *(_field(5, _tensor(name, values)) for name, values in weights.items()),
            _field(11, _value_info("faces", ["N", 1, REFERENCE_SIZE, REFERENCE_SIZE])),
            _field(12, _value_info("logits", ["N", len(EXPRESSIONS)])),
        ]
    )
    operator_set = _field(1, "") + _field(2, _OPSET)
    return _field(1, _IR_VERSION) + _field(2, "fer-edge") + _field(7, graph) + _field(8, operator_set)


def reference_input(*, batch: int = 1) -> Float32:
    """Draw a seeded input for the reference CNN, float32 (batch, 1, 48, 48) in [-1, 1)."""
    generator = np.random.RandomState(_SEED)
    return generator.uniform(-1, 1, (batch, 1, REFERENCE_SIZE, REFERENCE_SIZE)).astype(np.float32)


def _he_uniform(generator: np.random.RandomState, shape: tuple[int, ...]) -> Float32:
    """Draw with He's variance (He et al. 2015, arXiv 1502.01852): activations keep their scale, so no denormals."""
    bound = math.sqrt(6.0 / math.prod(shape[1:]))
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> bytes:
    named = [*(_field(1, name) for name in inputs), _field(2, output), _field(3, output), _field(4, operator)]
    for name, value in sorted(attributes.items()):
        if isinstance(value, int):
            entry = _field(3, value) + _field(20, 2)
        else:
            entry = b"".join(_field(8, number) for number in value) + _field(20, 7)
        named.append(_field(5, _field(1, name) + entry))
    return b"".join(named)


def _tensor(name: str, values: Float32) -> bytes:
    raw = np.ascontiguousarray(values).astype("<f4", copy=False).tobytes()
    return b"".join(_field(1, size) for size in values.shape) + _field(2, 1) + _field(8, name) + _field(9, raw)


def _value_info(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(2 if isinstance(size, str) else 1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
