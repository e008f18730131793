"""Frames from a source to a live recogniser: a camera that is lost and comes back, over and over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_bundle

from fer_edge.core.errors import DataError
from fer_edge.runtime.frame_reader import FrameReader
from fer_edge.runtime.live import LiveRecognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveRecognizer]:
    with LiveRecognizer(tiny_bundle(tmp_path / "bundle").path, detector=None) as opened:
        yield opened


def camera(frames: int, *, fault: Exception | None = None) -> VideoSource:
    """A camera that gives some frames and is then lost."""

    def read() -> Iterator[SourceFrame]:
        for _ in range(frames):
            yield SourceFrame(image=np.zeros((48, 64, 3), np.uint8), timestamp_s=time.monotonic())
        if fault is not None:
            raise fault
        source.lost = "unplugged"

    source = VideoSource(read(), name="0", kind="camera", frame_rate=30.0)
    return source


def test_pauses_grow_up_to_a_limit_and_start_over_with_a_frame(live: LiveRecognizer) -> None:
    waits: list[float] = []
    attempts = iter([DataError("not there")] * 6 + [camera(1), camera(0), camera(1, fault=DataError("torn out"))])

    def reopen() -> VideoSource:
        attempt = next(attempts, KeyboardInterrupt())
        if isinstance(attempt, BaseException):
            raise attempt
        return attempt

    reader = FrameReader(camera(1), live, reopen=reopen, whole_frame=True, wait=waits.append)
    with pytest.raises(KeyboardInterrupt), reader:
        states = [result.state for result in live.estimates()]
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 0.5, 1, 0.5]
    assert states[-1] == "FAILED"
    health = live.health()
    assert (health.reopened, health.pushed) == (2, 3)
    assert [reason.because for reason in health.reasons if reason.name == "source"] == [
        "torn out; it is being opened again"
    ]


def test_without_a_way_back_the_source_ends(live: LiveRecognizer) -> None:
    source = camera(1)
    with FrameReader(source, live, whole_frame=True):
        results = [result for result in live.estimates() if result.token]
    assert len(results) == 1
    assert source.lost == "unplugged"


def test_what_ends_the_reading_is_raised(live: LiveRecognizer) -> None:
    with pytest.raises(ZeroDivisionError), FrameReader(camera(1, fault=ZeroDivisionError()), live, whole_frame=True):
        list(live.estimates())
