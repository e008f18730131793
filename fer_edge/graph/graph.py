"""One ONNX graph: read and checked once, edited in place with its index kept right, written once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from fer_edge.core.errors import InputError
from fer_edge.core.onnx_wire import graph_faults
from fer_edge.core.types import Array

__all__ = ["MAX_IR_VERSION", "MAX_OPSET", "Graph", "TensorInfo", "all_nodes", "attribute", "label"]

MAX_OPSET: Final = 17
MAX_IR_VERSION: Final = 8
"""Newest opset and IR that a bundle's graph may have: ONNX Runtime and TensorRT of JetPack 6 read them."""

_STORAGE: Final = ("Cast", "Mul", "DequantizeLinear", "Reshape")


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Type and shape of a tensor.

    Attributes:
        name: the tensor's name.
        elem_type: a `TensorProto.DataType`.
        shape: a number, a symbol such as ``"N"``, or None (unnamed) for each dimension.
    """

    name: str
    elem_type: int
    shape: tuple[int | str | None, ...]

    @property
    def dtype(self) -> str:
        """NumPy's name of the type, for example ``"uint8"``."""
        return str(helper.tensor_dtype_to_np_dtype(self.elem_type).name)

    @property
    def fixed_shape(self) -> tuple[int, ...] | None:
        """The shape where every dimension is a number; else None."""
        sizes = tuple(size for size in self.shape if isinstance(size, int))
        return sizes if len(sizes) == len(self.shape) else None


