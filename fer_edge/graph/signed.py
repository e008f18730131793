"""Unsigned INT8 activations to signed ones, for engines that take only signed, symmetric INT8 (TensorRT)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.index import GraphIndex, drop_unused

__all__ = ["to_signed_int8", "unsigned_nodes"]

_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
_FUSED_INT8: Final = (
    "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear",
)  # fmt: skip


def to_signed_int8(model: ModelProto) -> ModelProto:
    """Rewrite every uint8 quantizer with zero point 0 as an int8 one that covers the same range.

    A uint8 quantizer of scale s covers 0 .. 255 s; int8 with zero point 0 covers the same with the scale
    s * 255 / 127, at half the steps. Accuracy is therefore measured again after this pass. Quantizers that are signed
    already, weights among them, stay as they are.

    Args:
        model: a Q/DQ graph; it is not changed.

    Raises:
        InputError: a quantizer has a zero point other than 0, or is of a form that has no signed twin. The message
            names the nodes.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    _refuse_what_has_no_signed_twin(result, index)
    unsigned = [node for node in result.graph.node if _is_unsigned(node, index)]
    scales: dict[str, str] = {}
    zero_points: dict[tuple[int, ...], str] = {}
    for node in unsigned:
        scale_name = node.input[1]
        scale = _constant(index, scale_name, node)
        if scale_name not in scales:
            scales[scale_name] = index.free_name(f"{scale_name}_signed")
            wide = (scale.astype(np.float64) * (255 / 127)).astype(scale.dtype)
            result.graph.initializer.append(numpy_helper.from_array(wide, scales[scale_name]))
        if scale.shape not in zero_points:
            zero_points[scale.shape] = index.free_name("signed_zero_point")
            zeros = np.zeros(scale.shape, np.int8)
            result.graph.initializer.append(numpy_helper.from_array(zeros, zero_points[scale.shape]))
        node.input[:] = [node.input[0], scales[scale_name], zero_points[scale.shape]]
    retyped = {node.output[0] for node in unsigned if node.op_type == "QuantizeLinear"}
    for value in result.graph.value_info:
        if value.name in retyped:
            value.type.tensor_type.elem_type = TensorProto.INT8
    drop_unused(result)
    return result


def unsigned_nodes(model: ModelProto) -> tuple[str, ...]:
    """Names of the Q/DQ nodes that are unsigned or have a zero point other than 0: none in a signed symmetric graph."""
    index = GraphIndex(model)
    return tuple(
        _label(node)
        for node in model.graph.node
        if node.op_type in _QDQ and (_is_unsigned(node, index) or _has_offset(node, index))
    )


def _refuse_what_has_no_signed_twin(model: ModelProto, index: GraphIndex) -> None:
    offset = [_label(node) for node in model.graph.node if node.op_type in _QDQ and _has_offset(node, index)]
    if offset:
        raise InputError(
            f"{len(offset)} quantizers have a zero point other than 0, so they have no symmetric signed form: "
            f'{_listed(offset)}; quantize with preset = "performance" (symmetric activations)'
        )
    fused = [_label(node) for node in model.graph.node if node.op_type in _FUSED_INT8]
    if fused:
        raise InputError(f"expected a Q/DQ graph, got integer operators: {_listed(fused)}")
    lone = list(_lone_unsigned(model, index))
    if lone:
        raise InputError(
            f"uint8 tensors outside a QuantizeLinear -> DequantizeLinear pair have no signed form: {_listed(lone)}"
        )


def _lone_unsigned(model: ModelProto, index: GraphIndex) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type not in _QDQ or not _is_unsigned(node, index):
            continue
        if node.op_type == "QuantizeLinear":
            readers = {reader.op_type for reader in index.consumers(node.output[0])}
            paired = readers <= {"DequantizeLinear"} and node.output[0] not in index.outputs
        else:
            source = index.producer(node.input[0])
            paired = source is not None and source.op_type == "QuantizeLinear"
        if not paired:
            yield _label(node)


def _is_unsigned(node: NodeProto, index: GraphIndex) -> bool:
    if node.op_type not in _QDQ:
        return False
    zero_point = _zero_point(node, index)
    if zero_point is not None:
        return zero_point.dtype == np.uint8
    if node.op_type == "QuantizeLinear":
        return True  # the operator's default: uint8, zero point 0
    stored = index.constant(node.input[0])
    if stored is not None:
        return stored.dtype == np.uint8
    source = index.producer(node.input[0])
    return source is not None and _is_unsigned(source, index)


def _has_offset(node: NodeProto, index: GraphIndex) -> bool:
    zero_point = _zero_point(node, index)
    return zero_point is not None and bool(np.any(zero_point))


def _zero_point(node: NodeProto, index: GraphIndex) -> np.ndarray | None:
    if len(node.input) < 3 or not node.input[2]:
        return None
    return _constant(index, node.input[2], node)


def _constant(index: GraphIndex, tensor: str, node: NodeProto) -> np.ndarray:
    value = index.constant(tensor)
    if value is None:
        raise InputError(f"{_label(node)}: its scale or zero point {tensor!r} is computed, expected a constant")
    return value


def _label(node: NodeProto) -> str:
    return node.name or f"{node.op_type} -> {node.output[0]}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
