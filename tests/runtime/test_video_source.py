from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fer_edge.core.errors import DataError, FerEdgeError
from fer_edge.runtime.video_source import open_source


@pytest.fixture
def video(tmp_path: Path) -> str:
    """Five frames of noise at 10 a second."""
    path = str(tmp_path / "noise.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for image in np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8):
        writer.write(image)
    writer.release()
    return path


@pytest.mark.parametrize("old", [False, True])
def test_a_file_is_read_also_by_an_opencv_without_log_levels(
    old: bool, video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cv2.utils.logging` is missing in OpenCV 4.8.0, which JetPack 6 brings, and before."""
    if old:
        monkeypatch.setattr(cv2, "utils", SimpleNamespace())
    with open_source(video) as frames:
        assert [round(frame.timestamp_s, 3) for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.02)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(DataError, match="OpenCV cannot read it as a video"):
        open_source(str(broken))


class Camera:
    """What `cv2.VideoCapture` shows of a camera: frames, the driver's times of them in ms, then nothing more."""

    def __init__(self, stamps_ms: list[float], *, backend: str = "V4L2", count: float = -1.0) -> None:
        self.stamps_ms, self.backend, self.count = stamps_ms, backend, count
        self.taken = -1

    def isOpened(self) -> bool:
        return True

    def getBackendName(self) -> str:
        return self.backend

    def get(self, key: int) -> float:
        return {
            cv2.CAP_PROP_FPS: 30.0,
            cv2.CAP_PROP_POS_MSEC: self.stamps_ms[max(0, self.taken)],
            cv2.CAP_PROP_FRAME_COUNT: self.count,
        }[key]

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.taken + 1 == len(self.stamps_ms):
            return False, None
        self.taken += 1
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        pass


class TestCamera:
    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)

    def times_s(self, monkeypatch: pytest.MonkeyPatch, camera: Camera) -> list[float]:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: camera)
        with open_source("/dev/video0") as frames:
            return [frame.timestamp_s for frame in frames]

    def test_frames_have_the_drivers_times(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those in the driver's queue are older than the moment they are read in; none is as old as the one before."""
        found = self.times_s(monkeypatch, Camera([99_800, 99_833, 99_833]))
        assert found[:2] == [99.8, 99.833]
        assert 99.833 < found[2] < 99.834

    @pytest.mark.parametrize("stamps_ms", [[0.0, 33.0], [1.7e12, 1.7e12 + 33], [33.0, 66.0]])
    def test_a_driver_on_another_clock_is_not_believed(
        self, monkeypatch: pytest.MonkeyPatch, stamps_ms: list[float]
    ) -> None:
        assert self.times_s(monkeypatch, Camera(stamps_ms)) == pytest.approx([100, 100], abs=1e-5)

    def test_a_position_in_a_stream_is_no_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.times_s(monkeypatch, Camera([99_800.0], backend="FFMPEG")) == [100.0]

    @pytest.mark.parametrize(("count", "lost"), [(-1.0, True), (2.0, False)])
    def test_an_end_is_a_loss_unless_it_was_stated(
        self, monkeypatch: pytest.MonkeyPatch, count: float, lost: bool
    ) -> None:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera([99_800, 99_833], count=count))
        with open_source("rtsp://somewhere/film") as frames:
            assert frames.lost is None
            assert len(list(frames)) == 2
            assert ("gives no more frames" in (frames.lost or "")) is lost


@pytest.mark.parametrize("spec", ["9" * 11, "x" * 300])
def test_names_that_no_system_knows(spec: str) -> None:
    with pytest.raises(FerEdgeError, match=f"{spec}"):
        open_source(spec)
