"""Quantizers of constants, computed once: what torch exports as float weight and quantizer becomes an int8 constant."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array
from fer_edge.graph.index import GraphIndex, attribute, drop_unused

__all__ = ["fold_weight_quantizers"]


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
