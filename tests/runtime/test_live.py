"""The live recogniser under every fault that it promises to survive; threads are real, most clocks are not."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import WINDOW, tiny_bundle

from fer_edge.core.errors import InputError, SessionError
from fer_edge.runtime.deadline import DeadlineOptions
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.inference import Network
from fer_edge.runtime.live import LiveRecognizer
from fer_edge.runtime.live_options import LiveOptions
from fer_edge.runtime.live_result import LiveResult
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions

_BOX = (10.0, 10.0, 60.0, 60.0)
_FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


class Clock:
    """A clock that a test sets; `LiveOptions.clock`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Gate:
    """A detector that finds one face, once it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.error: Exception | None = None

    def detect(self, image: np.ndarray) -> tuple[BoxXyxy, ...]:
        self.entered.set()
        self.open.wait(10)
        if self.error is not None:
            raise self.error
        return (_BOX,)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle").path


@pytest.fixture
def clock() -> Clock:
    return Clock()


Start = Callable[..., LiveRecognizer]


@pytest.fixture
def start(bundle: Path, clock: Clock) -> Iterator[Start]:
    """Opens live recognisers on the tiny bundle and the test's clock, and closes them."""
    opened: list[LiveRecognizer] = []
    recognizer = Recognizer(bundle, quality=None)  # noise is recognised as well

    def open_live(*, detector: Any = None, on_estimate: Any = None, **options: Any) -> LiveRecognizer:
        live = LiveRecognizer(
            recognizer,
            detector=detector,
            on_estimate=on_estimate,
            options=LiveOptions(
                **{"clock": clock, "quality": None, "tracking": TrackerOptions(search_s=1e-3)} | options
            ),
        )
        opened.append(live)
        return live

    yield open_live
    for live in opened:
        live.close()
    recognizer.close()


def until(condition: Callable[[], object], *, seconds: float = 5.0) -> None:
    ends_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_s, "it did not happen in time"
        time.sleep(0.005)


def process(live: LiveRecognizer, clock: Clock, frame: Any = _FRAME, **more: Any) -> LiveResult:
    """Push a frame and wait for its result; results that only tell of another state are left out."""
    clock.now_s += 0.1
    token = object()
    live.push(frame, **{"boxes": [_BOX], "token": token, **more})
    return next(result for result in live.estimates(timeout_s=5.0) if result.token is token)


