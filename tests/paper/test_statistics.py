"""Rank tests against scipy and tables in print, Holm's correction by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.paper.statistics import (
    friedman_over_parts,
    holm,
    nemenyi_critical_difference,
    stratified_parts,
)

pytest.importorskip("scipy.stats")


def right(rate: float, *, seeds: int = 3, rows: int = 600, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((seeds, rows)) < rate


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


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

    def test_equal_methods_do_not_differ(self) -> None:
        scores = dict.fromkeys(("a", "b", "c"), right(0.6))
        found = friedman_over_parts(scores, np.arange(600) % 7)
        assert (found.statistic, found.p, found.mean_ranks) == (0.0, 1.0, (2.0, 2.0, 2.0))

    def test_two_methods_are_refused(self) -> None:
        with pytest.raises(InputError, match="three methods"):
            friedman_over_parts({"a": right(0.6), "b": right(0.5)}, np.arange(600) % 7)


class TestCriticalDifference:
    # Demšar 2006, table 5(a): q at 0.05 for 2 to 10 classifiers.
    @pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (6, 2.850), (10, 3.164)])
    def test_is_the_one_in_print(self, methods: int, q: float) -> None:
        pytest.importorskip("scipy.stats")
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert nemenyi_critical_difference(methods, 14) == pytest.approx(expected, abs=5e-4)
