"""FP16 written into a graph as casts, for engines that take every precision from the graph (strong typing)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import GraphIndex, constant_value, drop_unused
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
"""Every other operator stays in FP32: sums of many terms, and what grows or shrinks beyond FP16's range."""
_TINY: Final = 2.0**-25  # half of FP16's smallest number: anything below it becomes zero
_LARGE: Final = float(np.finfo(np.float16).max)


def to_float16(model: ModelProto) -> ModelProto:
    """Compute in FP16 what bears it: matrix products, convolutions, and what is between them.

    FP32 stay: the input's normalisation (its variance and epsilon are below FP16's normal range), recurrent nodes and
    the cells of written-out ones (the state adds up over the steps), Softmax with what scales and masks its input,
    sums, every node between a dequantizer and a quantizer (the engine computes those in INT8), and every node with a
    constant that FP16 cannot hold. Inputs and outputs keep their types; casts stand where
    the types change.

    Args:
        model: float or Q/DQ; not changed.

    Raises:
        InputError: the types of the graph's tensors cannot be derived.
    """
    result = ModelProto()
    result.CopyFrom(model)
    types = _float_tensors(result)
    index = GraphIndex(result)
    kept = _range_nodes(result, index) | _int8_nodes(result, index)
    halves = [node for node in result.graph.node if _label(node) not in kept and _touches(node, types)]
    inside = {id(node) for node in halves}
    made = {name for node in halves for name in node.output if name in types}
    casts: dict[tuple[str, int], str] = {}
    body: list[NodeProto] = []

    def cast(name: str, to: int) -> str:
        if (name, to) not in casts:
            casts[name, to] = index.free_name(f"{name}_{'half' if to == TensorProto.FLOAT16 else 'float'}")
            body.append(helper.make_node("Cast", [name], [casts[name, to]], casts[name, to], to=to))
        return casts[name, to]

    outputs = set(index.outputs)
    renamed = {name: index.free_name(f"{name}_in_half") for name in sorted(made & outputs)}
    for node in result.graph.node:
        half = id(node) in inside
        for position, name in enumerate(node.input):
            if name not in types:
                continue
            if half and name not in made:
                node.input[position] = _half_constant(result, index, name, casts) or cast(name, TensorProto.FLOAT16)
            elif not half and name in made:
                node.input[position] = cast(renamed.get(name, name), TensorProto.FLOAT)
            elif half and name in renamed:
                node.input[position] = renamed[name]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        body.append(node)
        for old in (name for name, new in renamed.items() if new in node.output):
            body.append(helper.make_node("Cast", [renamed[old]], [old], f"{renamed[old]}_out", to=TensorProto.FLOAT))
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(body)
    drop_unused(result)
    return result


def float32_nodes(model: ModelProto) -> tuple[str, ...]:
    """Names of the nodes whose range wants FP32; for builders that take precisions a layer at a time.

    Nodes that an engine computes in INT8, and those that make no float numbers, are not among them.
    """
    index, types = GraphIndex(model), _float_tensors(model)
    wanted = _range_nodes(model, index) - _int8_nodes(model, index)
    return tuple(_label(node) for node in model.graph.node if _label(node) in wanted and _touches(node, types))


def _range_nodes(model: ModelProto, index: GraphIndex) -> set[str]:
    nodes = list(model.graph.node)
    kept = {_label(node) for node in nodes if node.op_type not in (*_PRODUCTS, *_SIMPLE, *_QDQ) or CELL in node.name}
    kept |= set(_normalisation(nodes, index))
    kept |= {_label(node) for node in nodes if node.op_type not in _PRODUCTS and not _holds_constants(node, index)}
    for node in nodes:
        if node.op_type in ("Softmax", "LogSoftmax"):
            kept |= {_label(each) for each in _behind(node, index)}
    return kept


