"""Where frames come from: a video file, a camera, a photograph, drawn faces."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np

from fer_edge.core.errors import InputError, require
from fer_edge.core.labels import EXPRESSIONS, canonical_expression
from fer_edge.core.types import Uint8
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["SourceFrame", "VideoSource", "open_source"]

_IMAGES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
_DEFAULT_RATE: Final = 30.0
_JUST_NOW_S: Final = 10.0
"""A camera's first frame is not older than this."""
_TICK_S: Final = 1e-6
"""What parts two frames that a driver gives the same time."""
_SYNTHETIC_RATE: Final = 20.0
_SYNTHETIC_FRAMES: Final = 30  # of each expression
_SYNTHETIC_SIZE: Final = (480, 360)

Kind = Literal["file", "camera", "image", "synthetic"]


@dataclass(frozen=True, kw_only=True)
class SourceFrame:
    """One frame.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        timestamp_s: seconds from the start of a file. Of a camera a time of `time.monotonic`: when the driver took the
            frame, where V4L2 (``0``, ``/dev/video0``) says so, else when it was read, which is later by what the
            camera's network or pipeline holds back.
        boxes: the faces' boxes where the source knows them, else None.
    """

    image: Uint8
    timestamp_s: float
    boxes: tuple[BoxXyxy, ...] | None = None


