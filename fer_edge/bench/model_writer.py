"""Just enough of ONNX's protobuf to write a feed-forward graph: benchmarking must not need the `onnx` package.

Field numbers are those of onnx.proto (IR version 8). Fields are written in ascending order, so that the bytes equal
those of protobuf's own deterministic serialisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Float32

__all__ = ["Node", "TensorShape", "write_model"]

_FLOAT: Final = 1
_ATTRIBUTE_INT: Final = 2
_ATTRIBUTE_INTS: Final = 7


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator: attributes are integers or lists of integers."""

    operator: str
    inputs: Sequence[str]
    output: str
    attributes: Mapping[str, int | Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TensorShape:
    """A named float32 graph input or output; a string is a dynamic dimension."""

    name: str
    shape: Sequence[int | str]


def write_model(
    name: str,
    *,
    nodes: Sequence[Node],
    weights: Mapping[str, Float32],
    graph_input: TensorShape,
    graph_output: TensorShape,
    opset: int = 17,
    ir_version: int = 8,
) -> bytes:
    """Serialise a float32 graph as an ONNX ModelProto.

    Raises:
        InputError: a weight is not float32.
    """
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _text(2, name),
            *(_message(5, _tensor(key, values)) for key, values in weights.items()),
            _message(11, _value_info(graph_input)),
            _message(12, _value_info(graph_output)),
        ]
    )
    # An empty domain is ONNX's own operator set; the field is present, as the onnx package writes it.
    operator_set = _text(1, "") + _integer(2, opset)
    return _integer(1, ir_version) + _text(2, "fer-edge") + _message(7, graph) + _message(8, operator_set)


def _node(node: Node) -> bytes:
    attributes = (_message(5, _attribute(key, value)) for key, value in sorted(node.attributes.items()))
    return b"".join(
        [
            *(_text(1, name) for name in node.inputs),
            _text(2, node.output),
            _text(3, node.output),
            _text(4, node.operator),
            *attributes,
        ]
    )


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _integer(3, value) + _integer(20, _ATTRIBUTE_INT)
    return _text(1, name) + b"".join(_integer(8, entry) for entry in value) + _integer(20, _ATTRIBUTE_INTS)


def _tensor(name: str, values: Float32) -> bytes:
    if values.dtype != np.float32:
        raise InputError(f"weight {name!r} must be float32, got {values.dtype}")
    raw = np.ascontiguousarray(values).astype("<f4", copy=False).tobytes()
    dims = b"".join(_integer(1, size) for size in values.shape)
    return dims + _integer(2, _FLOAT) + _text(8, name) + _message(9, raw)


def _value_info(tensor: TensorShape) -> bytes:
    sizes = (_text(2, size) if isinstance(size, str) else _integer(1, size) for size in tensor.shape)
    shape = b"".join(_message(1, size) for size in sizes)
    tensor_type = _integer(1, _FLOAT) + _message(2, shape)
    return _text(1, tensor.name) + _message(2, _message(1, tensor_type))


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode())


def _message(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    if value < 0:
        raise InputError(f"only integers >= 0 are written, got {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
