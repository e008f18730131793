"""ONNX bytes to a checked model and back, and an index of producers, consumers and constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.onnx_wire import graph_faults
from fer_edge.core.types import Array

__all__ = [
    "MAX_IR_VERSION",
    "MAX_OPSET",
    "GraphIndex",
    "attribute",
    "constant_value",
    "drop_dead_nodes",
    "drop_unused",
    "dump_graph",
    "graph_opset",
    "is_zero",
    "load_graph",
]

MAX_OPSET: Final = 17
MAX_IR_VERSION: Final = 8
"""Newest opset and IR that a bundle's graph may have: ONNX Runtime and TensorRT of JetPack 6 read them."""


def load_graph(data: bytes, *, name: str = "the graph") -> ModelProto:
    """Parse and check an ONNX file.

    Args:
        data: the whole file.
        name: what messages call it.

    Raises:
        InputError: truncated or foreign bytes, an invalid graph, weights in other files or that are not finite.
    """
    if faults := graph_faults(data):
        raise InputError(f"{name} cannot be used: {'; '.join(faults)}; export it again")
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{name} is not a valid ONNX graph: {str(error).strip()}") from error
    return model


def dump_graph(model: ModelProto, *, name: str = "the graph") -> bytes:
    """Serialise a model for a bundle; the same model gives the same bytes.

    Shapes of inner tensors, which every reader derives anew, are left out: a tenth of a small network's file.

    Raises:
        InputError: as `load_graph`, or an opset or IR newer than `MAX_OPSET`, `MAX_IR_VERSION`.
    """
    opset = graph_opset(model)
    if opset > MAX_OPSET or model.ir_version > MAX_IR_VERSION:
        raise InputError(
            f"{name} has opset {opset} and IR {model.ir_version}; expected at most opset {MAX_OPSET} and IR "
            f"{MAX_IR_VERSION}, the newest that JetPack 6 reads"
        )
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    data: bytes = bare.SerializeToString(deterministic=True)
    load_graph(data, name=name)
    return data


def graph_opset(model: ModelProto) -> int:
    """Version of the default operator set.

    Raises:
        InputError: the graph imports none.
    """
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise InputError("the graph imports no version of ONNX's default operator set")


_STORING: Final = ("Cast", "Mul", "DequantizeLinear", "Reshape")


class GraphIndex:
    """A snapshot of one model's wiring; build a new one after an edit."""

    def __init__(self, model: ModelProto) -> None:
        self.initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in self.initializers]
        self.outputs = [value.name for value in model.graph.output]
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)
        self._names = {*self.initializers, *self._producers, *self.inputs}

    def producer(self, tensor: str) -> NodeProto | None:
        """The node that makes `tensor`; None for inputs and initialisers."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> list[NodeProto]:
        """The nodes that read `tensor`."""
        return list(self._consumers.get(tensor, ()))

    def constant(self, tensor: str) -> Array | None:
        """Value of an initialiser or a Constant node (through Identity); None for anything computed."""
        if tensor in self.initializers:
            return np.asarray(numpy_helper.to_array(self.initializers[tensor]))
        node = self.producer(tensor)
        if node is None:
            return None
        if node.op_type == "Identity":
            return self.constant(node.input[0])
        value = attribute(node, "value") if node.op_type == "Constant" else None
        return np.asarray(numpy_helper.to_array(value)) if isinstance(value, TensorProto) else None

    def ancestors(self, tensors: Iterable[str]) -> list[NodeProto]:
        """Every node that `tensors` are computed from, each once."""
        found: dict[int, NodeProto] = {}
        pending = list(tensors)
        while pending:
            node = self.producer(pending.pop())
            if node is not None and id(node) not in found:
                found[id(node)] = node
                pending.extend(node.input)
        return list(found.values())

    def descendants(self, nodes: Iterable[NodeProto]) -> list[NodeProto]:
        """`nodes` and every node that is computed from them, each once."""
        found: dict[int, NodeProto] = {}
        pending = list(nodes)
        while pending:
            node = pending.pop()
            if id(node) not in found:
                found[id(node)] = node
                pending.extend(reader for name in node.output for reader in self.consumers(name))
        return list(found.values())

    def free_name(self, wanted: str) -> str:
        """`wanted`, or the first of `wanted_1`, `wanted_2`, ... that no tensor bears; taken from then on."""
        name, number = wanted, 0
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute, or `default`."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def constant_value(index: GraphIndex, tensor: str) -> Array | None:
    """Value of a constant, looked for through what stores weights as int8: Cast, Mul, DequantizeLinear, Reshape.

    None for anything that an input has a part in, or that another operator computes.
    """
    known = index.constant(tensor)
    node = index.producer(tensor)
    if known is not None or node is None or node.op_type not in _STORING:
        return known
    given = [constant_value(index, name) for name in node.input]
    if not given or any(value is None for value in given):
        return None
    first, *rest = (value for value in given if value is not None)
    if node.op_type == "Cast":
        return first.astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to")))
    if node.op_type == "Mul":
        return np.asarray(first * rest[0])
    if node.op_type == "Reshape":
        sizes = [first.shape[axis] if size == 0 else int(size) for axis, size in enumerate(rest[0])]
        return first.reshape(sizes)
    axis = attribute(node, "axis", 1)
    whole = first.astype(np.int32)
    if len(rest) > 1:
        whole = whole - _along(rest[1], first, axis).astype(np.int32)
    return np.asarray(whole.astype(np.float32) * _along(rest[0], first, axis))


def _along(value: Array, whole: Array, axis: int) -> Array:
    """`value`, one number a slice of `whole` along `axis`, shaped to broadcast against it."""
    if value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if at == axis % whole.ndim else 1 for at in range(whole.ndim)])


def is_zero(index: GraphIndex, tensor: str) -> bool:
    """Whether a tensor holds zeros whatever the inputs are: a constant, or a ConstantOfShape, of nothing else."""
    made = index.producer(tensor)
    if made is not None and made.op_type == "ConstantOfShape":
        filled = attribute(made, "value")
        return filled is None or not np.any(numpy_helper.to_array(filled))
    known = constant_value(index, tensor)
    return known is not None and not np.any(known)


def drop_dead_nodes(model: ModelProto) -> None:
    """Remove nodes whose outputs nothing reads, until none is left."""
    graph = model.graph
    read = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if any(name in read for name in node.output if name):
            kept.append(node)
            read.update(_all_inputs(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _all_inputs(node: NodeProto) -> set[str]:
    """What a node reads, its subgraphs' reading of outer tensors included."""
    names = set(node.input)
    for entry in node.attribute:
        for inner in entry.g.node:
            names |= _all_inputs(inner)
    return names


def drop_unused(model: ModelProto) -> None:
    """Remove initialisers and recorded tensor types that nothing in the graph mentions any more."""
    graph = model.graph
    used = {name for node in graph.node for name in _all_inputs(node)} | {value.name for value in graph.output}
    alive = used | {name for node in graph.node for name in node.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    known = [value for value in graph.value_info if value.name in alive]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    graph.value_info.extend(known)