class VideoSource:
    """Frames one after the other; a context manager, iterated once.

    Attributes:
        name: the source as the user gave it.
        kind: what it is.
        frame_rate: frames a second, as the file or the camera states it.
        frames: how many there are, None where that is not known before.
        lost: why a camera gives no more frames, once it does; None of a file, which ends, and before.
    """

    lost: str | None = None

    def __init__(
        self,
        frames: Iterator[SourceFrame],
        *,
        name: str,
        kind: Kind,
        frame_rate: float,
        count: int | None,
        capture: Any = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.frame_rate = frame_rate
        self.frames = count
        self._frames = frames
        self._capture = capture

    @property
    def live(self) -> bool:
        """Whether the frames come as they are taken, without an end."""
        return self.kind == "camera"

    def __iter__(self) -> Iterator[SourceFrame]:
        return self._frames

    def close(self) -> None:
        """Let go of the file or the camera; a second call does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(spec: str) -> VideoSource:
    """Open a source of frames.

    Args:
        spec: a video file; a photograph; a camera's number (``"0"``), its device (``/dev/video0``), a network camera's
            address (``rtsp://...``) or a GStreamer pipeline (``"nvarguscamerasrc ! ... ! appsink"``, needs an OpenCV
            with GStreamer, as JetPack's); or ``synthetic`` (all expressions, drawn) or ``synthetic:happy``.

    Raises:
        InputError: no such file, or nothing that OpenCV can read.
        MissingPackageError: OpenCV is not installed.
    """
    cv2 = require("cv2", needed_by="reading video", extra="cpu")
    word, _, rest = spec.partition(":")
    if word == "synthetic":
        return _synthetic(spec, rest)
    if spec.isdecimal() or spec.startswith("/dev/video") or "://" in spec or " ! " in spec:
        return _camera(cv2, spec)
    path = Path(spec)
    if not _is_file(path):
        hint = "a camera's number, 'synthetic' or a file that is there"
        raise InputError(f"no video or image at {spec!r}; expected {hint}")
    return _image(cv2, path) if path.suffix.lower() in _IMAGES else _file(cv2, path)


def _capture(cv2: Any, *place: Any) -> Any:
    """`cv2.VideoCapture` without OpenCV's own words on stderr: what is wrong is said once, by the caller."""
    logging = getattr(cv2.utils, "logging", None)  # OpenCV 4.5 of Ubuntu 22.04 lets nobody set it
    if logging is None:
        return cv2.VideoCapture(*place)
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(*place)
    finally:
        logging.setLogLevel(level)


def _is_file(path: Path) -> bool:
    """Whether a file stands there.

    Raises:
        InputError: the system does not let this user look, or takes no such name.
    """
    try:
        return path.is_file()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _file(cv2: Any, path: Path) -> VideoSource:
    capture = _capture(cv2, str(path))
    if not capture.isOpened():
        raise InputError(f"{path}: OpenCV cannot read it as a video; convert it to H.264 in MP4, for example")
    stated = capture.get(cv2.CAP_PROP_FPS)
    rate = stated if 0 < stated < 1000 else _DEFAULT_RATE
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[SourceFrame]:
        last_s: float | None = None
        while True:
            read, image = capture.read()
            if not read:
                if last_s is None:
                    raise InputError(f"{path} holds no frame that OpenCV can read")
                return
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if last_s is not None and not time_s > last_s:  # containers without times give 0 for every frame
                time_s = last_s + 1 / rate
            last_s = time_s
            yield SourceFrame(image=image, timestamp_s=time_s)

    return VideoSource(
        frames(), name=str(path), kind="file", frame_rate=rate, count=count if count > 0 else None, capture=capture
    )


def _camera(cv2: Any, spec: str) -> VideoSource:
    place: tuple[Any, ...] = (int(spec),) if spec.isdecimal() else (spec,)
    if " ! " in spec:
        if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
            raise InputError(
                f"this OpenCV {cv2.__version__} has no GStreamer, which the pipeline needs; on a Jetson use JetPack's "
                "own OpenCV (a virtual environment made with --system-site-packages, without opencv-python in it)"
            )
        place = (spec, cv2.CAP_GSTREAMER)
    closed = f"the camera {spec!r} cannot be opened; is it there, free, and readable for this user?"
    try:
        capture = _capture(cv2, *place)
    except cv2.error as error:  # a number that is no C int
        raise InputError(closed) from error
    if not capture.isOpened():
        raise InputError(closed)
    stated = capture.get(cv2.CAP_PROP_FPS)

    def frames() -> Iterator[SourceFrame]:
        stamped = capture.getBackendName() == "V4L2"
        last_s: float | None = None
        while True:
            read, image = capture.read()
            if not read:
                if last_s is None:
                    raise InputError(f"the camera {spec!r} gives no frame")
                if capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0:  # a film at an address has an end
                    source.lost = f"the camera {spec!r} gives no more frames; is it still connected?"
                return
            now_s = time.monotonic()
            taken_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if last_s is None:  # a driver on another clock, or on none, does not say that it was just now
                stamped = stamped and now_s - _JUST_NOW_S < taken_s <= now_s
            time_s = taken_s if stamped else now_s
            last_s = time_s if last_s is None else max(time_s, last_s + _TICK_S)
            yield SourceFrame(image=image, timestamp_s=last_s)

    rate = stated if 0 < stated < 1000 else _DEFAULT_RATE
    source = VideoSource(frames(), name=spec, kind="camera", frame_rate=rate, count=None, capture=capture)
    return source


def _image(cv2: Any, path: Path) -> VideoSource:
    # By way of the bytes, because cv2.imread neither tells why it fails nor takes every path.
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise InputError(f"{path} is not an image that OpenCV can read")
    frame = SourceFrame(image=image, timestamp_s=0.0)
    return VideoSource(iter([frame]), name=str(path), kind="image", frame_rate=_DEFAULT_RATE, count=1)


def _synthetic(spec: str, expression: str) -> VideoSource:
    from fer_edge.data.faces import synthetic_frames

    expressions = (canonical_expression(expression),) if expression else EXPRESSIONS
    count = len(expressions) * _SYNTHETIC_FRAMES
    drawn = synthetic_frames(expressions, frames=count, frame_rate=_SYNTHETIC_RATE, seed=0, size=_SYNTHETIC_SIZE)
    frames = (SourceFrame(image=each.image, timestamp_s=each.time_s, boxes=(each.box_xyxy,)) for each in drawn)
    return VideoSource(frames, name=spec, kind="synthetic", frame_rate=_SYNTHETIC_RATE, count=count)