class TestFrames:
    def test_the_newest_frame_wins_and_nothing_waits(self, start: Start, clock: Clock) -> None:
        gate = Gate()
        live = start(detector=gate)
        gate.open.clear()
        live.push(_FRAME, 1.0, token=0)
        assert gate.entered.wait(5)
        began_s = time.perf_counter()
        for number in range(1, 200):
            live.push(_FRAME, 1 + number / 100, token=number)
        assert (time.perf_counter() - began_s) / 199 < 0.005
        gate.open.set()
        assert [next(live.estimates(timeout_s=5)).token for _ in range(2)] == [0, 199]
        health = live.health()
        assert (health.pushed, health.dropped, health.processed) == (200, 198, 2)

    def test_the_buffer_may_be_used_again(self, start: Start) -> None:
        gate, frame = Gate(), _FRAME.copy()
        live = start(detector=gate)
        first = process(live, Clock(), frame, timestamp_s=1.0)
        gate.open.clear()
        live.push(_FRAME, 1.1)
        assert gate.entered.wait(5)
        live.push(frame, 1.2, boxes=[_BOX])
        frame[:] = 0
        gate.open.set()
        last = [next(live.estimates(timeout_s=5)) for _ in range(2)][-1]
        assert last.estimates[0].probabilities == pytest.approx(first.estimates[0].probabilities, abs=0.02)

    def test_bad_frames_are_counted_and_skipped(self, start: Start, clock: Clock) -> None:
        live = start()
        assert process(live, clock).state == "OK"
        wrong = [
            None,
            np.zeros((0, 160, 3), np.uint8),
            np.zeros((90, 160, 3), np.float32),
            np.zeros((80, 160, 3), np.uint8),
        ]
        for number, frame in enumerate(wrong, start=1):
            live.push(frame, clock.now_s)
            until(lambda number=number: sum(live.health().skipped.values()) == number)
        live.push(_FRAME, clock.now_s - 5, boxes=[_BOX])
        live.push(_FRAME, clock.now_s - 5, boxes=[_BOX])
        until(lambda: live.health().skipped.get("timestamp_s"))
        assert live.health().skipped["frame"] == 3
        assert live.health().skipped["size"] == 1
        result = process(live, clock)
        assert result.state == "OK", "a bad frame now and then is no fault"
        assert result.estimates[0].track_id == 1

    def test_half_of_all_frames_corrupt(self, start: Start, clock: Clock) -> None:
        """As a decoder gives them: nothing at all for every other JPEG."""
        live = start()
        for _ in range(12):
            last = process(live, clock)
            live.push(None)
        assert (last.state, live.health().processed) == ("DEGRADED", 12)
        assert "of the last" in (last.state_because or "")
        states = [process(live, clock).state for _ in range(40)]
        assert states[-1] == "OK"

    def test_a_camera_set_to_another_size(self, start: Start, clock: Clock) -> None:
        live = start()
        old = process(live, clock).estimates[0].track_id
        for _ in range(4):
            clock.now_s += 0.1
            live.push(_FRAME[:80], boxes=[_BOX])
            until(lambda: live.health().pushed == 1 + live.health().skipped.get("size", 0))
        assert process(live, clock, _FRAME[:80]).estimates[0].track_id != old

    def test_layouts(self, start: Start, clock: Clock) -> None:
        live = start(white_level=1023)
        for layout, frame in {"rgb": _FRAME, "nv12": _FRAME[..., 0].repeat(3, 0)[:135]}.items():
            assert len(process(live, clock, frame, layout=layout).estimates) == 1
        assert len(process(live, clock, _FRAME[..., 0].astype(np.uint16) * 4, layout="grey16").estimates) == 1
        with pytest.raises(InputError, match="layout"):
            live.push(_FRAME, layout="bayer")


class TestConsumers:
    def test_a_sleeping_consumer_stops_nothing_and_loses_the_oldest(self, start: Start, clock: Clock) -> None:
        live = start(results_kept=4)
        for number in range(20):
            clock.now_s += 0.1
            live.push(_FRAME, boxes=[_BOX], token=number)
            until(lambda number=number: live.health().processed == number + 1)
        assert live.health().lost == 16
        clock.now_s += 10
        late = list(live.estimates(timeout_s=0.0))
        assert [result.token for result in late] == [16, 17, 18, 19]
        assert [round(result.estimates[0].age_ms) for result in late] == [10300, 10200, 10100, 10000]
        assert {result.estimates[0].state for result in late} == {"DEGRADED"}
        assert "ms old" in (late[-1].estimates[0].state_because or "")

    def test_a_sleeping_callback(self, start: Start, clock: Clock) -> None:
        awake, seen = threading.Event(), list[LiveResult]()

        def sleep(result: LiveResult) -> None:
            awake.wait(5)
            seen.append(result)

        live = start(on_estimate=sleep, results_kept=2)
        for number in range(10):
            clock.now_s += 0.1
            live.push(_FRAME, boxes=[_BOX], token=number)
            until(lambda number=number: live.health().processed == number + 1)
        awake.set()
        until(lambda: seen and seen[-1].token == 9)
        assert len(seen) <= 4
        with pytest.raises(InputError, match="on_estimate"):
            live.estimates()

    def test_a_callback_that_raises_is_reported(self, start: Start, clock: Clock) -> None:
        live = start(on_estimate=lambda result: 1 / 0)
        live.push(_FRAME, boxes=[_BOX])
        until(lambda: "ZeroDivisionError" in (live.health().because or ""))
        assert live.health().state == "DEGRADED"

    def test_async_for(self, start: Start, clock: Clock) -> None:
        async def consume() -> list[int]:
            tokens = []
            async for result in live:
                tokens.append(result.token)
                if len(tokens) == 3:
                    live.close()
            return tokens

        async def drive() -> list[int]:
            consumer = asyncio.create_task(consume())
            for number in range(3):
                clock.now_s += 0.1
                live.push(_FRAME, boxes=[_BOX], token=number)
                while live.health().processed <= number:
                    await asyncio.sleep(0.005)
            return await asyncio.wait_for(consumer, 5)

        live = start()
        assert asyncio.run(drive()) == [0, 1, 2]


