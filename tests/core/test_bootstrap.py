"""The paired bootstrap against scipy and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_edge.core.bootstrap import paired_bootstrap
from fer_edge.core.errors import InputError


def right(rate: float, *, seeds: int = 3, rows: int = 600, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((seeds, rows)) < rate


class TestPairedBootstrap:
    def test_the_interval_is_scipys(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        reference, other = right(0.60, seed=1), right(0.66, seed=2)
        ours = paired_bootstrap(reference, other)
        change = other.mean(axis=0) - reference.mean(axis=0)
        theirs = stats.bootstrap(
            (change,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
        ).confidence_interval
        assert ours.difference == pytest.approx(change.mean())
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.0015)

    def test_p_agrees_with_the_normal_approximation(self) -> None:
        """Where the difference is moderate the mean is near normal, so the t test must agree."""
        stats = pytest.importorskip("scipy.stats")
        reference, other = right(0.60, seed=3, rows=3000), right(0.615, seed=4, rows=3000)
        change = other.mean(axis=0) - reference.mean(axis=0)
        expected = stats.ttest_1samp(change, 0).pvalue
        assert paired_bootstrap(reference, other).p == pytest.approx(expected, abs=0.012)

    def test_p_is_small_just_where_the_interval_excludes_zero(self) -> None:
        for seed in range(30):
            report = paired_bootstrap(right(0.6, seed=seed), right(0.64, seed=100 + seed), resamples=4000)
            outside = report.low > 0 or report.high < 0
            assert outside == (report.p < 0.05) or abs(report.p - 0.05) < 0.004

    def test_pairing_narrows_the_interval(self) -> None:
        reference = right(0.7, seeds=1, rows=2000)
        other = reference.copy()
        other[0, :40] = True
        unpaired = paired_bootstrap(reference, right(0.7, seeds=1, rows=2000, seed=9))
        paired = paired_bootstrap(reference, other)
        assert paired.high - paired.low < (unpaired.high - unpaired.low) / 4

    def test_no_difference_at_all(self) -> None:
        report = paired_bootstrap(right(0.5), right(0.5))
        assert (report.difference, report.low, report.high, report.p) == (0.0, 0.0, 0.0, 1.0)

    def test_the_same_seed_gives_the_same_report(self) -> None:
        assert paired_bootstrap(right(0.5), right(0.6, seed=1)) == paired_bootstrap(right(0.5), right(0.6, seed=1))

    def test_by_seed_only_where_both_have_the_same_seeds(self) -> None:
        three, one = right(0.5), right(0.6, seeds=1, seed=1)
        assert paired_bootstrap(three, one).by_seed == ()
        both = paired_bootstrap(three, right(0.6, seed=1))
        assert np.mean(both.by_seed) == pytest.approx(both.difference)

    def test_scores_may_be_real_numbers(self) -> None:
        """Frames of a clip averaged: as many distinct values as rows, in little memory."""
        rng = np.random.default_rng(0)
        report = paired_bootstrap(rng.random(3000), rng.random(3000) + 0.1, resamples=3000)
        assert report.low < 0.1 < report.high
        assert report.high - report.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 12 / 3000), rel=0.1)

    @pytest.mark.parametrize(
        ("reference", "other"),
        [(np.ones(3), np.ones(4)), (np.array([np.nan, 1]), np.ones(2)), (np.ones((2, 2, 2)), np.ones(2)), ([], [])],
    )
    def test_invalid_scores(self, reference: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        with pytest.raises(InputError):
            paired_bootstrap(reference, other)
