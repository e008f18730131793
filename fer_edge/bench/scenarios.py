"""Latencies that a loop without pauses does not show: the first result of a process, and the first after idling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.bench.latency import Clock, gc_paused
from fer_edge.core.errors import SessionError
from fer_edge.core.types import Int64

__all__ = ["ColdStart", "after_idle", "cold_start"]

_TIMEOUT_S: Final = 300


def after_idle(
    step: Callable[[], object],
    *,
    idle_s: float,
    repeats: int,
    sleep: Callable[[float], None] = time.sleep,
    clock: Clock = time.perf_counter_ns,
) -> Int64:
    """Time single steps, each after `idle_s` seconds without work; int64 (repeats,) nanoseconds.

    After a pause, processors have clocked down, caches are cold and thread pools sleep.
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


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Time from the start of the interpreter to the first probabilities, and the process's peak resident memory."""

    duration_ns: int
    rss_peak_bytes: int | None


def cold_start(bundle: Path, *, variant: str, provider: str, threads: int) -> ColdStart:
    """Start `fer_edge.bench.cold_start` in a fresh process and wait for its first probabilities.

    Raises:
        SessionError: the process failed; the message holds its last line.
    """
    command = [sys.executable, "-m", "fer_edge.bench.cold_start", str(bundle), variant, provider, str(threads)]
    # The child finds this very package, however it got onto our own path.
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    start = time.monotonic_ns()
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=os.environ | {"PYTHONPATH": path}
        )
    except subprocess.TimeoutExpired as error:
        raise SessionError(f"cold start of {bundle} {variant} on {provider}: no result in {_TIMEOUT_S} s") from error
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise SessionError(f"cold start of {bundle} {variant} on {provider} failed: {last}")
    answer = json.loads(child.stdout)
    return ColdStart(duration_ns=answer["ready_ns"] - start, rss_peak_bytes=answer["rss_peak_bytes"])
