"""What a pre-flight rule looks at, and what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from fer_edge.core.tensorrt_flavours import TensorRtFlavour
from fer_edge.graph.graph import GraphIndex, attribute

__all__ = ["Checked", "Fault", "Finding", "Profile", "Severity", "all_nodes", "label"]

Severity = Literal["error", "warning"]
Profile = Mapping[str, Sequence[tuple[int, ...]]]
"""For each input by name: its smallest, tuned and largest shape."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of one graph for one target.

    Attributes:
        rule: the rule's name.
        severity: ``"error"``: the engine refuses the graph or computes something else; ``"warning"``: it builds, and
            something is worth knowing.
        target: the row of the table, ``"10.3"``, ``"rtx"`` or ``"dla"``.
        part: the graph.
        node: name of the node, input or output it is about.
        found: what was found there.
        cure: what to do about it.
    """

    rule: str
    severity: Severity
    target: str
    part: str
    node: str
    found: str
    cure: str

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a rule yields: a finding without what all of a graph's findings share."""

    node: str
    found: str
    cure: str
    severity: Severity = "error"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A graph under examination, and what it is examined for.

    Attributes:
        model: the graph.
        flavour: the table's row.
        profile: the shapes that an engine would be built for; None where none are given.
        compute_capabilities: the GPUs that it would be built for ahead of time.
        max_opset: newest opset that is wanted; None leaves the flavour's limit alone.
    """

    model: ModelProto
    flavour: TensorRtFlavour
    profile: Profile | None = None
    compute_capabilities: tuple[int, ...] = ()
    max_opset: int | None = None

    @cached_property
    def index(self) -> GraphIndex:
        """Who makes and who reads what."""
        return GraphIndex(self.model)

    @cached_property
    def types(self) -> dict[str, int]:
        """The element type of every tensor of the outer graph, as far as it can be derived."""
        bare = ModelProto()
        bare.CopyFrom(self.model)
        del bare.graph.value_info[:]
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
        known = {tensor.name: tensor.data_type for tensor in inferred.initializer}
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        return known | {value.name: value.type.tensor_type.elem_type for value in values}

    def type_name(self, tensor: str) -> str:
        """``"FLOAT"``, ``"UINT8"``, ...; ``"UNDEFINED"`` where it is not known."""
        return str(TensorProto.DataType.Name(self.types.get(tensor, TensorProto.UNDEFINED)))

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What the graph reads from outside."""
        return [value for value in self.model.graph.input if value.name in self.index.inputs]


def all_nodes(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Every node, those inside other nodes' subgraphs among them."""
    for node in nodes:
        yield node
        for name in ("body", "then_branch", "else_branch"):
            inner = attribute(node, name)
            if inner is not None:
                yield from all_nodes(inner.node)


def label(node: NodeProto) -> str:
    """A node's name, or what it is and makes where it has none."""
    return node.name or f"{node.op_type} -> {next(filter(None, node.output), '')}"
