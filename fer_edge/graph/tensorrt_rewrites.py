"""Rewrites for TensorRT: the uint8 input is cast first; LSTM states and normalisation become explicit."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import NodeProto, TensorProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.graph import Graph, attribute

__all__ = ["cast_input_first", "rewrite_for_tensorrt"]

_SHAPE_ONLY: Final = ("Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Identity")
_AXES_AS_INPUT: Final = 18  # the opset from which reductions take their axes as an input


def rewrite_for_tensorrt(graph: Graph) -> None:
    """Write in explicit operators what ONNX leaves to the engine; the function stays the same.

    The cast of `frames` comes first (`cast_input_first`). LSTMs get initial states of zeros: TensorRT would derive
    their shape from the input's. InstanceNormalization without scale and shift becomes elementwise operators: TensorRT
    8.x (JetPack 5) has it as a plugin only.

    Raises:
        InputError: as `cast_input_first`.
    """
    if "frames" in graph.inputs:
        cast_input_first(graph)
    body: list[NodeProto] = []
    for node in graph.nodes:
        if node.op_type == "LSTM":
            body += _zero_states(node, graph)
        body += _normalisation(node, graph) if _is_plain_normalisation(node, graph) else [node]
    graph.set_nodes(body)
    graph.prune()


def cast_input_first(graph: Graph, *, name: str = "frames") -> None:
    """Move the Cast of a uint8 input in front of the reshapes before it; the values stay the same.

    TensorRT's only operators on uint8 are those that change the type.

    Raises:
        InputError: the input does not lead to one Cast to float through reshapes alone.
    """
    reshapes, cast = _path_to_cast(graph, name)
    if not reshapes:
        return
    graph.redirect(cast.output[0], reshapes[-1].output[0])
    floats = graph.free_name(f"{name}_float")
    graph.set_inputs(reshapes[0], [floats, *reshapes[0].input[1:]])
    first = helper.make_node("Cast", [name], [floats], floats, to=TensorProto.FLOAT)
    graph.set_nodes([first, *(node for node in graph.nodes if node is not cast)])


def _path_to_cast(graph: Graph, name: str) -> tuple[list[NodeProto], NodeProto]:
    if name not in graph.inputs:
        raise InputError(f"input: got {name!r}, expected one of {', '.join(map(repr, graph.inputs))}")
    reshapes: list[NodeProto] = []
    tensor = name
    while True:
        readers = [node for node in graph.consumers(tensor) if node.op_type != "Shape"]
        found = ", ".join(f"{node.op_type} {node.name!r}" for node in readers) or "nothing"
        if len(readers) != 1 or readers[0].op_type not in (*_SHAPE_ONLY, "Cast") or readers[0].input[0] != tensor:
            raise InputError(f"input {name!r}: got {found}, expected a Cast to float after reshapes alone")
        if readers[0].op_type == "Cast":
            break
        reshapes.append(readers[0])
        tensor = readers[0].output[0]
    if attribute(readers[0], "to") != TensorProto.FLOAT:
        raise InputError(f"input {name!r}: got a Cast to another type ({found}), expected a Cast to float")
    return reshapes, readers[0]


def _zero_states(lstm: NodeProto, graph: Graph) -> list[NodeProto]:
    """Give an LSTM missing initial states; returns the nodes that make the zeros."""
    inputs = [*lstm.input, *[""] * 7][: max(7, len(lstm.input))]
    if inputs[5] and inputs[6]:
        return []
    base = lstm.name or f"lstm_{lstm.output[0]}"
    directions = 2 if attribute(lstm, "direction", b"forward") == b"bidirectional" else 1
    shape, batch, sizes, zeros = (
        graph.free_name(f"{base}/{part}") for part in ("input_shape", "batch", "state_shape", "zeros")
    )
    first, last, axis = (
        graph.add_constant(f"{base}/{part}", np.array([size], np.int64))
        for part, size in (("directions", directions), ("hidden", attribute(lstm, "hidden_size")), ("batch_axis", 1))
    )
    lstm.input[:] = [*inputs[:5], inputs[5] or zeros, inputs[6] or zeros, *inputs[7:]]
    return [
        helper.make_node("Shape", [inputs[0]], [shape], shape),
        helper.make_node("Gather", [shape, axis], [batch], batch, axis=0),
        helper.make_node("Concat", [first, batch, last], [sizes], sizes, axis=0),
        helper.make_node(
            "ConstantOfShape", [sizes], [zeros], zeros, value=helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
        ),
    ]


def _is_plain_normalisation(node: NodeProto, graph: Graph) -> bool:
    if node.op_type != "InstanceNormalization":
        return False
    scale, shift = (graph.stored_constant(name) for name in node.input[1:])
    return scale is not None and shift is not None and bool(np.all(scale == 1)) and not np.any(shift)


def _normalisation(node: NodeProto, graph: Graph) -> list[NodeProto]:
    """(N, C, H, W) minus its mean over height and width, divided by the standard deviation."""
    base = node.name or f"normalisation_{node.output[0]}"
    epsilon = graph.add_constant(f"{base}/epsilon", np.float32(attribute(node, "epsilon", 1e-5)))
    nodes: list[NodeProto] = []

    def add(kind: str, inputs: list[str], part: str, **attributes: Any) -> str:
        name = graph.free_name(f"{base}/{part}")
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def mean(of: str, part: str) -> str:
        if graph.opset >= _AXES_AS_INPUT:
            return add("ReduceMean", [of, graph.add_constant(f"{base}/places", np.array([2, 3], np.int64))], part)
        return add("ReduceMean", [of], part, axes=[2, 3])

    centred = add("Sub", [node.input[0], mean(node.input[0], "mean")], "centred")
    variance = add("Add", [mean(add("Mul", [centred, centred], "square"), "variance"), epsilon], "above_zero")
    add("Div", [centred, add("Sqrt", [variance], "deviation")], "quotient")
    nodes[-1].output[:] = node.output
    return nodes
