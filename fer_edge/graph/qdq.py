"""Passes on Q/DQ graphs: signed quantizers, pooling before rounding, folded weight quantizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array
from fer_edge.graph.graph import GraphIndex, attribute, drop_unused

__all__ = ["fold_weight_quantizers", "pool_before_quantizing", "to_signed_int8", "unsigned_nodes"]

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


def pool_before_quantizing(model: ModelProto) -> ModelProto:
    """Convolution, rectifier, quantizer, pooling become convolution, pooling, rectifier, quantizer.

    For convolutions that were left float; behind a quantized one everything stays as it is. A rectifier and rounding
    keep the order of numbers, so the result is the same to the bit. ONNX Runtime pools 8-bit numbers in the order of a
    float convolution one by one, which took longer than any layer of a small encoder; and it would move the quantizer
    back in front of the pooling if they were neighbours, which is why the rectifier stands between them.

    Args:
        model: with Q/DQ pairs; not changed.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    moved: dict[int, Sequence[NodeProto]] = {}
    for node in result.graph.node:
        if node.op_type == "Relu" and (found := _way_to_pooling(node, index)) is not None:
            dequantizer, pool = found
            made, pooled, read = node.input[0], pool.output[0], dequantizer.output[0]
            between = index.free_name(f"{made}_pooled")
            pool.input[0], pool.output[0], node.input[0] = made, between, between
            for reader in index.consumers(pooled):
                reader.input[:] = [read if name == pooled else name for name in reader.input]
            moved |= {id(node): (pool, node), id(pool): ()}
    body = [each for node in result.graph.node for each in moved.get(id(node), (node,))]
    del result.graph.node[:]
    result.graph.node.extend(body)
    return result


def _way_to_pooling(rectifier: NodeProto, index: GraphIndex) -> tuple[NodeProto, NodeProto] | None:
    """Dequantizer and pooling behind a float convolution's rectifier, if nothing else reads on the way."""
    convolution = index.producer(rectifier.input[0])
    if convolution is None or convolution.op_type != "Conv" or len(index.consumers(rectifier.input[0])) != 1:
        return None
    source = index.producer(convolution.input[0])
    if source is not None and source.op_type == "DequantizeLinear":
        return None
    found: list[NodeProto] = []
    tensor = rectifier.output[0]
    for kind in ("QuantizeLinear", "DequantizeLinear", "MaxPool"):
        readers = index.consumers(tensor)
        if len(readers) != 1 or readers[0].op_type != kind or len(readers[0].output) != 1:
            return None
        tensor = readers[0].output[0]
        found.append(readers[0])
        if tensor in index.outputs:
            return None
    _, dequantizer, pool = found
    return dequantizer, pool


def fold_weight_quantizers(model: ModelProto) -> ModelProto:
    """Replace every QuantizeLinear of a constant by the 8-bit constant that it computes; its dequantizer stays.

    So the graph is as post-training quantization leaves it: a quarter of the size, and no engine computes the weights.

    Args:
        model: not changed.

    Raises:
        InputError: the scale or zero point of a constant's quantizer is computed.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    kept: list[NodeProto] = []
    for node in result.graph.node:
        value = index.constant(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if value is None:
            kept.append(node)
            continue
        result.graph.initializer.append(numpy_helper.from_array(_quantized(node, value, index), node.output[0]))
    del result.graph.node[:]
    result.graph.node.extend(kept)
    drop_unused(result)
    return result


def _quantized(node: NodeProto, value: Array, index: GraphIndex) -> Array:
    scale = index.constant(node.input[1])
    zero_point = index.constant(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
    if scale is None or zero_point is None:
        raise InputError(f"{node.name or node.output[0]}: its scale or zero point is computed, expected a constant")
    shape = [1] * value.ndim
    if scale.size > 1:
        shape[attribute(node, "axis", 1)] = -1
    limits = np.iinfo(zero_point.dtype)
    steps = np.rint(value / scale.reshape(shape)) + zero_point.astype(np.float32).reshape(shape)
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(zero_point.dtype))
