"""Which of several systems is better on the same images, and how sure that is: paired bootstrap and rank tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer_edge.core.errors import InputError, require
from fer_edge.core.json import expect
from fer_edge.core.metrics import FriedmanReport, friedman_test, holm
from fer_edge.core.types import Int64

__all__ = [
    "PARTS",
    "BootstrapReport",
    "PairComparison",
    "Spread",
    "compare_pairs",
    "friedman_over_parts",
    "nemenyi_critical_difference",
    "paired_bootstrap",
    "rank_groups",
    "stratified_parts",
]

PARTS: Final = 10
"""Stratified parts of a split that Friedman's test takes as blocks."""

# Resampled counts held at once: 32 MB.
_HELD: Final = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One figure over the seeds: the mean, the sample's standard deviation (None for one seed), and each value."""

    mean: float
    sd: float | None
    by_seed: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values.

        Raises:
            InputError: there is none.
        """
        expect(len(values) >= 1, "values", len(values), "at least one")
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(mean=statistics.fmean(values), sd=sd, by_seed=tuple(values))


@dataclass(frozen=True, kw_only=True)
class BootstrapReport:
    """The difference of two systems' mean scores on the same rows: other minus reference.

    Attributes:
        n: rows.
        difference: of the means over rows and seeds; for right and wrong, of the accuracies.
        low: lower end of the percentile interval.
        high: upper end.
        level: the share of resamples inside, 0.95 for a 95 % interval.
        p: two-sided: twice the smaller share of resamples on one side of 0, so that p < 1 - level where the interval
            leaves 0 out; never below 2 / (resamples + 1).
        resamples: how many.
        by_seed: the difference seed by seed, in the order given; empty where the sides have unequal seeds.
    """

    n: int
    difference: float
    low: float
    high: float
    level: float
    p: float
    resamples: int
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """One system against another, with the p of all pairs compared corrected by Holm."""

    system: str
    against: str
    report: BootstrapReport
    p_holm: float


def paired_bootstrap(
    reference: ArrayLike, other: ArrayLike, *, level: float = 0.95, resamples: int = 20_000, seed: int = 0
) -> BootstrapReport:
    """How much better is `other` than `reference` on the same rows? Rows are resampled (Efron, Tibshirani 1993).

    Seeds are averaged row by row first, so the interval speaks of other images for these trained networks; how much
    networks differ by their seed is told by `by_seed`. Rows must be independent: one score a clip, not one a frame.

    Args:
        reference: bool or float (N,) or (seeds, N): the score of each row, right or wrong for accuracies.
        other: the same for the other system; its number of seeds may be another.
        level: of the interval.
        resamples: how many.
        seed: of the resampling; the same seed gives the same report.

    Raises:
        InputError: shapes differ in their rows, a score is not finite, or a number is out of range.
    """
    expect(0.5 <= level < 1, "level", level, "0.5 or more, below 1")
    expect(resamples >= 100, "resamples", resamples, "at least 100")
    first, second = _scores(reference, "reference"), _scores(other, "other")
    rows = first.shape[1]
    if second.shape[1] != rows:
        raise InputError(f"both sides must have the same rows, got {rows} and {second.shape[1]}")
    change = second.mean(axis=0) - first.mean(axis=0)
    means = _resampled_means(change, resamples=resamples, seed=seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # A mean of equal numbers may miss 0 by an ulp.
    tail = min(np.count_nonzero(means <= 1e-12), np.count_nonzero(means >= -1e-12))
    paired = first.shape == second.shape
    by_seed = (second.mean(axis=1) - first.mean(axis=1)).tolist() if paired else ()
    return BootstrapReport(
        n=rows,
        difference=float(change.mean()),
        low=float(low),
        high=float(high),
        level=level,
        p=min(1.0, 2 * (tail + 1) / (resamples + 1)),
        resamples=resamples,
        by_seed=tuple(by_seed),
    )


def compare_pairs(
    scores: Mapping[str, ArrayLike],
    pairs: Sequence[tuple[str, str]],
    *,
    level: float = 0.95,
    resamples: int = 20_000,
    seed: int = 0,
) -> tuple[PairComparison, ...]:
    """`paired_bootstrap` of every pair, with Holm's correction over the pairs.

    Args:
        scores: by system, bool or float (N,) or (seeds, N), the same rows for all.
        pairs: (system, against); differences are system minus against.
        level: of each interval (the intervals are not corrected).
        resamples: of each pair.
        seed: of the resampling.

    Raises:
        InputError: a pair names a system without scores, or as `paired_bootstrap`.
    """
    for name in {name for pair in pairs for name in pair}:
        expect(name in scores, "pairs", name, "one of " + ", ".join(scores))
    reports = [
        paired_bootstrap(scores[against], scores[system], level=level, resamples=resamples, seed=seed)
        for system, against in pairs
    ]
    corrected = holm([report.p for report in reports])
    return tuple(
        PairComparison(system=system, against=against, report=report, p_holm=p)
        for (system, against), report, p in zip(pairs, reports, corrected, strict=True)
    )


def stratified_parts(labels: ArrayLike, *, parts: int = PARTS) -> Int64:
    """Deal the rows of a split out into parts: by class, then by row number, one part after the other.

    It depends on nothing but the labels, so it is the same for every method. Each class, and the whole, is spread over
    the parts to within one row.

    Args:
        labels: int (N,).
        parts: how many.

    Returns:
        int64 (N,): the part of each row, 0..parts - 1.

    Raises:
        InputError: labels of another shape or type, or fewer rows than parts.
    """
    truth = np.asarray(labels)
    if truth.ndim != 1 or not np.issubdtype(truth.dtype, np.integer):
        raise InputError(f"labels must be integers (N,), got {truth.dtype} {truth.shape}")
    expect(2 <= parts <= truth.size, "parts", parts, f"2 to {truth.size}, the number of rows")
    dealt = np.empty(truth.size, dtype=np.int64)
    dealt[np.argsort(truth, kind="stable")] = np.arange(truth.size) % parts
    return dealt


def friedman_over_parts(scores: Mapping[str, ArrayLike], labels: ArrayLike, *, parts: int = PARTS) -> FriedmanReport:
    """Friedman's test over methods x stratified parts of one split, seeds averaged; ranks in the order of `scores`.

    Args:
        scores: by method, bool or float (N,) or (seeds, N).
        labels: int (N,), for the parts.
        parts: blocks of the test.

    Raises:
        InputError: fewer than two methods, rows that do not fit the labels, or as `stratified_parts`.
    """
    expect(len(scores) >= 2, "scores", len(scores), "two methods or more")
    dealt = stratified_parts(labels, parts=parts)
    columns = []
    for name, given in scores.items():
        mean = _scores(given, name).mean(axis=0)
        if mean.shape != dealt.shape:
            raise InputError(f"{name}: got {mean.size} rows, expected one for each of {dealt.size} labels")
        # Rounded, so that equal accuracies tie whatever order their floats were summed in.
        columns.append(np.round(np.bincount(dealt, weights=mean) / np.bincount(dealt), 12))
    return friedman_test(np.stack(columns, axis=1))


def nemenyi_critical_difference(methods: int, blocks: int, *, alpha: float = 0.05) -> float:
    """Mean ranks further apart than this differ (Nemenyi 1963; Demšar 2006, JMLR 7, section 3.2.2).

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


