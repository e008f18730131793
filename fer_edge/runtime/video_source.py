"""Video sources: a file, a camera, a photograph."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import numpy as np

from fer_edge.core.errors import DataError, InputError, require
from fer_edge.core.images import decode_image
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.one_process import OneProcess

__all__ = ["SourceFrame", "VideoSource", "open_source"]

_ISO_PHOTOGRAPHS: Final = (b"ftypavif", b"ftypheic", b"ftypmif1")
_DEFAULT_RATE: Final = 30.0
_OLDEST_FIRST_FRAME_S: Final = 10.0  # an older time of a camera's first frame is of another clock
_TICK_S: Final = 1e-6  # between two frames that a driver gives the same time
_MOST_FAILURES: Final = 300  # reads in a row that may fail before a source has ended
_SILENCE_S: Final = 10.0  # a camera whose reads fail for longer is lost
_MOST_ASPECT: Final = 8.0  # of a pixel; what states more is damaged


@dataclass(frozen=True, kw_only=True)
class SourceFrame:
    """One frame.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        timestamp_s: of a file, seconds from its start. Of a camera, a time of `time.monotonic`: the capture time where
            V4L2 (``0``, ``/dev/video0``) gives it, else the time of reading, which the camera's network or pipeline
            delays.
        boxes: the faces' boxes where the source knows them, else None.
        name: the file of a photograph among several, else None.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import SourceFrame
        >>> SourceFrame(image=np.zeros((480, 640, 3), np.uint8), timestamp_s=0.5).boxes is None
        True
    """

    image: Uint8
    timestamp_s: float
    boxes: tuple[BoxXyxy, ...] | None = None
    name: str | None = None

    @property
    def whole_box(self) -> tuple[BoxXyxy, ...]:
        """The box of the whole frame, for frames that are face crops."""
        rows, columns = self.image.shape[:2]
        return ((0.0, 0.0, float(columns), float(rows)),)


class VideoSource(OneProcess):
    """Frames in order; a context manager that is iterated once. `open_source` opens one; or give frames of your own.

    Attributes:
        name: the source as the user gave it.
        kind: ``"file"``, ``"camera"``, ``"image"`` or ``"synthetic"``.
        frame_rate: frames per second, as the file or the camera states it.
        frames: number of frames, None where it is not known beforehand.
        skipped: reads that failed and were followed by a frame: damaged or lost frames.
        lost: why a camera gives no more frames, once it does; None for a file, which ends.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import SourceFrame, VideoSource
        >>> drawn = (SourceFrame(image=np.zeros((48, 64, 3), np.uint8), timestamp_s=i / 10) for i in range(3))
        >>> with VideoSource(drawn, name="mine", kind="file", frame_rate=10.0) as source:
        ...     [frame.timestamp_s for frame in source]
        [0.0, 0.1, 0.2]
    """

    def __init__(
        self,
        frames: Iterator[SourceFrame],
        *,
        name: str,
        kind: Literal["file", "camera", "image", "synthetic"],
        frame_rate: float,
        count: int | None = None,
        capture: Any = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.frame_rate = frame_rate
        self.frames = count
        self.skipped = 0
        self.lost: str | None = None
        self._frames = frames
        self._capture = capture

    @property
    def live(self) -> bool:
        """Whether frames arrive as they are captured, without an end."""
        return self.kind == "camera"

    def __iter__(self) -> Iterator[SourceFrame]:
        self.check_process()
        return self._frames

    def close(self) -> None:
        """Release the file or the camera; a second call does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def abandon(self) -> None:
        """Leave the file or camera to the thread that reads it, which may hang in it; `close` then does nothing."""
        self._capture = None

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_source(spec: str) -> VideoSource:
    """Open a video source.

    Args:
        spec: a video file or a photograph, told apart by content; a camera's number (``"0"``), its device
            (``/dev/video0``), the address of a network camera (``rtsp://...``) or of a recording
            (``http://.../drive.mp4``); or a GStreamer pipeline (``"nvarguscamerasrc ! ... ! appsink"``, which needs an
            OpenCV with GStreamer, such as JetPack's). A file that exists is never taken for an address or a pipeline.

    Raises:
        InputError: an argument that is not text, or no such file.
        DataError: a file or camera that OpenCV cannot read.
        MissingPackageError: OpenCV is not installed.
    """
    check_type("source", spec, str, "a file, a camera's number, device or address, or a GStreamer pipeline")
    cv2 = require("cv2", needed_by="reading video", extra="cpu")
    if spec.isdecimal():
        return _open_camera(cv2, spec, int(spec))
    path = Path(unquote(urlsplit(spec).path) if spec.startswith("file:") else spec)
    try:
        if path.is_file():
            return _open_file(cv2, path)
        device = path.is_char_device()
    except (OSError, ValueError) as error:
        if "://" not in spec and " ! " not in spec:  # which may be longer than a path
            raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        device = False
    if " ! " in spec:
        return _open_pipeline(cv2, spec)
    if device or spec.startswith("/dev/video") or ("://" in spec and not spec.startswith("file:")):
        return _open_camera(cv2, spec, spec)
    raise InputError(f"source: got {spec!r}, expected a file that exists, a camera's number or its address")


