"""Pre-flight of one graph for one target: every rule of the table."""

from __future__ import annotations

from typing import Final

from fer_edge.core.errors import InputError
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.graph.graph import Graph
from fer_edge.graph.preflight.finding import Checked, Finding, Profile
from fer_edge.graph.preflight.rules import DLA_RULES, RULES

__all__ = ["CHECK_TARGETS", "check_graph"]

_DLA_FLAVOUR: Final = "10.3"  # the newest of the table with DLA
CHECK_TARGETS: Final = (*FLAVOURS, "dla")
"""Targets of `check_graph`: the rows of the TensorRT table, and ``"dla"`` (Orin's, under TensorRT 10.3)."""


def check_graph(
    graph: Graph,
    *,
    target: str,
    part: str = "",
    profile: Profile | None = None,
    compute_capabilities: tuple[int, ...] = (),
    on_dla: bool = False,
    max_opset: int | None = None,
) -> tuple[Finding, ...]:
    """Find everything that is wrong with a graph for a target.

    Args:
        graph: not changed.
        target: one of `CHECK_TARGETS`.
        part: the graph's name in findings.
        profile: the shapes that an engine would be built for.
        compute_capabilities: the GPUs that it would be built for, where that is done ahead of time.
        on_dla: layers are to run on a deep learning accelerator; ``target="dla"`` implies it.
        max_opset: newest opset that is wanted, where that is older than the flavour's limit.

    Raises:
        InputError: an unknown target.
    """
    if target not in CHECK_TARGETS:
        raise InputError(f"check target: got {target!r}, expected one of {', '.join(CHECK_TARGETS)}")
    checked = Checked(
        graph=graph,
        flavour=FLAVOURS[_DLA_FLAVOUR if target == "dla" else target],
        profile=profile,
        compute_capabilities=compute_capabilities,
        max_opset=max_opset,
    )
    rules = (*RULES, *(DLA_RULES if on_dla or target == "dla" else ()))
    return tuple(finding for rule in rules for finding in rule.findings(checked, target=target, part=part))