class TestStall:
    def test_no_frame_is_said_and_so_is_the_end_of_it(self, start: Start, clock: Clock) -> None:
        live = start(stall_after_s=0.2)
        assert live.health().reasons[0].name == "starting"
        process(live, clock)
        fine_s = live.health().since_s
        clock.now_s += 0.3
        stalled = next(live.estimates(timeout_s=5))
        assert (stalled.state, stalled.state_because, stalled.estimates) == ("FAILED", "no usable frame for 0.2 s", ())
        health = live.health()
        assert (health.state, health.reasons[0].name, health.since_s) == ("FAILED", "stalled", clock.now_s)
        assert health.since_s > fine_s
        assert process(live, clock).state == "OK"

    def test_unusable_frames_are_no_frames(self, start: Start, clock: Clock) -> None:
        live = start(stall_after_s=0.2)
        process(live, clock)
        clock.now_s += 0.3
        live.push(np.zeros((1, 1), np.uint8))
        assert next(live.estimates(timeout_s=5)).state == "FAILED"

    def test_a_frame_that_hangs_is_seen_and_does_not_keep_the_process(self, start: Start, clock: Clock) -> None:
        gate = Gate()
        live = start(detector=gate, stall_after_s=0.5)
        gate.open.clear()
        live.push(_FRAME)
        assert gate.entered.wait(5)
        clock.now_s += 1
        assert {reason.name for reason in live.health().reasons} >= {"worker", "stalled"}
        began_s = time.monotonic()
        live.close()
        assert time.monotonic() - began_s < 1
        gate.open.set()

    def test_the_camera_is_reported_by_who_reads_it(self, start: Start, clock: Clock) -> None:
        live = start()
        process(live, clock)
        live.report_source("the camera is unplugged")
        assert next(live.estimates(timeout_s=5)).state_because == "the camera is unplugged"
        live.report_source(None, reopened=True)
        assert next(live.estimates(timeout_s=5)).state == "OK"
        assert live.health().reopened == 1


