from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from fer_edge.core.errors import DataError, FerEdgeError
from fer_edge.demo.drawn_source import open_any_source
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
    with pytest.raises(DataError, match="got no video or image"):
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
        }.get(key, 0.0)

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

    def test_a_camera_is_lost_after_a_run_of_failed_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera([99_800, 99_833]))
        with open_source("rtsp://somewhere") as frames:
            assert frames.live
            assert len(list(frames)) == 2
            assert "gives no more frames" in (frames.lost or "")

    def test_a_camera_goes_on_after_failed_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stutters(Camera):
            reads = 0

            def read(self) -> tuple[bool, np.ndarray | None]:
                self.reads += 1
                return super().read() if self.reads % 4 == 0 else (False, None)

        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Stutters([99_800, 99_833, 99_866]))
        with open_source("/dev/video0") as frames:
            assert [frame.timestamp_s for frame in frames] == [99.8, 99.833, 99.866]
            assert frames.skipped == 9

    def test_a_camera_whose_reads_block_is_lost_after_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([100.0, 100.0, 100.0, *(100.0 + 6 * step for step in range(1, 9))])
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Camera([99_800]))
        with open_source("/dev/video0") as frames:
            assert len(list(frames)) == 1
            assert frames.lost


@pytest.mark.parametrize("spec", ["9" * 11, "x" * 300])
def test_names_that_no_system_knows(spec: str) -> None:
    with pytest.raises(FerEdgeError, match=f"{spec}"):
        open_source(spec)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `tmp_path`."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=tmp_path))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def damaged(video: str, to: Path, frames: set[int]) -> Path:
    """Write a Motion JPEG AVI with zeros in place of some frames' data."""
    data = bytearray(Path(video).read_bytes())
    for index, found in enumerate(re.finditer(rb"00dc(....)\xff\xd8", bytes(data), re.DOTALL)):
        if index in frames:
            size = int.from_bytes(found[1], "little")
            data[found.start() + 8 : found.start() + 8 + size] = bytes(size)
    to.write_bytes(data)
    return to


class TestDamage:
    @pytest.mark.parametrize("frames", [{0}, {2}, {1, 3}, {0, 1, 2}, set(range(3, 45))])
    @pytest.mark.parametrize("place", ["file", "url", "http"])
    def test_reading_goes_on_after_damaged_frames(
        self, tmp_path: Path, address: str, place: str, frames: set[int]
    ) -> None:
        writer = cv2.VideoWriter(str(tmp_path / "whole.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for image in np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), dtype=np.uint8):
            writer.write(image)
        writer.release()
        path = damaged(str(tmp_path / "whole.avi"), tmp_path / "damaged.avi", frames)
        spec = {"file": str(path), "url": path.as_uri(), "http": f"{address}/damaged.avi"}[place]
        with open_source(spec) as source:
            times = [frame.timestamp_s for frame in source]
        assert times == pytest.approx([index / 10 for index in range(50) if index not in frames])
        assert (source.skipped, source.frames, source.kind, source.lost) == (len(frames), 50, "file", None)

    def test_a_recording_at_an_address_is_the_same_every_time(self, video: str, address: str) -> None:
        runs = []
        for _ in range(2):
            with open_source(f"{address}/noise.avi") as source:
                runs.append([frame.timestamp_s for frame in source])
        assert runs[0] == runs[1] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


NAMES = [
    "12:30.avi",
    "http:x.avi",
    "a ! b.avi",
    "100%.avi",
    "frame_%03d.avi",
    "a?b#c.avi",
    "synthetic:happy",
    "rtsp:",
    "-",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_exists_is_read_whatever_its_name_means(
    video: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copy(video, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for spec in (name, str(tmp_path / name), (tmp_path / name).as_uri()):
        with open_any_source(spec) as source:
            assert (source.kind, len(list(source))) == ("file", 5)


def with_pixel_aspect(path: Path, wide: int, high: int) -> Path:
    """Add a `pasp` box to an MPEG-4 file whose index follows its data."""
    data = path.read_bytes()
    entry = data.index(b"mp4v", data.index(b"stsd")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    box = (16).to_bytes(4, "big") + b"pasp" + wide.to_bytes(4, "big") + high.to_bytes(4, "big")
    data = bytearray(data[:end] + box + data[end:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v"):
        start = bytes(data).index(name, data.index(b"moov")) - 4
        size = int.from_bytes(data[start : start + 4], "big")
        data[start : start + 4] = (size + 16).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("wide", "high", "size"),
    [(1, 2, (96, 64)), (2, 1, (192, 32)), (16, 15, (102, 32)), (1, 1, (96, 32)), (0, 1, (96, 32)), (1000, 1, (96, 32))],
)
def test_pixels_are_made_square(tmp_path: Path, address: str, wide: int, high: int, size: tuple[int, int]) -> None:
    path = tmp_path / "wide.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 32))
    for _ in range(3):
        writer.write(np.zeros((32, 96, 3), np.uint8))
    writer.release()
    with_pixel_aspect(path, wide, high)
    for spec in (str(path), f"{address}/wide.mp4"):
        with open_source(spec) as source:
            assert [frame.image.shape[1::-1] for frame in source] == [size] * 3


class TestContent:
    """What a file is follows from its content."""

    @pytest.mark.parametrize("name", ["face.jfif", "face.JPE", "face", "face.mp4", "face.avi", "face.txt"])
    def test_a_photograph(self, tmp_path: Path, name: str) -> None:
        encoded = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
        turned = bytes.fromhex("ffe1 0022 457869660000 4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
        (tmp_path / name).write_bytes(encoded[:2] + turned + encoded[2:])
        with open_source(str(tmp_path / name)) as source:
            [frame] = source
        assert source.kind == "image"
        assert frame.image.shape == (64, 48, 3), "turned as its EXIF orientation says"

    @pytest.mark.parametrize("name", ["clip.png", "clip", "clip.jpg"])
    def test_a_video(self, tmp_path: Path, video: str, name: str) -> None:
        shutil.copy(video, tmp_path / name)
        with open_source(str(tmp_path / name)) as source:
            assert (source.kind, len(list(source))) == ("file", 5)

    @pytest.mark.parametrize(("name", "count"), [("one.gif", 1), ("three.gif", 3), ("one.avif", 1), ("one.webp", 1)])
    def test_formats_for_both(self, tmp_path: Path, name: str, count: int) -> None:
        images = pytest.importorskip("PIL.Image")
        first, *more = (images.fromarray(np.full((48, 64, 3), 40 * index, np.uint8)) for index in range(count))
        first.save(tmp_path / name, **({"save_all": True, "append_images": more, "duration": 200} if more else {}))
        (tmp_path / name).rename(tmp_path / "plain")
        with open_source(str(tmp_path / "plain")) as source:
            times = [frame.timestamp_s for frame in source]
        assert source.kind == ("image" if count == 1 else "file")
        assert times == pytest.approx([0.2 * index for index in range(count)])
