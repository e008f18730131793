"""What a graph holds and costs: inputs and outputs, opset, parameters, multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from fer_edge.core.bundle import GraphFile
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.graph.graph import GraphIndex, attribute, graph_opset, load_graph

__all__ = ["GraphInfo", "TensorInfo", "describe_graph", "graph_file", "graph_macs", "graph_parameters"]

_QUANTIZERS: Final = ("QuantizeLinear", "DequantizeLinear")
_COUNTED: Final = ("Conv", "Gemm", "MatMul", "LSTM")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One input or output: a number, a symbol such as ``"N"``, or None (unnamed) for each dimension."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, kw_only=True)
class GraphInfo:
    """A graph from outside."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int
    ir_version: int
    parameters: int


def describe_graph(model: ModelProto) -> GraphInfo:
    """Inputs, outputs, versions and parameter count."""
    index = GraphIndex(model)
    return GraphInfo(
        inputs=tuple(_tensor_info(value) for value in model.graph.input if value.name in index.inputs),
        outputs=tuple(_tensor_info(value) for value in model.graph.output),
        opset=graph_opset(model),
        ir_version=model.ir_version,
        parameters=graph_parameters(model),
    )


def graph_file(data: bytes, *, dimensions: Mapping[str, int] | None = None, name: str = "the graph") -> GraphFile:
    """A bundle's entry for a graph.

    Args:
        data: the ONNX file.
        dimensions: size of each symbolic dimension, for the count of multiply-accumulates (``{"N": 1}`` for one frame,
            ``{"B": 1, "T": 16}`` for one window); without it none is recorded.
        name: what messages call the graph.

    Raises:
        InputError: as `load_graph` and `graph_macs`.
    """
    model = load_graph(data, name=name)
    return GraphFile(
        sha256=sha256_bytes(data),
        size_bytes=len(data),
        opset=graph_opset(model),
        ir_version=model.ir_version,
        parameters=graph_parameters(model),
        macs=None if dimensions is None else graph_macs(model, dimensions),
    )


def graph_parameters(model: ModelProto) -> int:
    """Numbers in the graph's weights, float or quantized.

    Scalars, integer constants (shapes, indices), and the scales and zero points of int8 weights are not counted, so
    that a graph and its quantized twin have the same count.
    """
    index = GraphIndex(model)
    weights: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in ("Constant", "Identity"):
            continue
        names = node.input[:1] if node.op_type in _QUANTIZERS else node.input
        for name in names:
            value = index.constant(name)
            if value is not None and value.ndim and (np.issubdtype(value.dtype, np.floating) or value.itemsize == 1):
                weights[name] = int(value.size)
        if node.op_type == "Mul" and (scale := _int8_scale(node, index)):
            weights[scale] = 0
    return sum(weights.values())


def graph_macs(model: ModelProto, dimensions: Mapping[str, int]) -> int:
    """Multiply-accumulates of one run: convolutions, matrix products and LSTMs; nothing elementwise.

    Args:
        model: float or Q/DQ.
        dimensions: size of each symbolic dimension of the inputs, for example ``{"N": 1}``.

    Raises:
        InputError: a dimension of an input is not bound, or a shape cannot be derived; the message names it.
    """
    shapes = _bound_shapes(model, dimensions)
    total = 0
    for node in model.graph.node:
        if node.op_type in _COUNTED:
            total += _node_macs(node, shapes)
    return total


def _node_macs(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    def shape(name: str) -> Shape:
        if name not in shapes:
            raise InputError(f"{node.op_type} {node.name!r}: the shape of {name!r} cannot be derived")
        return shapes[name]

    first, second = shape(node.input[0]), shape(node.input[1])
    if node.op_type == "LSTM":
        steps, batch, _ = first
        recurrent = shape(node.input[2])
        return steps * batch * (math.prod(second) + math.prod(recurrent))
    if node.op_type == "Conv":
        return math.prod(shape(node.output[0])) * math.prod(second[1:])
    inner = first[0] if node.op_type == "Gemm" and attribute(node, "transA", 0) else first[-1]
    return math.prod(shape(node.output[0])) * inner


def _bound_shapes(model: ModelProto, dimensions: Mapping[str, int]) -> dict[str, Shape]:
    """Every shape that follows once the inputs' symbolic dimensions are numbers."""
    bound = ModelProto()
    bound.CopyFrom(model)
    del bound.graph.value_info[:]
    for value in (*bound.graph.input, *bound.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in dimensions:
                dimension.dim_value = dimensions[dimension.dim_param]
    inputs = set(GraphIndex(bound).inputs)
    for given, value in zip(model.graph.input, bound.graph.input, strict=True):
        if value.name in inputs and _static_shape(value) is None:
            raise InputError(
                f"input {value.name!r} has the shape {list(_tensor_info(given).shape)}; give a size for each symbol, "
                f"got {dict(dimensions)}"
            )
    inferred = onnx.shape_inference.infer_shapes(bound, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        static = _static_shape(value)
        if static is not None:
            shapes[value.name] = static
    return shapes


def _static_shape(value: ValueInfoProto) -> Shape | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dimension.HasField("dim_value") for dimension in kind.shape.dim):
        return None
    return tuple(int(dimension.dim_value) for dimension in kind.shape.dim)


def _tensor_info(value: ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    return TensorInfo(
        name=value.name,
        dtype=helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        shape=tuple(
            int(dimension.dim_value) if dimension.HasField("dim_value") else dimension.dim_param or None
            for dimension in kind.shape.dim
        ),
    )


def _int8_scale(node: NodeProto, index: GraphIndex) -> str | None:
    """The scale of weights stored as Cast(int8) x scale."""
    for name, other in zip(node.input, reversed(node.input), strict=True):
        source = index.producer(name)
        if source is not None and source.op_type == "Cast":
            stored = index.constant(source.input[0])
            if stored is not None and stored.itemsize == 1:
                return str(other)
    return None
