"""Video sources: a file, a camera, a photograph."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from fer_edge.core.errors import DataError, InputError, require
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["SourceFrame", "VideoSource", "open_source"]

_IMAGES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
_DEFAULT_RATE: Final = 30.0
_OLDEST_FIRST_FRAME_S: Final = 10.0  # an older time of a camera's first frame is of another clock
_TICK_S: Final = 1e-6  # between two frames that a driver gives the same time


@dataclass(frozen=True, kw_only=True)
class SourceFrame:
    """One frame.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        timestamp_s: of a file, seconds from its start. Of a camera, a time of `time.monotonic`: the capture time where
            V4L2 (``0``, ``/dev/video0``) gives it, else the time of reading, which the camera's network or pipeline
            delays.
        boxes: the faces' boxes where the source knows them, else None.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import SourceFrame
        >>> SourceFrame(image=np.zeros((480, 640, 3), np.uint8), timestamp_s=0.5).boxes is None
        True
    """

    image: Uint8
    timestamp_s: float
    boxes: tuple[BoxXyxy, ...] | None = None


class VideoSource:
    """Frames in order; a context manager that is iterated once. `open_source` opens one; or give frames of your own.

    Attributes:
        name: the source as the user gave it.
        kind: ``"file"``, ``"camera"``, ``"image"`` or ``"synthetic"``.
        frame_rate: frames per second, as the file or the camera states it.
        frames: number of frames, None where it is not known beforehand.
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
        self.lost: str | None = None
        self._frames = frames
        self._capture = capture

    @property
    def live(self) -> bool:
        """Whether frames arrive as they are captured, without an end."""
        return self.kind == "camera"

    def __iter__(self) -> Iterator[SourceFrame]:
        return self._frames

    def close(self) -> None:
        """Release the file or the camera; a second call does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_source(spec: str) -> VideoSource:
    """Open a video source.

    Args:
        spec: a video file; a photograph; a camera's number (``"0"``), its device (``/dev/video0``), a network camera's
            address (``rtsp://...``) or a GStreamer pipeline (``"nvarguscamerasrc ! ... ! appsink"``, which needs an
            OpenCV with GStreamer, such as JetPack's).

    Raises:
        InputError: an argument that is not text, or no such file.
        DataError: a file or camera that OpenCV cannot read.
        MissingPackageError: OpenCV is not installed.
    """
    check_type("source", spec, str, "a file, a camera's number, device or address, or a GStreamer pipeline")
    cv2 = require("cv2", needed_by="reading video", extra="cpu")
    if spec.isdecimal() or spec.startswith("/dev/video") or "://" in spec or " ! " in spec:
        return _open_camera(cv2, spec)
    path = Path(spec)
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise InputError(f"no video or image at {spec!r}; expected a camera's number or a file that exists")
    return _open_image(cv2, path) if path.suffix.lower() in _IMAGES else _open_file(cv2, path)


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


def _frame_rate(cv2: Any, capture: Any) -> float:
    stated = float(capture.get(cv2.CAP_PROP_FPS))
    return stated if 0 < stated < 1000 else _DEFAULT_RATE


def _open_file(cv2: Any, path: Path) -> VideoSource:
    capture = _open_capture(cv2, str(path))
    if not capture.isOpened():
        raise DataError(f"{path}: OpenCV cannot read it as a video; convert it to H.264 in MP4, for example")
    rate = _frame_rate(cv2, capture)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames() -> Iterator[SourceFrame]:
        last_s: float | None = None
        while True:
            read, image = capture.read()
            if not read:
                if last_s is None:
                    raise DataError(f"{path}: OpenCV reads no frame of it; convert it to H.264 in MP4, for example")
                return
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if last_s is not None and not time_s > last_s:  # containers without times give 0 for every frame
                time_s = last_s + 1 / rate
            last_s = time_s
            yield SourceFrame(image=image, timestamp_s=time_s)

    return VideoSource(
        frames(), name=str(path), kind="file", frame_rate=rate, count=count if count > 0 else None, capture=capture
    )


def _open_camera(cv2: Any, spec: str) -> VideoSource:
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
        capture = _open_capture(cv2, *place)
    except (cv2.error, OverflowError) as error:  # a number that is no C int
        raise DataError(closed) from error
    if not capture.isOpened():
        raise DataError(closed)

    def frames() -> Iterator[SourceFrame]:
        stamped = capture.getBackendName() == "V4L2"
        last_s: float | None = None
        while True:
            read, image = capture.read()
            if not read:
                if last_s is None:
                    raise DataError(f"the camera {spec!r} gives no frame; is it connected and free?")
                if capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0:  # a film at an address has an end
                    source.lost = f"the camera {spec!r} gives no more frames; is it still connected?"
                return
            now_s = time.monotonic()
            taken_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if last_s is None:
                stamped = stamped and now_s - _OLDEST_FIRST_FRAME_S < taken_s <= now_s
            time_s = taken_s if stamped else now_s
            last_s = time_s if last_s is None else max(time_s, last_s + _TICK_S)
            yield SourceFrame(image=image, timestamp_s=last_s)

    source = VideoSource(frames(), name=spec, kind="camera", frame_rate=_frame_rate(cv2, capture), capture=capture)
    return source


def _open_image(cv2: Any, path: Path) -> VideoSource:
    # Through bytes, because cv2.imread neither reports why it fails nor accepts every path.
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise DataError(f"{path} is not an image that OpenCV can read; convert it to PNG or JPEG")
    frame = SourceFrame(image=image, timestamp_s=0.0)
    return VideoSource(iter([frame]), name=str(path), kind="image", frame_rate=_DEFAULT_RATE, count=1)
