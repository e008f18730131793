"""Wrong times: what each costs, and that nothing stays deaf after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import WINDOW, tiny_bundle, tiny_frames

from fer_edge.core.errors import FrameError
from fer_edge.runtime.estimate import ExpressionEstimate
from fer_edge.runtime.frame_clock import FrameClock
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer

_YEAR_S = 365 * 86_400.0
_EPOCH_S = 1.8e9


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer(tiny_bundle(tmp_path / "bundle"), quality=None) as opened:
        yield opened


def _run(recognizer: Recognizer, how: str, times_s: Sequence[float]) -> list[ExpressionEstimate | str]:
    """The estimate of each frame, or why it was refused."""
    stream, video = recognizer.stream(), VideoRecognizer(recognizer)
    frame, face = np.zeros((60, 80), np.uint8), tiny_frames(1)[0]
    frame[10:50, 10:50] = np.kron(face, np.ones((4, 4), np.uint8))[:40, :40]
    found: list[ExpressionEstimate | str] = []
    for time_s in times_s:
        try:
            if how == "stream":
                found.append(stream.update(face, timestamp_s=time_s))
            else:
                found += video.process(frame, timestamp_s=time_s, boxes=[(10, 10, 50, 50)]).estimates
        except FrameError as error:
            found.append(str(error))
    return found


def _fills(found: Sequence[ExpressionEstimate | str]) -> list[float | str]:
    return [each if isinstance(each, str) else each.window_fill * WINDOW for each in found]


@pytest.mark.parametrize("how", ["stream", "video"])
@pytest.mark.parametrize("jump_s", [_YEAR_S, -5.0, -_EPOCH_S])
class TestAJump:
    def test_of_one_frame_costs_that_frame(self, recognizer: Recognizer, how: str, jump_s: float) -> None:
        times_s = _EPOCH_S + np.arange(6) / 10
        times_s[3] += jump_s
        fills = _fills(_run(recognizer, how, times_s))
        assert isinstance(fills.pop(3), str)
        assert fills == [1, 2, 3, 4, 4]  # the slot of the refused frame repeats its neighbour

    def test_of_the_clock_costs_one_frame_and_the_window(self, recognizer: Recognizer, how: str, jump_s: float) -> None:
        times_s = _EPOCH_S + np.arange(8) / 10
        times_s[3:] += jump_s
        found = _run(recognizer, how, times_s)
        fills = _fills(found)
        assert isinstance(fills.pop(3), str)
        assert fills == [1, 2, 3, 1, 2, 3, 4]
        if how == "video":
            last = found[-1]
            assert isinstance(last, ExpressionEstimate)
            assert (last.track_id, last.driver) == (2, True)


@pytest.mark.parametrize("how", ["stream", "video"])
class TestUnits:
    @pytest.mark.parametrize("unit_s", [1e3, 1e6, 1e9])
    def test_milli_micro_and_nanoseconds_are_refused(self, recognizer: Recognizer, how: str, unit_s: float) -> None:
        found = _run(recognizer, how, [index / 30 * unit_s for index in range(10)])
        reasons = [each for each in found if isinstance(each, str)]
        assert found[3:] == reasons[-7:]
        assert all("convert it to seconds" in reason for reason in reasons)

    def test_seconds_after_them_are_taken(self, recognizer: Recognizer, how: str) -> None:
        found = _run(recognizer, how, [*(index * 33.0 for index in range(6)), *(5 + index / 10 for index in range(5))])
        assert [isinstance(each, str) for each in found[-5:]] == [True, False, False, False, False]

    def test_a_pause_of_hours_is_none_either(self, recognizer: Recognizer, how: str) -> None:
        found = _run(recognizer, how, [0.0, 0.1, 30_000.0, 30_000.1])
        assert _fills(found) == [1, 2, 1, 2]

    def test_repeated_times_cost_the_repetitions(self, recognizer: Recognizer, how: str) -> None:
        found = _run(recognizer, how, [1.0, 1.0, 1.0, 1.1])
        assert [isinstance(each, str) for each in found] == [False, True, True, False]
        assert "repeated" in str(found[1])


def test_a_slow_camera_is_not_taken_for_milliseconds() -> None:
    now_s = 0.0
    clock = FrameClock(now=lambda: now_s)
    for _ in range(8):
        clock.accept(clock.check(100 + now_s))
        now_s += 3.0


def test_reset_forgets_the_time(recognizer: Recognizer) -> None:
    video, frame, box = VideoRecognizer(recognizer), np.zeros((60, 80), np.uint8), [(10, 10, 50, 50)]
    first = video.process(frame, timestamp_s=100.0, boxes=box).estimates[0]
    video.reset()
    again = video.process(frame, timestamp_s=3.0, boxes=box).estimates[0]
    assert (first.track_id, again.track_id) == (1, 2)
    stream = recognizer.stream()
    stream.update(tiny_frames(1)[0], timestamp_s=100.0)
    stream.reset()
    assert stream.update(tiny_frames(1)[0], timestamp_s=3.0).window_fill == 1 / WINDOW
