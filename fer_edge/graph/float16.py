"""FP16 as casts in the graph, for engines that take every precision from it (strong typing)."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import NodeProto, TensorProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph, label
from fer_edge.graph.lstm_forms import CELL

__all__ = ["float32_nodes", "to_float16"]

_PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_QDQ: Final = ("QuantizeLinear", "DequantizeLinear")
_SIMPLE: Final = (
    "Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Add", "Sub", "Mul", "Div", "Where", "Concat", "Split", "Slice",
    "Gather", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Identity", "Pad",
    "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization",
)  # fmt: skip
"""All other operators stay in FP32: sums of many terms, and functions that leave FP16's range."""
_TINY: Final = 2.0**-25  # half of FP16's smallest number: anything below it becomes zero
_LARGE: Final = float(np.finfo(np.float16).max)


def to_float16(graph: Graph) -> None:
    """Compute in FP16 what tolerates it: matrix products, convolutions, and the simple operators between them.

    FP32 stay: the input's normalisation (its variance and epsilon are below FP16's normal range), recurrent nodes and
    the cells of unrolled ones (the state accumulates over the steps), Softmax with the scale and mask of its input,
    sums, every node between a dequantizer and a quantizer (the engine computes those in INT8), and every node with a
    constant outside FP16's range. Inputs and outputs keep their types; casts connect the two precisions.

    Args:
        graph: float or Q/DQ; edited in place.

    Raises:
        InputError: the types of the graph's tensors cannot be inferred.
    """
    floats = _float_tensors(graph)
    kept = _range_nodes(graph) | _int8_nodes(graph)
    half = {id(node) for node in graph.nodes if label(node) not in kept and _makes(node, floats)}
    made = {name for node in graph.nodes if id(node) in half for name in node.output if name in floats}
    casts: dict[tuple[str, int], str] = {}
    body: list[NodeProto] = []

    def cast(name: str, to: int) -> str:
        if (name, to) not in casts:
            casts[name, to] = graph.free_name(f"{name}_{'half' if to == TensorProto.FLOAT16 else 'float'}")
            body.append(helper.make_node("Cast", [name], [casts[name, to]], casts[name, to], to=to))
        return casts[name, to]

    def constant(name: str) -> str | None:
        """The FP16 copy of a float constant, so that no cast of it runs; None for computed tensors."""
        value = graph.constant(name)
        if value is not None and (name, TensorProto.FLOAT16) not in casts:
            casts[name, TensorProto.FLOAT16] = graph.add_constant(f"{name}_half", value.astype(np.float16))
        return None if value is None else casts[name, TensorProto.FLOAT16]

    renamed = {name: graph.free_name(f"{name}_in_half") for name in sorted(made & set(graph.outputs))}
    for node in graph.nodes:
        for position, name in enumerate(node.input):
            if name not in floats:
                continue
            if id(node) in half:
                node.input[position] = (
                    renamed.get(name, name) if name in made else constant(name) or cast(name, TensorProto.FLOAT16)
                )
            elif name in made:
                node.input[position] = cast(renamed.get(name, name), TensorProto.FLOAT)
        node.output[:] = [renamed.get(name, name) for name in node.output]
        body.append(node)
        for old in (name for name, new in renamed.items() if new in node.output):
            body.append(helper.make_node("Cast", [renamed[old]], [old], f"{renamed[old]}_out", to=TensorProto.FLOAT))
    graph.set_nodes(body)
    graph.prune()


def float32_nodes(graph: Graph) -> tuple[str, ...]:
    """Name the nodes whose range needs FP32, for builders that take a precision for each layer.

    Nodes that an engine computes in INT8, and nodes without float outputs, are not among them.
    """
    floats = _float_tensors(graph)
    wanted = _range_nodes(graph) - _int8_nodes(graph)
    return tuple(label(node) for node in graph.nodes if label(node) in wanted and _makes(node, floats))


def _range_nodes(graph: Graph) -> set[str]:
    kept = {label(node) for node in graph.nodes if node.op_type not in (*_PRODUCTS, *_SIMPLE, *_QDQ)}
    kept |= {label(node) for node in graph.nodes if CELL in node.name}
    # the input's normalisation: everything that no product, convolution or recurrence comes before
    first = [node for node in graph.nodes if node.op_type in (*_PRODUCTS, *_RECURRENT)]
    after = {id(node) for node in graph.descendants(first)}
    kept |= {label(node) for node in graph.nodes if id(node) not in after}
    kept |= {label(node) for node in graph.nodes if node.op_type not in _PRODUCTS and not _fits_float16(node, graph)}
    for node in graph.nodes:
        if node.op_type in ("Softmax", "LogSoftmax"):
            kept |= {label(each) for each in _simple_before(node, graph)}
    return kept


def _int8_nodes(graph: Graph) -> set[str]:
    """Quantizers, and nodes between a dequantizer of an activation and a quantizer."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type in _QDQ:
            found.add(label(node))
        if node.op_type == "QuantizeLinear":
            before = _simple_before(node, graph)
            sources = [graph.producer(name) for each in (node, *before) for name in each.input]
            # a product that reads dequantized values and leads to a quantizer through simple operators
            products = [source for source in sources if source is not None and source.op_type in _PRODUCTS]
            found |= {label(each) for each in before}
            found |= {label(each) for each in products if any(_dequantizer(name, graph) for name in each.input)}
        dequantizers = [each for name in node.input if (each := _dequantizer(name, graph)) is not None]
        if any(graph.stored_constant(each.input[0]) is None for each in dequantizers):
            found.add(label(node))
    return found


def _simple_before(node: NodeProto, graph: Graph) -> list[NodeProto]:
    """The simple operators that lead to a node's first input, up to the nearest product."""
    found: list[NodeProto] = []
    pending = [node.input[0]]
    while pending:
        source = graph.producer(pending.pop())
        if source is not None and source.op_type in _SIMPLE and all(source is not each for each in found):
            found.append(source)
            pending.extend(source.input)
    return found


def _dequantizer(name: str, graph: Graph) -> NodeProto | None:
    source = graph.producer(name)
    return source if source is not None and source.op_type == "DequantizeLinear" else None


def _fits_float16(node: NodeProto, graph: Graph) -> bool:
    """Whether FP16 holds every float constant of a node: none above its largest, none lost to zero, no epsilon."""
    for name in node.input:
        value = graph.constant(name)
        if value is None or value.dtype != np.float32 or not value.size:
            continue
        size = np.abs(value)
        if size.max() > _LARGE or bool(np.any((size > 0) & (size < _TINY))):
            return False
        if value.size == 1 and 0 < float(size.max()) < float(np.finfo(np.float16).tiny):
            return False
    return True


def _float_tensors(graph: Graph) -> set[str]:
    """Names of all float32 tensors."""
    types = graph.infer(strict=True)
    for node in graph.nodes:
        for name in node.output:
            if name and name not in types:
                raise InputError(f"{label(node)}: got no type of its output {name!r}, expected an inferable one")
    return {name for name, tensor in types.items() if tensor.elem_type == TensorProto.FLOAT}


def _makes(node: NodeProto, tensors: set[str]) -> bool:
    return any(name in tensors for name in node.output)
