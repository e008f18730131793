"""Cost of a graph: parameters and multiply-accumulates, and its entry in a bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from onnx import NodeProto

from fer_edge.core.bundle import GraphFile
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.graph.graph import Graph, attribute

__all__ = ["graph_file", "graph_macs", "graph_parameters"]

_QUANTIZERS: Final = ("QuantizeLinear", "DequantizeLinear")
_COUNTED: Final = ("Conv", "Gemm", "MatMul", "LSTM")


def graph_file(data: bytes, *, dimensions: Mapping[str, int] | None = None, name: str = "the graph") -> GraphFile:
    """Describe a graph for a bundle's manifest.

    Args:
        data: the ONNX file.
        dimensions: size of each symbolic dimension, for the count of multiply-accumulates (``{"N": 1}`` for one frame,
            ``{"B": 1, "T": 16}`` for one window); None records no count.
        name: the graph's name in messages.

    Raises:
        InputError: as `Graph.read` and `graph_macs`.
    """
    graph = Graph.read(data, name=name)
    return GraphFile(
        sha256=sha256_bytes(data),
        size_bytes=len(data),
        opset=graph.opset,
        ir_version=graph.ir_version,
        parameters=graph_parameters(graph),
        macs=None if dimensions is None else graph_macs(graph, dimensions),
    )


def graph_parameters(graph: Graph) -> int:
    """Count the numbers in the graph's weights, float or quantized.

    Scalars, integer constants (shapes, indices), and the scales and zero points of int8 weights are not counted, so
    that a float graph and its quantized form have the same count.
    """
    weights: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in ("Constant", "Identity"):
            continue
        names = node.input[:1] if node.op_type in _QUANTIZERS else node.input
        for name in names:
            value = graph.constant(name)
            if value is not None and value.ndim and (np.issubdtype(value.dtype, np.floating) or value.itemsize == 1):
                weights[name] = int(value.size)
        if node.op_type == "Mul" and (scale := _int8_scale(node, graph)):
            weights[scale] = 0
    return sum(weights.values())


def graph_macs(graph: Graph, dimensions: Mapping[str, int]) -> int:
    """Count the multiply-accumulates of one run: convolutions, matrix products and LSTMs; nothing elementwise.

    Args:
        graph: float or Q/DQ.
        dimensions: size of each symbolic dimension of the inputs, for example ``{"N": 1}``.

    Raises:
        InputError: a dimension of an input has no size, or a shape cannot be inferred.
    """
    for tensor in graph.inputs.values():
        if any(not isinstance(size, int) and size not in dimensions for size in tensor.shape):
            raise InputError(
                f"dimensions: got {dict(dimensions)}, expected a size for each symbol of the input {tensor.name!r} "
                f"{list(tensor.shape)}"
            )
    shapes = {name: tensor.fixed_shape for name, tensor in graph.infer(sizes=dimensions).items()}
    return sum(_node_macs(node, shapes) for node in graph.nodes if node.op_type in _COUNTED)


def _node_macs(node: NodeProto, shapes: Mapping[str, tuple[int, ...] | None]) -> int:
    def shape(name: str) -> tuple[int, ...]:
        if (known := shapes.get(name)) is None:
            raise InputError(f"{node.op_type} {node.name!r}: got no shape of {name!r}, expected an inferable one")
        return known

    first, second = shape(node.input[0]), shape(node.input[1])
    if node.op_type == "LSTM":
        steps, batch, _ = first
        return steps * batch * (math.prod(second) + math.prod(shape(node.input[2])))
    if node.op_type == "Conv":
        return math.prod(shape(node.output[0])) * math.prod(second[1:])
    inner = first[0] if node.op_type == "Gemm" and attribute(node, "transA", 0) else first[-1]
    return math.prod(shape(node.output[0])) * inner


def _int8_scale(node: NodeProto, graph: Graph) -> str | None:
    """The scale of weights stored as Cast(int8) x scale."""
    for name, other in zip(node.input, reversed(node.input), strict=True):
        source = graph.producer(name)
        if source is not None and source.op_type == "Cast":
            stored = graph.constant(source.input[0])
            if stored is not None and stored.itemsize == 1:
                return str(other)
    return None
