"""A minimal ONNX protobuf reader that finds faults which engines load without an error, without the `onnx` package.

Engines accept NaN weights (a ReLU may hide them from the outputs) and follow external-data paths out of the bundle.
Field numbers are those of `onnx.proto`, which protobuf's rules freeze.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np

__all__ = ["fields", "graph_faults"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT32, _FLOAT16, _FLOAT64, _BFLOAT16 = 1, 10, 11, 16
_RAW_TYPES: Final = {_FLOAT32: "<f4", _FLOAT16: "<f2", _FLOAT64: "<f8"}
_DEPTH_LIMIT: Final = 32

# Message -> {field number: nested message}, on the paths from a model to its tensors.
_NESTED: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor"},
}

Field = tuple[int, int, "int | memoryview"]


def graph_faults(data: bytes) -> tuple[str, ...]:
    """Find faults in an ONNX file's bytes: truncation, no model, NaN or infinite weights, weights in other files.

    Returns:
        One phrase per fault, each with the tensor's name; empty for a sound file.
    """
    faults: list[str] = []
    try:
        if not any(number == 7 for number, _, _ in fields(memoryview(data))):
            return ("it holds no ONNX graph",)
        _walk("model", memoryview(data), faults, 0)
    except ValueError as error:
        return (f"it is not a whole ONNX file ({error})",)
    return tuple(faults)


def _walk(message: str, view: memoryview, faults: list[str], depth: int) -> None:
    if depth > _DEPTH_LIMIT:
        raise ValueError("graphs nested too deep")
    if message == "tensor":
        _check_tensor(view, faults)
        return
    nested = _NESTED[message]
    for number, wire_type, value in fields(view):
        if number in nested and wire_type == _BYTES and isinstance(value, memoryview):
            _walk(nested[number], value, faults, depth + 1)


def _check_tensor(view: memoryview, faults: list[str]) -> None:
    data_type, name, finite = 0, "(unnamed)", True
    raw = memoryview(b"")
    for number, wire_type, value in fields(view):
        if isinstance(value, int):
            if number == 2:
                data_type = value
            elif number == 14 and value == 1:
                faults.append(f"the tensor {name!r} keeps its data in another file, expected inside the graph")
            elif number == 4 and wire_type == _FIXED32:
                finite &= bool(np.isfinite(np.frombuffer(struct.pack("<I", value), "<f4")).all())
        elif number == 8:
            name = bytes(value).decode("utf-8", "replace")
        elif number == 9:
            raw = value
        elif number in (4, 10):
            finite &= _all_finite(value, "<f4" if number == 4 else "<f8")
    if data_type in _RAW_TYPES:
        finite &= _all_finite(raw, _RAW_TYPES[data_type])
    elif data_type == _BFLOAT16:
        widened = np.frombuffer(_whole(raw, 2), "<u2").astype(np.uint32) << 16
        finite &= bool(np.isfinite(widened.view(np.float32)).all())
    if not finite:
        faults.append(f"the weight {name!r} holds NaN or infinity")


def _all_finite(raw: memoryview, dtype: str) -> bool:
    return bool(np.isfinite(np.frombuffer(_whole(raw, np.dtype(dtype).itemsize), dtype)).all())


def _whole(raw: memoryview, item_bytes: int) -> memoryview:
    if len(raw) % item_bytes:
        raise ValueError(f"a tensor of {len(raw)} bytes, expected a multiple of {item_bytes}")
    return raw


def fields(view: memoryview) -> Iterator[Field]:
    """Yield number, wire type and value of each field of a message."""
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"no field has the number 0 (byte {position})")
        value: int | memoryview
        if wire_type == _VARINT:
            value, position = _varint(view, position)
        elif wire_type in (_FIXED64, _FIXED32):
            width = 8 if wire_type == _FIXED64 else 4
            value, position = int.from_bytes(_slice(view, position, width), "little"), position + width
        elif wire_type == _BYTES:
            width, position = _varint(view, position)
            value, position = _slice(view, position, width), position + width
        else:
            raise ValueError(f"unknown wire type {wire_type} at byte {position}")
        yield number, wire_type, value


def _slice(view: memoryview, start: int, width: int) -> memoryview:
    if start + width > len(view):
        raise ValueError(f"it ends {start + width - len(view)} bytes too early")
    return view[start : start + width]


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise ValueError("it ends in the middle of a number")
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
