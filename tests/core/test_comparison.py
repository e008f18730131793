"""Comparisons against scipy, against tables in print, and against cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_edge.core.comparison import (
    compare_pairs,
    friedman_over_parts,
    nemenyi_critical_difference,
    paired_bootstrap,
    rank_groups,
    stratified_parts,
)
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
        """Where the difference is moderate the mean is near normal, so Wilcoxon's cousin, the z test, must agree."""
        stats = pytest.importorskip("scipy.stats")
        reference, other = right(0.60, seed=3, rows=3000), right(0.615, seed=4, rows=3000)
        change = other.mean(axis=0) - reference.mean(axis=0)
        expected = stats.ttest_1samp(change, 0).pvalue
        assert paired_bootstrap(reference, other).p == pytest.approx(expected, abs=0.012)

    def test_p_is_small_just_where_the_interval_leaves_zero_out(self) -> None:
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
        """Frames of a clip averaged: as many distinct values as rows, and still the whole answer in little memory."""
        rng = np.random.default_rng(0)
        report = paired_bootstrap(rng.random(3000), rng.random(3000) + 0.1, resamples=3000)
        assert report.low < 0.1 < report.high
        assert report.high - report.low == pytest.approx(2 * 1.96 * np.sqrt(2 / 12 / 3000), rel=0.1)

    @pytest.mark.parametrize(
        ("reference", "other"),
        [(np.ones(3), np.ones(4)), (np.array([np.nan, 1]), np.ones(2)), (np.ones((2, 2, 2)), np.ones(2)), ([], [])],
    )
    def test_scores_that_cannot_be(self, reference: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        with pytest.raises(InputError):
            paired_bootstrap(reference, other)


class TestComparePairs:
    def test_holm_over_the_pairs_and_system_minus_against(self) -> None:
        scores = {"a": right(0.70), "b": right(0.62, seed=1), "c": right(0.70, seed=2)}
        first, second = compare_pairs(scores, [("a", "b"), ("a", "c")])
        assert first.report.difference == pytest.approx(scores["a"].mean() - scores["b"].mean())
        assert first.p_holm == pytest.approx(2 * first.report.p)
        assert second.p_holm == pytest.approx(max(second.report.p, first.p_holm))

    def test_an_unknown_name(self) -> None:
        with pytest.raises(InputError, match="'d'"):
            compare_pairs({"a": right(0.5), "b": right(0.5)}, [("a", "d")])


class TestParts:
    def test_every_class_and_the_whole_are_spread_to_within_one(self) -> None:
        labels = np.random.default_rng(0).choice(7, size=3589, p=[0.14, 0.01, 0.15, 0.25, 0.17, 0.11, 0.17])
        dealt = stratified_parts(labels)
        counts = np.stack([np.bincount(dealt[labels == label], minlength=10) for label in range(7)])
        assert np.ptp(counts, axis=1).max() <= 1
        assert np.ptp(counts.sum(axis=0)) <= 1

    def test_rows_of_a_class_are_dealt_in_their_order(self) -> None:
        assert stratified_parts(np.array([1, 0, 1, 0, 1]), parts=2).tolist() == [0, 0, 1, 1, 0]

    def test_more_parts_than_rows(self) -> None:
        with pytest.raises(InputError, match="parts"):
            stratified_parts(np.zeros(5, dtype=int))

    def test_friedman_is_scipys_over_the_parts_accuracies(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        labels = np.random.default_rng(0).integers(0, 7, 600)
        scores = {"a": right(0.6, seed=1), "b": right(0.63, seed=2), "c": right(0.7, seed=3)}
        ours = friedman_over_parts(scores, labels)
        dealt = stratified_parts(labels)
        by_part = [[round(each[:, dealt == part].mean(), 12) for part in range(10)] for each in scores.values()]
        theirs = stats.friedmanchisquare(*by_part)
        assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
        assert ours.mean_ranks[2] == min(ours.mean_ranks)
        assert ours.blocks == 10

    def test_rows_that_do_not_fit(self) -> None:
        with pytest.raises(InputError, match="b: got 5 rows"):
            friedman_over_parts({"a": np.ones(20), "b": np.ones(5)}, np.zeros(20, dtype=int))


class TestCriticalDifference:
    # Demšar 2006, table 5(a): q at 0.05 for 2 to 10 classifiers.
    @pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (6, 2.850), (10, 3.164)])
    def test_is_the_one_in_print(self, methods: int, q: float) -> None:
        pytest.importorskip("scipy.stats")
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert nemenyi_critical_difference(methods, 14) == pytest.approx(expected, abs=5e-4)

    def test_groups_are_the_largest_ones(self) -> None:
        ranks = [3.9, 1.0, 1.5, 2.2, 4.0]
        assert rank_groups(ranks, 1.0) == ((1, 2), (2, 3), (0, 4))
        assert rank_groups(ranks, 0.05) == ()
        assert rank_groups(ranks, 9.0) == ((1, 2, 3, 0, 4),)
