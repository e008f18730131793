"""What a pre-flight rule looks at, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from onnx import TensorProto

from fer_edge.core.tensorrt_flavours import TensorRtFlavour
from fer_edge.graph.graph import Graph

__all__ = ["Checked", "Fault", "Finding", "Profile", "Severity"]

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
        graph: the graph.
        flavour: the table's row.
        profile: the shapes that an engine would be built for; None where none are given.
        compute_capabilities: the GPUs that it would be built for ahead of time.
        max_opset: newest opset that is wanted; None leaves the flavour's limit alone.
    """

    graph: Graph
    flavour: TensorRtFlavour
    profile: Profile | None = None
    compute_capabilities: tuple[int, ...] = ()
    max_opset: int | None = None

    @cached_property
    def types(self) -> dict[str, int]:
        """The element type of every tensor of the outer graph, as far as it can be derived."""
        return {name: tensor.elem_type for name, tensor in self.graph.infer().items()}

    def type_name(self, tensor: str) -> str:
        """``"FLOAT"``, ``"UINT8"``, ...; ``"UNDEFINED"`` where it is not known."""
        return str(TensorProto.DataType.Name(self.types.get(tensor, TensorProto.UNDEFINED)))
