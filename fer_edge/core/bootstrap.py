"""Paired bootstrap: how much better one system is than another on the same rows, with an interval and a p-value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.json import expect

__all__ = ["BootstrapReport", "paired_bootstrap"]

_HELD: Final = 4_000_000  # resampled counts in memory at once: 32 MB


@dataclass(frozen=True, kw_only=True)
class BootstrapReport:
    """Difference of two systems' mean scores on the same rows: other minus reference.

    Attributes:
        n: rows.
        difference: of the means over rows and seeds; of the accuracies where scores are right or wrong.
        low: lower end of the percentile interval.
        high: upper end.
        level: share of resamples in the interval, 0.95 for a 95 % interval.
        p: two-sided: twice the smaller share of resamples on one side of 0, so that p < 1 - level where the interval
            excludes 0; at least 2 / (resamples + 1).
        resamples: number of resamples.
        by_seed: difference of each seed, in the order given; empty where the sides have unequal seeds.
    """

    n: int
    difference: float
    low: float
    high: float
    level: float
    p: float
    resamples: int
    by_seed: tuple[float, ...] = ()


def paired_bootstrap(
    reference: ArrayLike, other: ArrayLike, *, level: float = 0.95, resamples: int = 20_000, seed: int = 0
) -> BootstrapReport:
    """Compare `other` with `reference` on the same rows by resampling rows (Efron, Tibshirani 1993).

    Seeds are averaged row by row first, so the interval covers other images for these trained networks; `by_seed` shows
    the variation between trainings. Rows must be independent: one score per clip, not one per frame.

    Args:
        reference: bool or float (N,) or (seeds, N): the score of each row, right or wrong for accuracies.
        other: the same for the other system; its number of seeds may be another.
        level: of the interval.
        resamples: number of resamples.
        seed: of the resampling; the same seed gives the same report.

    Raises:
        InputError: shapes differ in their rows, a score is not finite, or a number is out of range.
    """
    expect(0.5 <= level < 1, "level", level, "0.5 or more, below 1")
    expect(resamples >= 100, "resamples", resamples, "at least 100")
    first, second = _scores(reference, "reference"), _scores(other, "other")
    rows = first.shape[1]
    if second.shape[1] != rows:
        raise InputError(f"rows: got {rows} and {second.shape[1]}, expected the same on both sides")
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


def _scores(given: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return float64 (seeds, N)."""
    values = np.atleast_2d(np.asarray(given, dtype=np.float64))
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"{name}: got scores of shape {np.shape(given)}, expected finite ones, (N,) or (seeds, N)")
    return values


def _resampled_means(values: NDArray[np.float64], *, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return float64 (resamples,): means of rows drawn with replacement.

    The counts of the distinct values are multinomial; accuracies of a few seeds have a dozen distinct values.
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
