"""The timing loop: who runs when, what is kept, and what the figures made of it mean."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from fer_edge.bench.latency import (
    LatencySummary,
    Probe,
    gc_paused,
    measure_interleaved,
    ratio_over_rounds,
    summarise,
)
from fer_edge.core.errors import InputError


class FakeMachine:
    """A clock that only moves when a call runs, and a record of the calls."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def clock(self) -> int:
        return self.now

    def call(self, name: str, cost_ns: int) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += cost_ns

        return run


def test_every_probe_runs_in_every_round_and_none_always_follows_the_same() -> None:
    machine = FakeMachine()
    probes = [
        Probe(name=name, stages={"run": machine.call(name, cost)}, per_round=2)
        for name, cost in (("a", 10), ("b", 200), ("c", 3000))
    ]
    seen: list[tuple[int, int]] = []
    times = measure_interleaved(
        probes, rounds=3, warm_up=1, clock=machine.clock, progress=lambda what, done, total: seen.append((done, total))
    )
    assert machine.calls == [*"abc", *"aabbcc", *"bbccaa", *"ccaabb"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for name, cost in (("a", 10), ("b", 200), ("c", 3000)):
        np.testing.assert_array_equal(times[name].stages["run"], np.full((3, 2), cost))


def test_stages_are_timed_apart_and_add_up_sample_by_sample() -> None:
    machine = FakeMachine()
    probe = Probe(name="frame", stages={"encoder": machine.call("e", 700), "head": machine.call("h", 50)}, per_round=3)
    samples = measure_interleaved([probe], rounds=2, warm_up=0, clock=machine.clock)["frame"]
    assert machine.calls == ["e", "h"] * 6
    assert samples.stages["encoder"].shape == (2, 3)
    assert (samples.total("head") == 50).all()
    assert (samples.total() == 750).all()


def test_the_garbage_collector_is_off_while_timing_and_back_on_after() -> None:
    states: list[bool] = []
    probe = Probe(name="p", stages={"run": lambda: states.append(gc.isenabled())}, per_round=2)
    measure_interleaved([probe], rounds=2, warm_up=0)
    assert states == [False] * 4
    assert gc.isenabled()
    with pytest.raises(RuntimeError), gc_paused():
        raise RuntimeError
    assert gc.isenabled()


def test_no_sample_is_left_out() -> None:
    times = np.full(1000, 1_000_000)
    times[500] = 90_000_000
    summary = summarise(times, batch=1, t=16, threads=2)
    assert (summary.p50, summary.p99, summary.max, summary.n) == (1.0, 1.0, 90.0, 1000)
    assert summary.mean == pytest.approx(1.089)
    assert summary.p99_9 == pytest.approx(np.percentile(times / 1e6, 99.9))
    assert (summary.batch, summary.t, summary.threads) == (1, 16, 2)


def test_a_summary_writes_the_keys_of_the_bench_json_and_reads_them() -> None:
    summary = summarise(np.arange(1, 11) * 1_000_000, batch=1, t=None, threads=1)
    value = summary.to_json()
    assert list(value) == ["p50", "p90", "p99", "p99.9", "mean", "min", "max", "n", "batch", "t", "threads"]
    assert (value["p50"], value["min"], value["max"], value["n"]) == (5.5, 1.0, 10.0, 10)
    assert LatencySummary.from_json(value) == summary
    with pytest.raises(InputError, match="p98"):
        LatencySummary.from_json(value | {"p98": 1.0})


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine is ten times slower in the second round; the ratio of 2 does not notice.
    times = np.array([[200, 200, 999], [2000, 2000, 2000], [200, 200, 200]])
    reference = np.array([[100, 100], [1000, 1000], [100, 100]])
    ratio = ratio_over_rounds(times, reference)
    assert (ratio.q1, ratio.median, ratio.q3) == (2.0, 2.0, 2.0)
    spread = ratio_over_rounds(np.array([[1], [2], [3], [4], [5]]), np.ones((5, 1)))
    assert (spread.q1, spread.median, spread.q3) == (2.0, 3.0, 4.0)


def test_what_cannot_be_timed_is_refused() -> None:
    def nothing() -> None: ...

    twice = [Probe(name="same", stages={"run": nothing}, per_round=1)] * 2
    with pytest.raises(InputError, match="differ"):
        measure_interleaved(twice, rounds=1, warm_up=0)
    with pytest.raises(InputError, match="got rounds 0"):
        measure_interleaved(twice[:1], rounds=0, warm_up=0)
    with pytest.raises(InputError, match="stage"):
        Probe(name="empty", stages={}, per_round=1)
    with pytest.raises(InputError, match="got no sample"):
        summarise(np.zeros(0, np.int64), batch=1, t=1, threads=1)
