"""Rewrites that TensorRT needs: the uint8 input cast first, states and normalisation in explicit operators."""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import GraphIndex, attribute, constant_value, drop_unused

__all__ = ["cast_input_first", "spell_out"]

_SHAPE_ONLY: Final = ("Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Identity")


def cast_input_first(model: ModelProto, *, name: str = "frames") -> ModelProto:
    """Move the Cast of a uint8 input in front of the reshapes that stand before it.

    The values are the same. TensorRT wants it so: its only operators on uint8 are those that change the type.

    Args:
        model: not changed.
        name: the input.

    Raises:
        InputError: the input does not lead to one Cast to float, through nothing but reshapes.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    reshapes, cast = _way_to_cast(index, name)
    if not reshapes:
        return result
    for consumer in index.consumers(cast.output[0]):
        for position, tensor in enumerate(consumer.input):
            if tensor == cast.output[0]:
                consumer.input[position] = reshapes[-1].output[0]
    floats = index.free_name(f"{name}_float")
    reshapes[0].input[0] = floats
    retyped = {node.output[0] for node in reshapes}
    known = [value for value in result.graph.value_info if value.name not in retyped | {cast.output[0]}]
    first = helper.make_node("Cast", [name], [floats], floats, to=TensorProto.FLOAT)
    body = [first, *(node for node in result.graph.node if node is not cast)]
    del result.graph.value_info[:], result.graph.node[:]
    result.graph.value_info.extend(known)
    result.graph.node.extend(body)
    return result


def _way_to_cast(index: GraphIndex, name: str) -> tuple[list[NodeProto], NodeProto]:
    if name not in index.inputs:
        raise InputError(f"the graph has no input {name!r}, only {', '.join(map(repr, index.inputs))}")
    reshapes: list[NodeProto] = []
    tensor = name
    while True:
        readers = [node for node in index.consumers(tensor) if node.op_type != "Shape"]
        found = ", ".join(f"{node.op_type} {node.name!r}" for node in readers) or "nothing"
        if len(readers) != 1 or (readers[0].op_type not in (*_SHAPE_ONLY, "Cast")) or readers[0].input[0] != tensor:
            raise InputError(f"input {name!r}: expected a Cast to float behind at most reshapes, got {found}")
        if readers[0].op_type == "Cast":
            break
        reshapes.append(readers[0])
        tensor = readers[0].output[0]
    if attribute(readers[0], "to") != TensorProto.FLOAT:
        raise InputError(f"input {name!r}: expected a Cast to float, got one to another type: {found}")
    return reshapes, readers[0]


_AXES_AS_INPUT = 18  # the opset from which reductions take their axes as an input


def spell_out(model: ModelProto) -> ModelProto:
    """The same function with an LSTM's initial states of zeros, and instance normalisation in plain operators.

    TensorRT derives the states' shape from the input's where they are left out, and the 8.x of JetPack 5 has
    InstanceNormalization as a plugin only.

    Args:
        model: not changed. An instance normalisation that scales or shifts is left as it is.
    """
    result = ModelProto()
    result.CopyFrom(model)
    index = GraphIndex(result)
    body: list[NodeProto] = []
    for node in result.graph.node:
        if node.op_type == "LSTM":
            body += _zero_states(node, index, result)
        if node.op_type == "InstanceNormalization" and _plain(node, index):
            body += _normalisation(node, index, result)
        else:
            body.append(node)
    del result.graph.node[:]
    result.graph.node.extend(body)
    drop_unused(result)
    return result


def _constant(model: ModelProto, index: GraphIndex, wanted: str, value: object, dtype: type) -> str:
    name = index.free_name(wanted)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def _zero_states(lstm: NodeProto, index: GraphIndex, model: ModelProto) -> list[NodeProto]:
    inputs = [*lstm.input, *[""] * 7][: max(7, len(lstm.input))]
    if inputs[5] and inputs[6]:
        return []
    base = lstm.name or f"lstm_{lstm.output[0]}"
    directions = 2 if attribute(lstm, "direction", b"forward") == b"bidirectional" else 1
    shape, batch, sizes, zeros = (
        index.free_name(f"{base}/{part}") for part in ("input_shape", "batch", "state_shape", "zeros")
    )
    ends = [
        _constant(model, index, f"{base}/{part}", [size], np.int64)
        for part, size in (("directions", directions), ("hidden", attribute(lstm, "hidden_size")))
    ]
    place = _constant(model, index, f"{base}/batch_axis", [1], np.int64)
    lstm.input[:] = [*inputs[:5], inputs[5] or zeros, inputs[6] or zeros, *inputs[7:]]
    nothing = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    return [
        helper.make_node("Shape", [inputs[0]], [shape], shape),
        helper.make_node("Gather", [shape, place], [batch], batch, axis=0),
        helper.make_node("Concat", [ends[0], batch, ends[1]], [sizes], sizes, axis=0),
        helper.make_node("ConstantOfShape", [sizes], [zeros], zeros, value=nothing),
    ]


def _plain(node: NodeProto, index: GraphIndex) -> bool:
    scale, shift = (constant_value(index, name) for name in node.input[1:])
    return scale is not None and shift is not None and bool(np.all(scale == 1)) and not np.any(shift)


def _normalisation(node: NodeProto, index: GraphIndex, model: ModelProto) -> list[NodeProto]:
    """(N, C, H, W) less its mean over places, over its deviation."""
    base = node.name or f"normalisation_{node.output[0]}"
    opset = next(each.version for each in model.opset_import if not each.domain)
    epsilon = _constant(model, index, f"{base}/epsilon", attribute(node, "epsilon", 1e-5), np.float32)
    nodes: list[NodeProto] = []

    def add(kind: str, inputs: list[str], part: str) -> str:
        name = index.free_name(f"{base}/{part}")
        nodes.append(helper.make_node(kind, inputs, [name], name))
        return name

    def mean(of: str, part: str) -> str:
        if opset >= _AXES_AS_INPUT:
            return add("ReduceMean", [of, _constant(model, index, f"{base}/places", [2, 3], np.int64)], part)
        name = add("ReduceMean", [of], part)
        nodes[-1].attribute.append(helper.make_attribute("axes", [2, 3]))
        return name

    centred = add("Sub", [node.input[0], mean(node.input[0], "mean")], "centred")
    variance = add("Add", [mean(add("Mul", [centred, centred], "square"), "variance"), epsilon], "above_zero")
    add("Div", [centred, add("Sqrt", [variance], "deviation")], "quotient")
    nodes[-1].output[:] = node.output
    return nodes