def rank_groups(mean_ranks: Sequence[float], critical_difference: float) -> tuple[tuple[int, ...], ...]:
    """The largest groups of methods whose mean ranks lie within the critical difference; methods by index, best first.

    Groups of one and groups inside another are left out: what remains are the bars of a critical-difference diagram.
    """
    order = sorted(range(len(mean_ranks)), key=lambda index: mean_ranks[index])
    groups: list[tuple[int, ...]] = []
    reached = 0
    for start, first in enumerate(order):
        end = start
        while end < len(order) and mean_ranks[order[end]] - mean_ranks[first] <= critical_difference:
            end += 1
        if end > reached and end - start > 1:
            groups.append(tuple(order[start:end]))
        reached = max(reached, end)
    return tuple(groups)


def _scores(given: ArrayLike, name: str) -> NDArray[np.float64]:
    """float64 (seeds, N)."""
    values = np.atleast_2d(np.asarray(given, dtype=np.float64))
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"{name}: got scores of shape {np.shape(given)}, expected finite ones, (N,) or (seeds, N)")
    return values


def _resampled_means(values: NDArray[np.float64], *, resamples: int, seed: int) -> NDArray[np.float64]:
    """float64 (resamples,): means of rows drawn with replacement.

    Only how often each distinct value is drawn matters, and these counts are multinomial; accuracies of a few seeds
    have a dozen distinct values.
    """
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(np.round(values, 12), return_counts=True)
    shares = counts / values.size
    means = np.empty(resamples)
    step = max(1, _HELD // distinct.size)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        means[start : start + size] = rng.multinomial(values.size, shares, size=size) @ distinct / values.size
    return means