def _open_capture(cv2: Any, *place: Any) -> Any:
    """Open `cv2.VideoCapture` without OpenCV's messages on stderr; the caller reports the fault once."""
    logging = getattr(cv2.utils, "logging", None)  # missing in OpenCV <= 4.8.0 (JetPack 6)
    if logging is None:
        return cv2.VideoCapture(*place)
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(*place)
    finally:
        logging.setLogLevel(level)


def _open_file(cv2: Any, path: Path) -> VideoSource:
    place = str(path.absolute())  # OpenCV takes the part before a colon of a relative path for a protocol
    try:
        with path.open("rb") as file:
            head = file.read(12)
        animated = head.startswith(b"GIF8")
        if not animated and cv2.haveImageReader(place):
            return _image_source(path, decode_image(path.read_bytes(), where=str(path)))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    capture = _open_capture(cv2, place)
    if not capture.isOpened():
        raise DataError(f"{path}: got no video or image that OpenCV can read; convert it to H.264 in MP4, or to PNG")
    source = _capture_source(cv2, str(path), capture)
    if source.frames == 1 and (animated or head[4:] in _ISO_PHOTOGRAPHS):
        with source:
            return _image_source(path, next(iter(source)).image)
    return source


def _open_pipeline(cv2: Any, spec: str) -> VideoSource:
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise InputError(
            f"this OpenCV {cv2.__version__} has no GStreamer, which the pipeline needs; on a Jetson use JetPack's "
            "own OpenCV (a virtual environment made with --system-site-packages, without opencv-python in it)"
        )
    return _open_camera(cv2, spec, spec, cv2.CAP_GSTREAMER)


def _open_camera(cv2: Any, spec: str, *place: Any) -> VideoSource:
    try:
        capture = _open_capture(cv2, *place)
    except (cv2.error, OverflowError):  # a number that is no C int
        capture = None
    if capture is None or not capture.isOpened():
        raise DataError(f"the camera {spec!r} cannot be opened; is it there, free, and readable for this user?")
    return _capture_source(cv2, spec, capture, camera=True)


def _capture_source(cv2: Any, name: str, capture: Any, *, camera: bool = False) -> VideoSource:
    """Return the source of an open capture; at an address, a stated number of frames means a recording."""
    stated = float(capture.get(cv2.CAP_PROP_FPS))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    source = VideoSource(
        iter(()),
        name=name,
        kind="camera" if camera and count <= 0 else "file",
        frame_rate=stated if 0 < stated < 1000 else _DEFAULT_RATE,
        count=count if count > 0 else None,
        capture=capture,
    )
    if source.live:
        source._frames = _camera_frames(cv2, source)
    else:
        frames = _file_frames(cv2, source)
        source._frames = itertools.chain([next(frames)], frames)  # a file without frames is refused when it is opened
    return source


def _file_frames(cv2: Any, source: VideoSource) -> Iterator[SourceFrame]:
    capture, last_s = source._capture, None
    for image, failures in _images(cv2, source):
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if last_s is not None and not time_s > last_s:  # containers without times give 0 for every frame
            time_s = last_s + (1 + failures) / source.frame_rate
        last_s = time_s
        yield SourceFrame(image=image, timestamp_s=time_s)
    if last_s is None:
        raise DataError(f"{source.name}: OpenCV reads no frame of it; convert it to H.264 in MP4, for example")


def _camera_frames(cv2: Any, source: VideoSource) -> Iterator[SourceFrame]:
    capture, last_s = source._capture, None
    stamped = capture.getBackendName() == "V4L2"
    for image, _ in _images(cv2, source):
        now_s = time.monotonic()
        taken_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if last_s is None:
            stamped = stamped and now_s - _OLDEST_FIRST_FRAME_S < taken_s <= now_s
        time_s = taken_s if stamped else now_s
        last_s = time_s if last_s is None else max(time_s, last_s + _TICK_S)
        yield SourceFrame(image=image, timestamp_s=last_s)
    if last_s is None:
        raise DataError(f"the camera {source.name!r} gives no frame; is it connected and free?")
    source.lost = f"the camera {source.name!r} gives no more frames; is it still connected?"


def _images(cv2: Any, source: VideoSource) -> Iterator[tuple[Uint8, int]]:
    """Read images with square pixels, each with the number of failed reads before it, up to a long run of failures."""
    capture, failures, read_s = source._capture, 0, time.monotonic()
    while failures < _MOST_FAILURES and not (source.live and time.monotonic() - read_s > _SILENCE_S):
        try:
            read, image = capture.read()
        except cv2.error:
            read = False
        if not read:  # damaged data, or the end: OpenCV does not tell which
            failures += 1
            continue
        source.skipped += failures
        yield _square(cv2, capture, image), failures
        failures, read_s = 0, time.monotonic()


def _square(cv2: Any, capture: Any, image: Uint8) -> Uint8:
    """Stretch an image whose pixels are not square, as the container states their aspect, along its short side."""
    wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if min(wide, high) <= 0 or wide == high or not 1 / _MOST_ASPECT <= wide / high <= _MOST_ASPECT:
        return image
    if capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180:  # OpenCV has turned the image
        wide, high = high, wide
    rows, columns = image.shape[:2]
    size = round(columns * max(1, wide / high)), round(rows * max(1, high / wide))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _image_source(path: Path, image: Uint8) -> VideoSource:
    frame = SourceFrame(image=image, timestamp_s=0.0)
    return VideoSource(iter([frame]), name=str(path), kind="image", frame_rate=_DEFAULT_RATE, count=1)
