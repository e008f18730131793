"""Statistics of the study: spreads over seeds, Holm's correction, rank tests over several systems."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from fer_edge.core.errors import require
from fer_edge.core.json import expect
from fer_edge.core.types import Int64

__all__ = [
    "PARTS",
    "FriedmanReport",
    "Spread",
    "friedman_over_parts",
    "holm",
    "nemenyi_critical_difference",
    "stratified_parts",
]

PARTS: Final = 10
"""Stratified parts of a split, the blocks of Friedman's test."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over the seeds: mean, sample standard deviation (None for one seed), and each value."""

    mean: float
    sd: float | None
    by_seed: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute the spread of at least one value.

        Raises:
            InputError: there is none.
        """
        expect(len(values) >= 1, "values", len(values), "at least one")
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(mean=statistics.fmean(values), sd=sd, by_seed=tuple(values))


@dataclass(frozen=True, kw_only=True)
class FriedmanReport:
    """Result of Friedman's rank test; `mean_ranks` has one rank per method, 1 is best."""

    statistic: float
    p: float
    mean_ranks: tuple[float, ...]


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Apply Holm's step-down correction; adjusted p-values in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(p.size, 0, -1)))
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return tuple(adjusted.tolist())


def stratified_parts(labels: ArrayLike, *, parts: int = PARTS) -> Int64:
    """Deal the rows of a split into parts, class by class, so that each class is spread to within one row.

    Args:
        labels: int (N,); the parts depend on nothing else.

    Returns:
        int64 (N,): the part of each row, 0..parts - 1.

    Raises:
        InputError: fewer rows than parts.
    """
    truth = np.asarray(labels)
    expect(2 <= parts <= truth.size, "parts", parts, f"2 to {truth.size}, the number of rows")
    dealt = np.empty(truth.size, dtype=np.int64)
    dealt[np.argsort(truth, kind="stable")] = np.arange(truth.size) % parts
    return dealt


def friedman_over_parts(scores: Mapping[str, ArrayLike], labels: ArrayLike, *, parts: int = PARTS) -> FriedmanReport:
    """Test methods x stratified parts of one split, seeds averaged; ranks in the order of `scores`.

    Args:
        scores: by method, bool or float (seeds, N), at least three methods.
        labels: int (N,), for the parts.
        parts: blocks of the test.

    Raises:
        InputError: fewer than three methods, or as `stratified_parts`.
        MissingPackageError: scipy is not installed.
    """
    expect(len(scores) >= 3, "scores", len(scores), "three methods or more")
    stats: Any = require("scipy.stats", needed_by="Friedman's test", extra="train")
    dealt = stratified_parts(labels, parts=parts)
    # Rounded, so that equal accuracies tie whatever the order of the sums.
    columns = [
        np.round(np.bincount(dealt, weights=np.asarray(given).mean(axis=0)) / np.bincount(dealt), 12)
        for given in scores.values()
    ]
    ranks = stats.rankdata(-np.stack(columns, axis=1), axis=1).mean(axis=0)
    if all(np.array_equal(column, columns[0]) for column in columns):
        statistic, p = 0.0, 1.0  # scipy divides by zero
    else:
        statistic, p = stats.friedmanchisquare(*columns)
    return FriedmanReport(statistic=float(statistic), p=float(p), mean_ranks=tuple(ranks.tolist()))


def nemenyi_critical_difference(methods: int, blocks: int, *, alpha: float = 0.05) -> float:
    """Return the difference of mean ranks above which methods differ (Nemenyi 1963; Demšar 2006, section 3.2.2).

    Args:
        methods: ranked in each block.
        blocks: over which ranks were averaged.
        alpha: level of the test over all pairs.

    Raises:
        InputError: fewer than two methods or blocks, or `alpha` is not between 0 and 1.
        MissingPackageError: scipy is not installed.
    """
    expect(methods >= 2 and blocks >= 2, "methods, blocks", (methods, blocks), "two or more of each")
    expect(0 < alpha < 1, "alpha", alpha, "between 0 and 1")
    stats: Any = require("scipy.stats", needed_by="the critical difference", extra="train")
    quantile = float(stats.studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * blocks))
