"""Latencies that a loop without pauses does not show: the first answer of a process, and the first after idling."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_edge.bench.cold_start import ColdStart, measure_cold_start
from fer_edge.bench.latency import Clock, gc_paused
from fer_edge.core.types import Int64

__all__ = ["after_idle", "cold_starts"]


def after_idle(
    step: Callable[[], object],
    *,
    idle_s: float,
    repeats: int,
    sleep: Callable[[float], None] = time.sleep,
    clock: Clock = time.perf_counter_ns,
) -> Int64:
    """Time single steps, each after `idle_s` seconds in which nothing ran; int64 (repeats,) nanoseconds.

    Processors clock down, caches are given to others and thread pools fall asleep: what a car sees after a pause.
    """
    times = np.zeros(repeats, np.int64)
    with gc_paused():
        step()
        for repeat in range(repeats):
            sleep(idle_s)
            start = clock()
            step()
            times[repeat] = clock() - start
    return times


def cold_starts(bundle: Path, *, variant: str, provider: str, threads: int, repeats: int) -> list[ColdStart]:
    """Fresh processes, one after the other.

    Raises:
        SessionError: one of them failed.
    """
    return [measure_cold_start(bundle, variant=variant, provider=provider, threads=threads) for _ in range(repeats)]