class TestEngine:
    def test_a_detector_that_throws_is_a_state_and_not_an_end(self, start: Start, clock: Clock) -> None:
        gate = Gate()
        live = start(detector=gate)
        for error in (SessionError("the detector is gone"), ValueError("a defect")):
            gate.error = error
            clock.now_s += 0.1
            live.push(_FRAME)
            failed = next(live.estimates(timeout_s=5))
            assert (failed.state, str(error) in (failed.state_because or "")) == ("FAILED", True)
            gate.error = None
            assert process(live, clock, boxes=None).state == "OK"

    def test_an_engine_that_always_throws_fails_until_it_runs_again(
        self, start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def throw(self: Network, faces: np.ndarray) -> None:
            raise SessionError("the engine is gone")

        live = start()
        assert process(live, clock).state == "OK"
        with monkeypatch.context() as broken:
            broken.setattr(Network, "encode_with_attention", throw)
            results = [process(live, clock) for _ in range(4)]
        assert [result.state for result in results] == ["DEGRADED", "DEGRADED", "FAILED", "FAILED"]
        assert {result.estimates[0].state for result in results} == {"FAILED"}
        assert "the engine is gone" in (results[-1].state_because or "")
        assert process(live, clock).state == "OK"

    def test_a_bundle_replaced_under_a_running_recogniser_changes_nothing(
        self, start: Start, clock: Clock, bundle: Path
    ) -> None:
        live = start()
        before = process(live, clock).estimates[0]
        for path in sorted(bundle.rglob("*"), reverse=True):
            if path.is_file():
                path.write_bytes(b"another bundle")
        after = process(live, clock).estimates[0]
        assert after.probabilities.keys() == before.probabilities.keys()
        assert live.health().state == "OK"

    def test_it_is_kept_warm(self, start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        runs: list[int] = []
        inner = Recognizer.keep_warm
        monkeypatch.setattr(Recognizer, "keep_warm", lambda self: runs.append(1) or inner(self))
        start(stall_after_s=0.2)
        live = start(stall_after_s=0.2, keep_warm_s=0.5)
        clock.now_s += 0.6
        until(lambda: runs)
        time.sleep(0.15)
        assert len(runs) == 1, "once, until the time is up again"
        assert live.health().processed == 0


class TestLoad:
    def test_measures_are_taken_in_order_and_withdrawn(
        self, start: Start, clock: Clock, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The frame's cost is made up; that each measure takes effect is not."""
        smaller = tiny_bundle(tmp_path / "smaller").path
        live = start(
            tracking=TrackerOptions(passengers=True),
            fallback=smaller,
            deadline=DeadlineOptions(frame_budget_ms=10, patience_s=0.3, recover_s=0.5),
        )
        cost_ms = 50.0
        update = live._policy.update
        monkeypatch.setattr(live._policy, "update", lambda spent_ms, *, now_s: update(cost_ms, now_s=now_s))
        boxes = [_BOX, (90.0, 10.0, 130.0, 50.0)]
        results = [process(live, clock, boxes=boxes) for _ in range(20)]
        assert [len(result.estimates) for result in (results[0], results[-1])] == [2, 1]
        last = results[-1]
        assert last.state == "DEGRADED"
        assert "detection spread out, driver only, fallback model" in (last.state_because or "")
        assert live.health().load_level == 3
        assert live.info.sha256 == last_info(smaller)
        fills = [result.driver.window_fill for result in results if result.driver]
        assert 1 / WINDOW in fills[3:], "the fallback has windows of its own"
        cost_ms = 1.0
        results = [process(live, clock, boxes=boxes) for _ in range(40)]
        assert (results[-1].state, len(results[-1].estimates), live.health().load_level) == ("OK", 2, 0)
        assert live.info.sha256 == last_info(bundle)


def last_info(bundle: Path) -> str:
    with Recognizer(bundle) as recognizer:
        return recognizer.info.sha256


class TestRecording:
    def test_every_frame_has_its_result(self, start: Start) -> None:
        live = start(every_frame=True, results_kept=2)

        def push() -> None:
            for number in range(30):
                live.push(_FRAME, number / 10, boxes=[_BOX], token=number)
            live.finish()

        threading.Thread(target=push, daemon=True).start()
        results = list(live.estimates())
        assert [result.token for result in results] == list(range(30))
        assert results[-1].estimates[0].state == "OK"
        assert (live.health().dropped, live.health().lost) == (0, 0)

    def test_a_failure_is_raised_to_the_consumer(self, start: Start) -> None:
        gate = Gate()
        gate.error = SessionError("no detector here")
        live = start(every_frame=True, detector=gate)
        live.push(_FRAME, 0.0)
        with pytest.raises(SessionError, match="no detector here"):
            list(live.estimates())


class TestEnd:
    def test_nothing_is_left_behind(self, bundle: Path) -> None:
        before = threading.active_count()
        for _ in range(3):
            with LiveRecognizer(bundle, on_estimate=lambda result: None) as live:
                live.push(_FRAME, boxes=[_BOX])
                until(lambda: live.health().processed)
            live.close()
            with pytest.raises(InputError, match="close"):
                live.push(_FRAME)
        gc.collect()
        assert threading.active_count() == before

    def test_a_callback_may_close(self, bundle: Path) -> None:
        closed = threading.Event()
        live = LiveRecognizer(bundle, detector=None, on_estimate=lambda result: (live.close(), closed.set()))
        live.push(_FRAME, boxes=[_BOX])
        assert closed.wait(5)

    def test_reset_ends_tracks(self, start: Start, clock: Clock) -> None:
        live = start()
        old = [process(live, clock) for _ in range(3)][-1].estimates[0]
        live.reset()
        new = process(live, clock).estimates[0]
        assert new.track_id != old.track_id
        assert new.window_fill < old.window_fill

    @pytest.mark.parametrize("wrong", [{"stall_after_s": 0}, {"results_kept": 0}, {"white_level": 0}, {"clock": 3}])
    def test_options_out_of_range(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=next(iter(wrong))):
            LiveOptions(**wrong)
