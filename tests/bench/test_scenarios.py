"""After idling, and from a fresh process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_bundle

from fer_edge.bench.scenarios import after_idle, cold_start
from fer_edge.core.errors import SessionError


def test_each_step_after_idling_is_timed_on_its_own() -> None:
    events: list[str] = []
    now = 0

    def step() -> None:
        nonlocal now
        # The first step after a pause is slow, as on a processor that clocked down.
        now += 500 if events and events[-1] == "sleep" else 20
        events.append("step")

    def sleep(seconds: float) -> None:
        nonlocal now
        now += int(seconds * 1e9)
        events.append("sleep")

    times = after_idle(step, idle_s=2.0, repeats=3, sleep=sleep, clock=lambda: now)
    assert events == ["step", *["sleep", "step"] * 3]
    assert times.tolist() == [500, 500, 500]


def test_a_cold_start_is_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    ballast = bytearray(400_000_000)  # in this process alone: it must not show in the other's peak
    ballast[::4096] = b"1" * len(ballast[::4096])
    monkeypatch.chdir(tmp_path)  # the package is found from anywhere
    started = cold_start(bundle.path, variant="fp32", provider="cpu", threads=1)
    assert 10e6 < started.duration_ns < 120e9
    assert started.rss_peak_bytes is not None
    assert 20e6 < started.rss_peak_bytes < 350e6


def test_a_cold_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="which does not exist"):
        cold_start(tmp_path / "none", variant="fp32", provider="cpu", threads=1)
