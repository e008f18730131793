"""Passes on Q/DQ graphs: signed quantizers, folded weight quantizers, pooling before rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from onnx import NodeProto, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array
from fer_edge.graph.graph import Graph, attribute, label

__all__ = ["fold_weight_quantizers", "pool_before_quantizing", "to_signed_int8", "unsigned_nodes"]

_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
_INTEGER: Final = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")


def to_signed_int8(graph: Graph) -> None:
    """Replace every uint8 quantizer of zero point 0 by an int8 one of the same range, as TensorRT requires.

    A uint8 quantizer of scale s covers 0 .. 255 s; int8 with zero point 0 covers it with the scale s * 255 / 127, in
    half as many steps: measure the accuracy again after this pass. Signed quantizers stay.

    Raises:
        InputError: a quantizer has a zero point other than 0, or no signed equivalent; the message names the nodes.
    """
    _require_signable(graph)
    scales: dict[str, str] = {}
    zero_points: dict[tuple[int, ...], str] = {}
    for node in [node for node in graph.nodes if _is_unsigned(node, graph)]:
        name = node.input[1]
        scale = _constant(graph, name, node)
        if name not in scales:
            wide = (scale.astype(np.float64) * (255 / 127)).astype(scale.dtype)
            scales[name] = graph.add_constant(f"{name}_signed", wide)
        if scale.shape not in zero_points:
            zero_points[scale.shape] = graph.add_constant("signed_zero_point", np.zeros(scale.shape, np.int8))
        graph.set_inputs(node, [node.input[0], scales[name], zero_points[scale.shape]])
    graph.prune()


def unsigned_nodes(graph: Graph) -> tuple[str, ...]:
    """Names of the Q/DQ nodes that are unsigned or have a zero point other than 0: none in a signed symmetric graph."""
    return tuple(
        label(node)
        for node in graph.nodes
        if node.op_type in _QDQ and (_is_unsigned(node, graph) or _has_offset(node, graph))
    )


def fold_weight_quantizers(graph: Graph) -> None:
    """Replace every QuantizeLinear of a constant by the 8-bit constant that it computes; its dequantizer stays.

    The result has the form of post-training quantization: a quarter of the size, and no engine quantizes the weights.

    Raises:
        InputError: the scale or zero point of a constant's quantizer is computed.
    """
    kept: list[NodeProto] = []
    for node in graph.nodes:
        value = graph.constant(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if value is None:
            kept.append(node)
        else:
            graph.initializers[node.output[0]] = numpy_helper.from_array(_quantized(node, value, graph), node.output[0])
    graph.set_nodes(kept)
    graph.prune()


def pool_before_quantizing(graph: Graph) -> None:
    """Reorder convolution, ReLU, Q/DQ, max pooling to convolution, pooling, ReLU, Q/DQ; the result is bit-identical.

    Only after convolutions that stay float. ReLU and rounding keep the order of numbers. ONNX Runtime pools 8-bit
    numbers of a float convolution one by one, slower than any layer of a small encoder; it would move a quantizer
    back in front of an adjacent pooling, so the ReLU stays between them.
    """
    order: dict[int, Sequence[NodeProto]] = {}
    for node in graph.nodes:
        if node.op_type == "Relu" and (found := _path_to_pooling(node, graph)) is not None:
            dequantizer, pool = found
            convolved = node.input[0]
            pooled = graph.free_name(f"{convolved}_pooled")
            graph.redirect(pool.output[0], dequantizer.output[0])
            graph.set_inputs(pool, [convolved])
            graph.set_inputs(node, [pooled])
            pool.output[0] = pooled
            order |= {id(node): (pool, node), id(pool): ()}
    graph.set_nodes(each for node in graph.nodes for each in order.get(id(node), (node,)))


def _path_to_pooling(relu: NodeProto, graph: Graph) -> tuple[NodeProto, NodeProto] | None:
    """Dequantizer and pooling after a float convolution's ReLU, if nothing else reads in between."""
    convolution = graph.producer(relu.input[0])
    if convolution is None or convolution.op_type != "Conv" or len(graph.consumers(relu.input[0])) != 1:
        return None
    source = graph.producer(convolution.input[0])
    if source is not None and source.op_type == "DequantizeLinear":
        return None
    found: list[NodeProto] = []
    tensor = relu.output[0]
    for kind in (*_QDQ, "MaxPool"):
        readers = graph.consumers(tensor)
        if len(readers) != 1 or readers[0].op_type != kind or len(readers[0].output) != 1:
            return None
        tensor = readers[0].output[0]
        found.append(readers[0])
        if tensor in graph.outputs:
            return None
    return found[1], found[2]


def _require_signable(graph: Graph) -> None:
    offset = [label(node) for node in graph.nodes if node.op_type in _QDQ and _has_offset(node, graph)]
    if offset:
        raise InputError(
            f"quantizers: got {len(offset)} with a zero point other than 0 ({_listed(offset)}), expected symmetric "
            'ones; quantize with preset = "performance"'
        )
    if integer := [label(node) for node in graph.nodes if node.op_type in _INTEGER]:
        raise InputError(f"graph: got integer operators ({_listed(integer)}), expected Q/DQ pairs")
    if lone := list(_lone_unsigned(graph)):
        raise InputError(
            f"uint8 tensors: got {_listed(lone)} outside a pair, expected QuantizeLinear -> DequantizeLinear"
        )


def _lone_unsigned(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if not _is_unsigned(node, graph):
            continue
        if node.op_type == "QuantizeLinear":
            readers = {reader.op_type for reader in graph.consumers(node.output[0])}
            paired = readers <= {"DequantizeLinear"} and node.output[0] not in graph.outputs
        else:
            source = graph.producer(node.input[0])
            paired = source is not None and source.op_type == "QuantizeLinear"
        if not paired:
            yield label(node)


def _is_unsigned(node: NodeProto, graph: Graph) -> bool:
    if node.op_type not in _QDQ:
        return False
    zero_point = _zero_point(node, graph)
    if zero_point is not None:
        return zero_point.dtype == np.uint8
    if node.op_type == "QuantizeLinear":
        return True  # the operator's default: uint8, zero point 0
    stored, source = graph.constant(node.input[0]), graph.producer(node.input[0])
    if stored is not None:
        return stored.dtype == np.uint8
    return source is not None and _is_unsigned(source, graph)


def _has_offset(node: NodeProto, graph: Graph) -> bool:
    zero_point = _zero_point(node, graph)
    return zero_point is not None and bool(np.any(zero_point))


def _zero_point(node: NodeProto, graph: Graph) -> Array | None:
    return _constant(graph, node.input[2], node) if len(node.input) > 2 and node.input[2] else None


def _constant(graph: Graph, tensor: str, node: NodeProto) -> Array:
    value = graph.constant(tensor)
    if value is None:
        raise InputError(f"{label(node)}: got a computed scale or zero point ({tensor!r}), expected a constant")
    return value


def _quantized(node: NodeProto, value: Array, graph: Graph) -> Array:
    scale = _constant(graph, node.input[1], node)
    zero_point = _zero_point(node, graph)
    zero_point = np.zeros((), np.uint8) if zero_point is None else zero_point
    shape = [1] * value.ndim
    if scale.size > 1:
        shape[attribute(node, "axis", 1)] = -1
    limits = np.iinfo(zero_point.dtype)
    steps = np.rint(value / scale.reshape(shape)) + zero_point.astype(np.float32).reshape(shape)
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(zero_point.dtype))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
