"""Search for the first layer at which two ways of computing a graph differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Array, Progress
from fer_edge.export.job import Run

if TYPE_CHECKING:
    from onnx import NodeProto

    from fer_edge.graph.graph import Graph

__all__ = ["Divergence", "Opener", "first_divergence", "relative_spread"]

Opener: TypeAlias = Callable[[bytes], AbstractContextManager[Run]]
"""Opens an ONNX graph in one engine."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A tensor on which two ways of computing a graph disagree.

    Attributes:
        part: ``"encoder"`` or ``"head"``.
        node: the node that computes the tensor; its name, or the tensor's where it has none.
        operator: the node's kind.
        tensor: the tensor's name.
        spread: root mean square of the difference over the standard deviation of the expected values.
        limit: above which a tensor counts as diverged.
        first: this is the first tensor beyond the limit; otherwise none is, and this one differs most.
        where: index of the largest difference.
        expected: the value there.
        got: the other value there.
        tensors: number of tensors compared.
    """

    part: str
    node: str
    operator: str
    tensor: str
    spread: float
    limit: float
    first: bool
    where: tuple[int, ...]
    expected: float
    got: float
    tensors: int

    def __str__(self) -> str:
        which = "first diverges at" if self.first else "diverges nowhere by itself; the largest difference is at"
        return (
            f"the {self.part} {which} {self.operator} {self.node!r} (tensor {self.tensor!r}): at {list(self.where)} "
            f"expected {self.expected:.6g}, got {self.got:.6g}; spread of the difference {self.spread:.3g}, "
            f"limit {self.limit:g}"
        )


def relative_spread(expected: Array, got: Array) -> float:
    """Return the root mean square of the difference over the standard deviation of the expected values."""
    difference = np.asarray(got, np.float64) - expected
    return float(np.sqrt(np.mean(difference**2)) / (np.std(np.asarray(expected, np.float64)) + 1e-12))


def first_divergence(
    expected: tuple[bytes, Opener],
    got: tuple[bytes, Opener],
    feeds: Mapping[str, Array],
    *,
    part: str,
    limit: float,
    progress: Progress | None = None,
) -> Divergence | None:
    """Compare the float tensors that both graphs share by name, in the order of computation.

    One tensor at a time becomes an extra output, so that an engine still fuses everything else; its values before an
    exposed tensor may still differ from those when nothing is exposed.

    Args:
        expected: the trusted graph and its opener.
        got: the other graph, or the same one in another engine.
        feeds: the inputs.
        part: the graph's name, for the report.
        limit: spread above which a tensor counts as diverged.

    Returns:
        the first tensor beyond the limit, else the one that differs most; None where no tensor can be compared.
    """
    from fer_edge.graph.graph import Graph

    models = [Graph.read(graph, name=f"the {part}") for graph, _ in (expected, got)]
    makers = _float_tensors(models[0], feeds)
    shared = [name for name in makers if name in _float_tensors(models[1], feeds)]
    worst: Divergence | None = None
    for number, tensor in enumerate(shared):
        if progress is not None:
            progress(f"searching the {part} for the first diverging layer", number, len(shared))
        try:
            want = _value(models[0], tensor, expected[1], feeds)
            have = _value(models[1], tensor, got[1], feeds)
        except SessionError:  # an engine may refuse to expose a tensor that it fuses away
            continue
        if want.shape != have.shape or not want.size:
            continue
        spread = relative_spread(want, have)
        if worst is None or spread > worst.spread or not np.isfinite(spread):
            where = np.unravel_index(int(np.nanargmax(np.abs(have.astype(np.float64) - want))), want.shape)
            worst = Divergence(
                part=part,
                node=makers[tensor].name or tensor,
                operator=makers[tensor].op_type,
                tensor=tensor,
                spread=spread,
                limit=limit,
                first=not spread <= limit,
                where=tuple(int(index) for index in where),
                expected=float(want[where]),
                got=float(have[where]),
                tensors=len(shared),
            )
            if worst.first:
                return worst
    return worst


def _float_tensors(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, NodeProto]:
    """Map the float tensors that depend on the inputs to their nodes, in graph order."""
    from onnx import TensorProto

    live = {id(node) for node in graph.descendants(node for name in feeds for node in graph.consumers(name))}
    floats = {name for name, tensor in graph.infer().items() if tensor.elem_type == TensorProto.FLOAT}
    return {name: node for node in graph.nodes if id(node) in live for name in node.output if name in floats}


def _value(graph: Graph, tensor: str, opener: Opener, feeds: Mapping[str, Array]) -> Array:
    from onnx import TensorProto

    shown = graph.copy()
    shown.add_output(tensor, TensorProto.FLOAT)
    with opener(shown.to_model().SerializeToString()) as run:
        return np.asarray(run(feeds)[tensor])