def _int8_nodes(model: ModelProto, index: GraphIndex) -> set[str]:
    """Quantizers, and what stands between a dequantizer of an activation and a quantizer."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _QDQ:
            found.add(_label(node))
        if node.op_type == "QuantizeLinear":
            found |= {_label(each) for each in _behind(node, index)} | _product_before(node, index)
        sources = [index.producer(name) for name in node.input]
        if any(
            source is not None and source.op_type == "DequantizeLinear" and not _stores(source, index)
            for source in sources
        ):
            found.add(_label(node))
    return found


def _normalisation(nodes: Iterable[NodeProto], index: GraphIndex) -> list[str]:
    """Nodes that no product, convolution or recurrence stands before: what makes the input fit for the first."""
    first = [node for node in nodes if node.op_type in (*_PRODUCTS, *_RECURRENT)]
    after = {id(node) for node in index.descendants(first)}
    return [_label(node) for node in nodes if id(node) not in after]


def _behind(node: NodeProto, index: GraphIndex) -> list[NodeProto]:
    """The elementwise nodes that lead to a node's first input, up to the nearest product."""
    found: list[NodeProto] = []
    pending = [node.input[0]]
    while pending:
        source = index.producer(pending.pop())
        if source is None or source.op_type not in _SIMPLE or any(source is each for each in found):
            continue
        found.append(source)
        pending.extend(source.input)
    return found


def _product_before(node: NodeProto, index: GraphIndex) -> set[str]:
    """The convolution or product whose result a quantizer takes through elementwise nodes: it computes in INT8."""
    ends = [node, *_behind(node, index)]
    sources = [index.producer(name) for each in ends for name in each.input]
    products = [source for source in sources if source is not None and source.op_type in _PRODUCTS]
    return {_label(each) for each in products if any(_dequantized(name, index) for name in each.input)}


def _dequantized(name: str, index: GraphIndex) -> bool:
    source = index.producer(name)
    return source is not None and source.op_type == "DequantizeLinear"


def _stores(node: NodeProto, index: GraphIndex) -> bool:
    """A dequantizer of constants: weights."""
    return constant_value(index, node.input[0]) is not None


def _holds_constants(node: NodeProto, index: GraphIndex) -> bool:
    """Every float constant that the node reads is one that FP16 holds: not above its largest, nothing lost to zero."""
    for name in node.input:
        value = index.constant(name)
        if value is None or value.dtype != np.float32 or not value.size:
            continue
        size = np.abs(value)
        if size.max() > _LARGE or bool(np.any((size > 0) & (size < _TINY))):
            return False
        if value.size == 1 and 0 < float(size.max()) < float(np.finfo(np.float16).tiny):
            return False  # an epsilon
    return True


def _half_constant(model: ModelProto, index: GraphIndex, name: str, casts: dict[tuple[str, int], str]) -> str | None:
    """The FP16 twin of a float constant, so that no cast of it is left to run; None for what is computed."""
    value = index.constant(name)
    if value is None:
        return None
    if (name, TensorProto.FLOAT16) not in casts:
        casts[name, TensorProto.FLOAT16] = index.free_name(f"{name}_half")
        half = value.astype(np.float16)
        model.graph.initializer.append(numpy_helper.from_array(half, casts[name, TensorProto.FLOAT16]))
    return casts[name, TensorProto.FLOAT16]


def _float_tensors(model: ModelProto) -> Collection[str]:
    """Names of every float32 tensor of the graph."""
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"the types of the graph cannot be derived: {' '.join(str(error).split())}") from error
    floats = {tensor.name for tensor in inferred.initializer if tensor.data_type == TensorProto.FLOAT}
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    floats |= {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    typed = floats | {tensor.name for tensor in inferred.initializer} | {value.name for value in values}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in typed:
                raise InputError(f"the type of {name!r}, which {_label(node)} makes, cannot be derived")
    return floats


def _touches(node: NodeProto, types: Collection[str]) -> bool:
    return any(name in types for name in node.output)


def _label(node: NodeProto) -> str:
    return node.name or f"{node.op_type} -> {node.output[0]}"
