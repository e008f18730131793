"""Who makes, who reads and what is constant in a graph: the look-ups every pass needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fer_edge.core.types import Array

__all__ = ["GraphIndex", "attribute", "constant_value", "drop_dead_nodes", "drop_unused", "is_zero"]


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