class Graph:
    """An ONNX graph that passes look up and edit in place.

    Lookups (`producer`, `consumers`, `constant`, ...) are right after every edit by `set_nodes`, `set_inputs`,
    `redirect`, `add_constant`, `prune` and `reset`. Recorded shapes of inner tensors are dropped: they are derived
    where they are needed (`infer`).

    Attributes:
        nodes: in topological order; change the list by `set_nodes`.
        initializers: constants by name.
    """

    nodes: list[NodeProto]
    initializers: dict[str, TensorProto]

    def __init__(self, model: ModelProto) -> None:
        """Copy a model."""
        self.reset(model)

    @classmethod
    def read(cls, data: bytes, *, name: str = "the graph") -> Graph:
        """Parse and check an ONNX file.

        Args:
            data: the whole file.
            name: the graph's name in messages.

        Raises:
            InputError: truncated or foreign bytes, an invalid graph, weights in other files or that are not finite.
        """
        _check(data, name)
        return cls(onnx.load_model_from_string(data))

    def write(self, *, name: str = "the graph") -> bytes:
        """Check and serialise for a bundle; the same graph gives the same bytes.

        Raises:
            InputError: as `read`, or an opset or IR newer than `MAX_OPSET`, `MAX_IR_VERSION`.
        """
        if self.opset > MAX_OPSET or self.ir_version > MAX_IR_VERSION:
            raise InputError(
                f"{name}: got opset {self.opset} and IR {self.ir_version}, expected at most opset {MAX_OPSET} and IR "
                f"{MAX_IR_VERSION}, the newest that JetPack 6 reads; export it again"
            )
        data: bytes = self.to_model().SerializeToString(deterministic=True)
        _check(data, name)
        return data

    def reset(self, model: ModelProto) -> None:
        """Replace everything by a copy of `model`, the result of an external tool."""
        self._header = ModelProto()
        self._header.CopyFrom(model)
        inner = self._header.graph
        self.nodes = list(inner.node)
        self.initializers = {tensor.name: tensor for tensor in inner.initializer}
        del inner.node[:], inner.initializer[:], inner.value_info[:]
        self._index()

    def to_model(self) -> ModelProto:
        """A copy as a ModelProto, for external tools."""
        model = ModelProto()
        model.CopyFrom(self._header)
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.initializers.values())
        return model

    def copy(self) -> Graph:
        """An independent copy."""
        return Graph(self.to_model())

    @property
    def opset(self) -> int:
        """Version of the default operator set.

        Raises:
            InputError: the graph imports none.
        """
        for entry in self._header.opset_import:
            if entry.domain in ("", "ai.onnx"):
                return int(entry.version)
        raise InputError("the graph: got no import of ONNX's default operator set, expected one; export it again")

    @property
    def opset_import(self) -> Sequence[Any]:
        """All imported operator sets."""
        return list(self._header.opset_import)

    @property
    def ir_version(self) -> int:
        """Version of ONNX's file format."""
        return int(self._header.ir_version)

    @property
    def made_by(self) -> tuple[str, str]:
        """Name and version of the program that made the graph."""
        return self._header.producer_name, self._header.producer_version

    @made_by.setter
    def made_by(self, value: tuple[str, str]) -> None:
        self._header.producer_name, self._header.producer_version = value

    @property
    def inputs(self) -> dict[str, TensorInfo]:
        """What is fed, by name; initialisers are not among them."""
        found = (_tensor_info(value) for value in self._header.graph.input)
        return {tensor.name: tensor for tensor in found if tensor.name not in self.initializers}

    @property
    def outputs(self) -> dict[str, TensorInfo]:
        """What is computed for the caller, by name."""
        return {value.name: _tensor_info(value) for value in self._header.graph.output}

    def add_output(self, name: str, elem_type: int) -> None:
        """Make a tensor of the graph an output too."""
        if name not in self.outputs:
            self._header.graph.output.append(helper.make_tensor_value_info(name, elem_type, None))

    # Lookups

    def producer(self, tensor: str) -> NodeProto | None:
        """The node that computes `tensor`; None for inputs and initialisers."""
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

    def stored_constant(self, tensor: str) -> Array | None:
        """Value of a constant, also one stored as int8 behind Cast, Mul, DequantizeLinear or Reshape; else None."""
        known, node = self.constant(tensor), self.producer(tensor)
        if known is not None or node is None or node.op_type not in _STORAGE:
            return known
        values = [self.stored_constant(name) for name in node.input]
        if not values or any(value is None for value in values):
            return None
        return _computed(node, [value for value in values if value is not None])

    def is_zero(self, tensor: str) -> bool:
        """Whether a tensor is zero for every input: a constant, or a ConstantOfShape, of zeros."""
        node = self.producer(tensor)
        if node is not None and node.op_type == "ConstantOfShape":
            filled = attribute(node, "value")
            return filled is None or not np.any(numpy_helper.to_array(filled))
        known = self.stored_constant(tensor)
        return known is not None and not np.any(known)

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

    def infer(self, *, strict: bool = False, sizes: Mapping[str, int] | None = None) -> dict[str, TensorInfo]:
        """Type and shape of every tensor that has them, with the symbolic dimensions in `sizes` fixed.

        Raises:
            InputError: `strict`, and a node that does not fit its inputs.
        """
        inferred = self._inferred(strict=strict, sizes=sizes or {}).graph
        found = {
            tensor.name: TensorInfo(name=tensor.name, elem_type=tensor.data_type, shape=tuple(tensor.dims))
            for tensor in inferred.initializer
        }
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            if value.type.tensor_type.HasField("shape"):
                found[value.name] = _tensor_info(value)
            else:  # an empty shape would be a scalar's
                elem_type = value.type.tensor_type.elem_type
                found[value.name] = TensorInfo(name=value.name, elem_type=elem_type, shape=(None,))
        return found

    # Edits

    def fix(self, sizes: Mapping[str, int]) -> None:
        """Fix symbolic dimensions of inputs and outputs.

        Raises:
            InputError: a node does not fit them.
        """
        self.reset(self._inferred(strict=True, sizes=sizes))

    def free_name(self, wanted: str) -> str:
        """Reserve `wanted`, or the first of `wanted_1`, `wanted_2`, ... that no tensor has."""
        name, number = wanted, 0
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def add_constant(self, wanted: str, value: Any) -> str:
        """Add an initialiser under a free name and return the name."""
        name = self.free_name(wanted)
        self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def set_nodes(self, nodes: Iterable[NodeProto]) -> None:
        """Replace all nodes, given in topological order."""
        self.nodes = list(nodes)
        self._index()

    def set_inputs(self, node: NodeProto, names: Iterable[str]) -> None:
        """Replace what a node reads."""
        for name in set(node.input):
            self._consumers[name] = [reader for reader in self._consumers[name] if reader is not node]
        node.input[:] = list(names)
        for name in dict.fromkeys(node.input):
            self._consumers[name].append(node)

    def redirect(self, old: str, new: str) -> None:
        """Let every node that reads `old` read `new`."""
        for node in self.consumers(old):
            self.set_inputs(node, [new if name == old else name for name in node.input])

    def prune(self) -> None:
        """Drop nodes whose outputs nothing reads, then initialisers that nothing reads."""
        read = set(self.outputs)
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in read for name in node.output if name):
                kept.append(node)
                read.update(_all_inputs(node))
        self.initializers = {name: tensor for name, tensor in self.initializers.items() if name in read}
        self.set_nodes(reversed(kept))

    def _index(self) -> None:
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._consumers[name].append(node)
        inputs = {value.name for value in self._header.graph.input}
        self._names = {*self.initializers, *self._producers, *inputs}

    def _inferred(self, *, strict: bool, sizes: Mapping[str, int]) -> ModelProto:
        model = self.to_model()
        for value in (*model.graph.input, *model.graph.output):
            for dimension in value.type.tensor_type.shape.dim:
                if dimension.dim_param in sizes:
                    dimension.dim_value = sizes[dimension.dim_param]
        try:
            return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            given = f" with {dict(sizes)}" if sizes else ""
            raise InputError(f"shape inference{given}: got {' '.join(str(error).split())}") from error


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute, or `default`."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def label(node: NodeProto) -> str:
    """A node's name; where it has none, its operator and first output."""
    return node.name or f"{node.op_type} -> {next(filter(None, node.output), '')}"


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Every node, also those in subgraphs of other nodes."""
    for node in nodes:
        yield node
        for entry in node.attribute:
            yield from all_nodes(entry.g.node)


def _check(data: bytes, name: str) -> None:
    if faults := graph_faults(data):
        raise InputError(f"{name} cannot be used: {'; '.join(faults)}; export it again")
    try:
        onnx.checker.check_model(data, full_check=True)
    except (DecodeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{name} is not a valid ONNX graph: {str(error).strip()}") from error


def _tensor_info(value: ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    shape = tuple(
        int(dimension.dim_value) if dimension.HasField("dim_value") else dimension.dim_param or None
        for dimension in kind.shape.dim
    )
    return TensorInfo(name=value.name, elem_type=kind.elem_type, shape=shape)


def _computed(node: NodeProto, values: Sequence[Array]) -> Array:
    """Result of a node that restores stored weights."""
    first, *rest = values
    if node.op_type == "Cast":
        return first.astype(helper.tensor_dtype_to_np_dtype(attribute(node, "to")))
    if node.op_type == "Mul":
        return np.asarray(first * rest[0])
    if node.op_type == "Reshape":
        return first.reshape([first.shape[axis] if size == 0 else int(size) for axis, size in enumerate(rest[0])])
    axis, whole = attribute(node, "axis", 1), first.astype(np.int32)
    if len(rest) > 1:
        whole = whole - _along(rest[1], first, axis).astype(np.int32)
    return np.asarray(whole.astype(np.float32) * _along(rest[0], first, axis))


def _along(value: Array, whole: Array, axis: int) -> Array:
    """`value`, one number a slice of `whole` along `axis`, shaped to broadcast against it."""
    if value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if at == axis % whole.ndim else 1 for at in range(whole.ndim)])


def _all_inputs(node: NodeProto) -> set[str]:
    """Tensors that a node reads, its subgraphs included."""
    return {name for each in all_nodes([node]) for name in each.input}
