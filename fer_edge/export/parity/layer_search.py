"""Where two ways of computing a graph part: the first tensor on which they disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Array
from fer_edge.export.backend import Run

if TYPE_CHECKING:
    from onnx import NodeProto

    from fer_edge.graph.graph import Graph

__all__ = ["Divergence", "Opener", "first_divergence", "spread_of_difference"]

Opener: TypeAlias = Callable[[bytes], AbstractContextManager[Run]]
"""Opens an ONNX graph in one engine."""


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A tensor that two ways of computing a graph do not agree on, the first one or the one that differs most.

    Attributes:
        part: ``"encoder"`` or ``"head"``.
        node: the node that makes the tensor; its name, or its tensor where it has none.
        operator: the node's kind.
        tensor: the tensor's name.
        spread: root mean square of the difference over the standard deviation of the expected values.
        limit: above which a tensor counts as diverged.
        first: every tensor before this one is within the limit; otherwise none is beyond it, and this one is the
            furthest off: the difference builds up.
        where: index of the largest difference.
        expected: the value there.
        got: the other value there.
        tensors: how many were compared.
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
        which = "first diverges at" if self.first else "diverges nowhere by itself; furthest off is"
        return (
            f"the {self.part} {which} {self.operator} {self.node!r} (tensor {self.tensor!r}): at {list(self.where)} "
            f"expected {self.expected:.6g}, got {self.got:.6g}; spread of the difference {self.spread:.3g}, "
            f"limit {self.limit:g}"
        )


def spread_of_difference(expected: Array, got: Array) -> float:
    """Root mean square of the difference over the standard deviation of what was expected."""
    difference = np.asarray(got, np.float64) - expected
    return float(np.sqrt(np.mean(difference**2)) / (np.std(np.asarray(expected, np.float64)) + 1e-12))


def first_divergence(
    expected: tuple[bytes, Opener],
    got: tuple[bytes, Opener],
    feeds: Mapping[str, Array],
    *,
    part: str,
    limit: float,
    progress: Callable[[int, int], None] | None = None,
) -> Divergence | None:
    """Compare the float tensors that both graphs have by name, in the order in which they are computed.

    One tensor at a time becomes a further output, so that an engine goes on fusing everything else; what it computes
    before an exposed tensor may still differ from what it computes when nothing is exposed.

    Args:
        expected: a graph, and what opens it: the way that is trusted.
        got: the other graph, or the same one in another engine.
        feeds: the inputs.
        part: what the graph is, for the report.
        limit: spread above which a tensor counts as diverged.
        progress: called with (tensors compared, tensors).

    Returns:
        the first tensor beyond the limit, else the one that is furthest off; None where no tensor can be compared.
    """
    from fer_edge.graph.graph import Graph

    models = [Graph.read(graph, name=f"the {part}") for graph, _ in (expected, got)]
    makers = _float_tensors(models[0], feeds)
    shared = [name for name in makers if name in _float_tensors(models[1], feeds)]
    worst: Divergence | None = None
    for number, tensor in enumerate(shared):
        try:
            want, have = (
                _value(model, tensor, opener, feeds)
                for model, opener in zip(models, (expected[1], got[1]), strict=True)
            )
        except SessionError:  # an engine may refuse to show a tensor that it has no place for
            continue
        finally:
            if progress is not None:
                progress(number + 1, len(shared))
        if want.shape != have.shape or not want.size:
            continue
        spread = spread_of_difference(want, have)
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
    """Float tensors that depend on the inputs -> the node that makes them, in graph order."""
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
