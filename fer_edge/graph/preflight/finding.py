"""Findings of pre-flight, the form of its rules, and the graph that they check."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from onnx import NodeProto, TensorProto

from fer_edge.core.tensorrt_flavours import TensorRtFlavour
from fer_edge.graph.graph import Graph, TensorInfo, all_nodes, label

__all__ = ["Checked", "Finding", "Profile", "Rule", "Severity"]

Severity = Literal["error", "warning"]
Profile = Mapping[str, Sequence[tuple[int, ...]]]
"""For each input by name: its smallest, tuned and largest shape."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of one graph for one target.

    Attributes:
        rule: the rule's name.
        severity: ``"error"``: the engine refuses the graph or computes something else; ``"warning"``: it builds, with a
            side effect.
        target: the row of the table, ``"10.3"``, ``"rtx"`` or ``"dla"``.
        part: the graph.
        node: name of the node, input or output.
        found: the fault.
        cure: how to mend it.
    """

    rule: str
    severity: Severity
    target: str
    part: str
    node: str
    found: str
    cure: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A graph under check, and what it is checked for.

    Attributes:
        graph: the graph.
        flavour: the table's row.
        profile: the shapes that an engine would be built for; None where none are given.
        compute_capabilities: the GPUs that it would be built for ahead of time.
        max_opset: newest opset that is wanted; None leaves the flavour's limit.
    """

    graph: Graph
    flavour: TensorRtFlavour
    profile: Profile | None = None
    compute_capabilities: tuple[int, ...] = ()
    max_opset: int | None = None

    @cached_property
    def types(self) -> dict[str, TensorInfo]:
        """Type and shape of every tensor of the outer graph that can be inferred."""
        return self.graph.infer()

    def type_of(self, tensor: str) -> str:
        """``"FLOAT"``, ``"UINT8"``, ...; ``"UNDEFINED"`` where it is not known."""
        known = self.types.get(tensor)
        return str(TensorProto.DataType.Name(TensorProto.UNDEFINED if known is None else known.elem_type))


Found: TypeAlias = "str | tuple[str, str] | bool | None"
"""The fault, or the fault and its cure; something false where there is none."""


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        name: the rule; several rows may have one name.
        on: operators; or ``"graph"``, ``"input"`` or ``"border"`` (inputs and outputs).
        check: called with the node, tensor or graph, and what is checked.
        cure: how to mend the fault, where `check` does not say.
        severity: of its findings.
        inner: also nodes in the bodies of loops and branches.
        once: the first finding only.
    """

    name: str
    on: tuple[str, ...] | Literal["any", "graph", "input", "border"]
    check: Callable[[Any, Checked], Found]
    cure: str = ""
    severity: Severity = "error"
    inner: bool = True
    once: bool = False

    def findings(self, checked: Checked, *, target: str, part: str) -> Iterator[Finding]:
        """Apply the rule."""
        for name, item in self._items(checked):
            if not (found := self.check(item, checked)):
                continue
            text, cure = found if isinstance(found, tuple) else (str(found), self.cure)
            yield Finding(
                rule=self.name, severity=self.severity, target=target, part=part, node=name, found=text, cure=cure
            )
            if self.once:
                return

    def _items(self, checked: Checked) -> Iterator[tuple[str, NodeProto | TensorInfo | Graph]]:
        graph = checked.graph
        if self.on == "graph":
            yield "the graph", graph
        elif self.on in ("input", "border"):
            yield from graph.inputs.items()
            if self.on == "border":
                yield from graph.outputs.items()
        else:
            for node in all_nodes(graph.nodes) if self.inner else graph.nodes:
                if self.on == "any" or node.op_type in self.on:
                    yield label(node), node
