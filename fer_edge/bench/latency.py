"""The timing loop: interleaved, warmed up, garbage collector off, every sample kept."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Int64, Progress

__all__ = [
    "LatencySummary",
    "Probe",
    "Ratio",
    "Samples",
    "gc_paused",
    "measure_interleaved",
    "ratio_over_rounds",
    "summarise",
]

Clock = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One thing to time: `stages` run in order, each timed on its own, `per_round` times in every round.

    Stages of one probe follow each other as they do in use, so their times may be added sample by sample.
    """

    name: str
    stages: Mapping[str, Callable[[], object]]
    per_round: int

    def __post_init__(self) -> None:
        if not self.stages or self.per_round < 1:
            raise InputError(
                f"probe {self.name!r}: got {len(self.stages)} stages and per_round {self.per_round}, expected at least "
                "one of each"
            )


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Times of one probe's stages in nanoseconds, each int64 (rounds, per_round)."""

    stages: Mapping[str, Int64]

    def total(self, *names: str) -> Int64:
        """Add the named stages (all where none is named) sample by sample: int64 (rounds, per_round)."""
        return np.asarray(np.sum([self.stages[name] for name in names or self.stages], axis=0), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Milliseconds over all `n` samples, none left out; percentiles are interpolated linearly.

    `batch` faces are in one call, `t` frames in the window of the head (None where no head runs).
    """

    p50: float
    p90: float
    p99: float
    p99_9: float
    mean: float
    min: float
    max: float
    n: int
    batch: int
    t: int | None
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the key of `p99_9` is ``"p99.9"``."""
        return {"p99.9" if name == "p99_9" else name: value for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LatencySummary:
        """Read what `to_json` returned.

        Raises:
            InputError: a key is missing or unknown.
        """
        try:
            return cls(**{"p99_9" if name == "p99.9" else name: entry for name, entry in value.items()})
        except TypeError as error:
            raise InputError(f"latency: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of two times, taken once a round: its median over the rounds and its quartiles."""

    median: float
    q1: float
    q3: float


def measure_interleaved(
    probes: Sequence[Probe],
    *,
    rounds: int,
    warm_up: int,
    clock: Clock = time.perf_counter_ns,
    progress: Progress | None = None,
) -> dict[str, Samples]:
    """Time every probe in every round, so that a disturbance of the machine slows all of them.

    A round visits each probe once; the next round starts one probe later, so that no probe always follows the same
    one. Garbage is collected before each round and not during it.

    Args:
        probes: what to time; their names differ.
        warm_up: untimed calls of each probe beforehand.
        clock: returns nanoseconds.

    Raises:
        InputError: names repeat, or there are no rounds.
    """
    if len({probe.name for probe in probes}) != len(probes):
        raise InputError(f"probes: got {', '.join(probe.name for probe in probes)}, expected names that differ")
    if rounds < 1 or warm_up < 0:
        raise InputError(f"timing: got rounds {rounds} and warm_up {warm_up}, expected at least 1 and at least 0")
    for probe in probes:
        for _ in range(warm_up):
            for call in probe.stages.values():
                call()
    times = {probe.name: np.zeros((len(probe.stages), rounds, probe.per_round), np.int64) for probe in probes}
    for number in range(rounds):
        with gc_paused():
            for step in range(len(probes)):
                probe = probes[(number + step) % len(probes)]
                _time_probe(probe, times[probe.name][:, number], clock)
        if progress is not None:
            progress("timing, interleaved", number + 1, rounds)
    return {probe.name: Samples(stages=dict(zip(probe.stages, times[probe.name], strict=True))) for probe in probes}


def _time_probe(probe: Probe, out: Int64, clock: Clock) -> None:
    calls = tuple(probe.stages.values())
    for repeat in range(probe.per_round):
        for stage, call in enumerate(calls):
            start = clock()
            call()
            out[stage, repeat] = clock() - start


def summarise(times_ns: Int64, *, batch: int, t: int | None, threads: int) -> LatencySummary:
    """Summarise nanosecond samples of any shape in milliseconds.

    Raises:
        InputError: there is no sample.
    """
    values = np.asarray(times_ns, dtype=np.float64).ravel() / 1e6
    if values.size == 0:
        raise InputError("latency: got no sample, expected at least one")
    taken = [*np.percentile(values, (50.0, 90.0, 99.0, 99.9)), values.mean(), values.min(), values.max()]
    # A nanosecond is 1e-6 ms: the digits after that are noise of the arithmetic.
    names = ("p50", "p90", "p99", "p99_9", "mean", "min", "max")
    figures = {name: round(float(value), 6) for name, value in zip(names, taken, strict=True)}
    return LatencySummary(**figures, n=int(values.size), batch=batch, t=t, threads=threads)


def ratio_over_rounds(times_ns: Int64, reference_ns: Int64) -> Ratio:
    """Divide the medians of the same round, then take the median and the quartiles over the rounds.

    Args:
        times_ns: int64 (rounds, repeats).
        reference_ns: int64 (rounds, its own repeats).
    """
    ratios = np.median(times_ns, axis=1) / np.median(reference_ns, axis=1)
    q1, median, q3 = (float(value) for value in np.percentile(ratios, [25, 50, 75]))
    return Ratio(median=median, q1=q1, q3=q3)


@contextmanager
def gc_paused() -> Iterator[None]:
    """Collect garbage, then leave the collector off inside the block."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
