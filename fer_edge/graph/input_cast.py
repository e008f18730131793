"""The uint8 input turned to float before anything else reads it."""

from __future__ import annotations

from typing import Final

from onnx import ModelProto, NodeProto, TensorProto, helper

from fer_edge.core.errors import InputError
from fer_edge.graph.index import GraphIndex, attribute

__all__ = ["cast_input_first"]

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
