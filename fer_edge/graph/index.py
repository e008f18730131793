"""Who makes, who reads and what is constant in a graph: the look-ups every pass needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["GraphIndex", "attribute", "drop_unused"]


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

    def constant(self, tensor: str) -> NDArray[Any] | None:
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


def drop_unused(model: ModelProto) -> None:
    """Remove initialisers and recorded tensor types that nothing in the graph mentions any more."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    alive = used | {name for node in graph.node for name in node.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    known = [value for value in graph.value_info if value.name in alive]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    graph.value_info.extend(known)
