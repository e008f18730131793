"""The deadline policy, over made-up times."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from fer_edge.core.errors import InputError
from fer_edge.runtime.deadline import DeadlineOptions, DeadlinePolicy, LoadMeasure

_MEASURES: tuple[LoadMeasure, ...] = ("detection spread out", "driver only", "fallback model")
_STEP_S = 0.1


def _levels(
    policy: DeadlinePolicy, cost_ms: Callable[[int], float], *, seconds: float, start_s: float = 0.0
) -> list[int]:
    """The level after each frame at ten frames a second, where a frame costs what `cost_ms` says for the level."""
    return [
        policy.update(cost_ms(policy.level), now_s=start_s + (index + 1) * _STEP_S)
        for index in range(round(seconds / _STEP_S))
    ]


def test_one_slow_frame_changes_nothing() -> None:
    policy = DeadlinePolicy(_MEASURES)
    _levels(policy, lambda _: 10.0, seconds=5)
    policy.update(400.0, now_s=5.1)
    assert set(_levels(policy, lambda _: 10.0, seconds=5, start_s=5.1)) == {0}


def test_measures_are_taken_one_by_one_until_the_budget_holds() -> None:
    policy = DeadlinePolicy(_MEASURES)
    levels = _levels(policy, lambda level: (80.0, 60.0, 25.0, 5.0)[level], seconds=60)
    assert levels[:9] == [0] * 9, "not before the load has lasted"
    assert max(levels) == levels[-1] == 2, "25 ms is within the budget, and too close to it to come back"
    assert policy.active == ("detection spread out", "driver only")


def test_it_comes_back_in_reverse_order_when_there_is_room() -> None:
    policy = DeadlinePolicy(_MEASURES)
    assert _levels(policy, lambda _: 80.0, seconds=10)[-1] == 3
    levels = _levels(policy, lambda _: 5.0, seconds=60, start_s=10)
    changes = [index * _STEP_S for index in range(1, len(levels)) if levels[index] != levels[index - 1]]
    assert [levels[round(at / _STEP_S)] for at in changes] == [2, 1, 0]
    assert all(later - earlier == pytest.approx(10, abs=0.5) for earlier, later in itertools.pairwise(changes))


def test_a_measure_that_is_needed_again_and_again_is_kept_longer() -> None:
    policy = DeadlinePolicy(_MEASURES[:1])
    levels = _levels(policy, lambda level: (80.0, 5.0)[level], seconds=600)
    withdrawals = [index * _STEP_S for index in range(1, len(levels)) if levels[index] < levels[index - 1]]
    waits = [later - earlier for earlier, later in itertools.pairwise(withdrawals)]
    assert waits == sorted(waits)
    assert len(withdrawals) < 8
    assert waits[-1] > 100


def test_without_measures_nothing_happens() -> None:
    assert set(_levels(DeadlinePolicy(()), lambda _: 500.0, seconds=5)) == {0}


@pytest.mark.parametrize("wrong", [{"frame_budget_ms": 0}, {"recover_share": 1.0}, {"patience_s": float("nan")}])
def test_options_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        DeadlineOptions(**wrong)
