"""Comparison of the outputs of two ways of computing the same graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fer_edge.core.errors import GateError
from fer_edge.core.types import Array

__all__ = ["Parity", "compare_outputs", "require_parity"]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Differences of outputs over several comparisons, before temperature.

    Attributes:
        max_abs_diff: largest absolute difference of any output.
        max_relative_diff: the largest difference over the size of its output: the largest number there, or 1 if that is
            smaller.
        mean_abs_diff: mean absolute difference over all outputs.
        label_agreement: share of rows with the same highest logit or probability; None where there are neither.
        shapes: the input shapes compared.
    """

    max_abs_diff: float
    max_relative_diff: float
    mean_abs_diff: float
    label_agreement: float | None
    shapes: tuple[tuple[int, ...], ...]


def compare_outputs(
    pairs: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]], shapes: Sequence[tuple[int, ...]]
) -> Parity:
    """Compare named outputs, pair by pair.

    Args:
        pairs: (expected, got), each output float of equal shape.
        shapes: the input shape behind each pair.

    Raises:
        GateError: an output is missing, or of another shape, or not finite.
    """
    differences, agreements = [], []
    sizes, largest = dict[str, float](), dict[str, float]()
    for (expected, got), shape in zip(pairs, shapes, strict=True):
        for name, value in expected.items():
            other = got.get(name)
            if other is None or other.shape != value.shape:
                found = "nothing" if other is None else f"shape {other.shape}"
                raise GateError(f"output {name!r} at input {shape}: expected shape {value.shape}, got {found}")
            if not (np.isfinite(value).all() and np.isfinite(other).all()):
                raise GateError(f"output {name!r} at input {shape} holds NaN or infinity")
            differences.append(np.abs(value.astype(np.float64) - other).ravel())
            sizes[name] = max(sizes.get(name, 1.0), float(np.abs(value).max(initial=0)))
            largest[name] = max(largest.get(name, 0.0), float(differences[-1].max(initial=0)))
            if name in ("logits", "probabilities"):
                agreements.append(value.argmax(axis=1) == other.argmax(axis=1))
    every = np.concatenate(differences)
    return Parity(
        max_abs_diff=float(every.max()),
        max_relative_diff=max(largest[name] / sizes[name] for name in sizes),
        mean_abs_diff=float(every.mean()),
        label_agreement=float(np.concatenate(agreements).mean()) if agreements else None,
        shapes=tuple(shapes),
    )


def require_parity(parity: Parity, *, tolerance: float, what: str) -> None:
    """Refuse a difference above `tolerance`, relative to the size of its output: logits have no bound.

    Raises:
        GateError: with the difference.
    """
    if not parity.max_relative_diff <= tolerance:
        raise GateError(
            f"{what}: outputs differ by up to {parity.max_abs_diff:.3g}, {parity.max_relative_diff:.3g} of their size, "
            f"expected at most the tolerance {tolerance:g} "
            f"(compared at input shapes {', '.join(map(str, parity.shapes))}); nothing was written"
        )
