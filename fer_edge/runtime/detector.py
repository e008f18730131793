"""Face detection: the interface of a detector, how its boxes become crops, and OpenCV's Haar cascade."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fer_edge.core.cascade import CASCADE_PIXELS, load_cascade
from fer_edge.core.errors import FrameError, InputError
from fer_edge.core.preprocess import check_image, to_grey
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import number, whole_number
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["CropGeometry", "FaceDetector", "FaceFinder", "FoundFaces", "HaarDetector"]


@dataclass(frozen=True, kw_only=True)
class CropGeometry:
    """How the boxes of one detector become the framing of the training faces.

    Attributes:
        scale: side of the crop over the side of the box.
        shift_x: displacement of the centre to the right, as a fraction of the box's width.
        shift_y: displacement of the centre downwards, as a fraction of the box's height.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> from fer_edge.runtime import CropGeometry
        >>> CropGeometry(scale=1.5).apply((100.0, 100.0, 140.0, 140.0))
        (90.0, 90.0, 150.0, 150.0)
    """

    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    def __post_init__(self) -> None:
        number("scale", self.scale)
        number("shift_x", self.shift_x, positive=False)
        number("shift_y", self.shift_y, positive=False)

    def apply(self, box_xyxy: BoxXyxy) -> BoxXyxy:
        """Return the box to cut for a detector's box."""
        if self == _IDENTITY:
            return box_xyxy
        left, top, right, bottom = box_xyxy
        width, height = right - left, bottom - top
        x, y = (left + right) / 2 + self.shift_x * width, (top + bottom) / 2 + self.shift_y * height
        half_width, half_height = self.scale * width / 2, self.scale * height / 2
        return x - half_width, y - half_height, x + half_width, y + half_height


_IDENTITY = CropGeometry()


class FaceDetector(Protocol):
    """A face detector; implement `detect` to use your own in `VideoRecognizer`.

    Two class attributes are optional: ``geometry``, a `CropGeometry` (the boxes as they are by default), and ``grey``
    (False by default): True for a detector that reads grey frames, which are then converted once for it and the crops.

    Example:
        >>> from fer_edge.runtime import Recognizer, VideoRecognizer
        >>> import numpy as np
        >>> class Fixed:
        ...     def detect(self, image):
        ...         return [(40.0, 20.0, 140.0, 120.0)]
        >>> with Recognizer("nano") as recognizer:
        ...     video = VideoRecognizer(recognizer, detector=Fixed())
        ...     len(video.process(np.zeros((160, 200, 3), np.uint8), timestamp_s=0.0).estimates)
        1
    """

    def detect(self, image: Uint8) -> Sequence[BoxXyxy]:
        """Find faces: boxes (left, top, right, bottom) in pixels of uint8 (H, W) grey or (H, W, 3) BGR."""


class HaarDetector:
    """OpenCV's frontal-face cascade (Viola and Jones 2001), on a frame shrunk to a bounded size.

    Use one detector per thread: OpenCV's cascades cannot be shared.

    Args:
        min_face: side of the smallest face to find, as a fraction of the frame's shorter side.
        longest_side: frames are shrunk to this many pixels first; the cost grows with its square.
        scale_step: ratio between successive face sizes.
        min_neighbours: overlapping hits required for a face; a higher value gives fewer false faces and more misses.

    Raises:
        InputError: a value outside its range.
        SessionError: this OpenCV has no cascades.
        MissingPackageError: OpenCV is not installed.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import HaarDetector
        >>> HaarDetector(min_face=0.2).detect(np.zeros((240, 320, 3), np.uint8))
        ()
    """

    grey = True
    geometry = _IDENTITY

    def __init__(
        self, *, min_face: float = 0.15, longest_side: int = 480, scale_step: float = 1.1, min_neighbours: int = 5
    ) -> None:
        self._min_face = number("min_face", min_face)
        self._longest_side = whole_number("longest_side", longest_side, least=2 * CASCADE_PIXELS)
        self._scale_step = number("scale_step", scale_step)
        self._min_neighbours = whole_number("min_neighbours", min_neighbours, least=0)
        if self._min_face > 1:
            raise InputError(f"min_face: got {min_face}, expected above 0, at most 1")
        if self._scale_step <= 1:
            raise InputError(f"scale_step: got {scale_step}, expected above 1")
        self._cascade = load_cascade()

    def detect(self, image: Uint8) -> tuple[BoxXyxy, ...]:
        """Find the faces of one frame, largest first.

        Args:
            image: uint8 (H, W) grey or (H, W, 3) BGR.

        Returns:
            Boxes (left, top, right, bottom) in the frame's pixels.

        Raises:
            FrameError: another type or shape.
        """
        import cv2

        grey: Any = to_grey(image)
        rows, columns = grey.shape
        shrink = min(1.0, self._longest_side / max(rows, columns))
        if shrink < 1:
            size = (max(1, round(columns * shrink)), max(1, round(rows * shrink)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        smallest = max(CASCADE_PIXELS, round(self._min_face * min(grey.shape)))
        found = self._cascade.detectMultiScale(
            cv2.equalizeHist(grey),
            scaleFactor=self._scale_step,
            minNeighbors=self._min_neighbours,
            minSize=(smallest, smallest),
        )
        across, down = columns / grey.shape[1], rows / grey.shape[0]
        boxes = [
            (float(x * across), float(y * down), float((x + w) * across), float((y + h) * down)) for x, y, w, h in found
        ]
        return tuple(sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1])))


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFaces:
    """The faces of one frame.

    Attributes:
        image: the frame, uint8 (H, W, 3) BGR, or (H, W) where it was given in grey or converted for the detector.
        boxes: finite boxes in pixels.
        geometry: how these boxes are cut.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import FoundFaces
        >>> FoundFaces(image=np.zeros((480, 640), np.uint8), boxes=((10.0, 20.0, 90.0, 100.0),)).size
        (640, 480)
    """

    image: Uint8
    boxes: tuple[BoxXyxy, ...]
    geometry: CropGeometry = _IDENTITY

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frame in pixels."""
        return self.image.shape[1], self.image.shape[0]


class FaceFinder:
    """Boxes of a frame's faces, from the caller or from a detector.

    Args:
        detector: `HaarDetector`, created at the first frame without boxes, where None.

    Raises:
        InputError: the detector has no method `detect`.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import FaceFinder
        >>> FaceFinder().find(np.zeros((240, 320, 3), np.uint8)).boxes
        ()
    """

    def __init__(self, detector: FaceDetector | None = None) -> None:
        if detector is not None and not callable(getattr(detector, "detect", None)):
            raise InputError(f"detector: got {type(detector).__name__}, expected an object with a method detect(image)")
        self._detector = detector

    def find(self, frame: Uint8, boxes: Sequence[BoxXyxy] | None = None) -> FoundFaces:
        """Return the given boxes, or run the detector and drop boxes that are not finite.

        Args:
            frame: uint8 (H, W) grey or (H, W, 3) BGR.
            boxes: the faces' boxes where they are known; an array (N, 4) is accepted.

        Raises:
            FrameError: a frame of another type or shape, or a box that is not four numbers, or a given one not finite.
            SessionError, MissingPackageError: there is no detector on this machine (`HaarDetector`).
        """
        check_image(frame)
        if boxes is not None:
            given = _plain_boxes(boxes)
            for box in given:
                if not all(map(math.isfinite, box)):
                    raise FrameError(f"boxes: got {box}, expected finite pixels")
            return FoundFaces(image=frame, boxes=given)
        if self._detector is None:
            self._detector = HaarDetector()
        image = to_grey(frame) if getattr(self._detector, "grey", False) else frame
        found = _plain_boxes(self._detector.detect(image))
        finite = tuple(box for box in found if all(map(math.isfinite, box)))
        return FoundFaces(image=image, boxes=finite, geometry=getattr(self._detector, "geometry", _IDENTITY))


def _plain_boxes(boxes: Any) -> tuple[BoxXyxy, ...]:
    try:
        rows = [tuple(map(float, box)) for box in boxes]
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"boxes: got {boxes!r}, expected four numbers each: left, top, right, bottom") from error
    for row in rows:
        if len(row) != 4:
            raise FrameError(f"boxes: got {row}, expected four numbers each: left, top, right, bottom")
    return tuple((row[0], row[1], row[2], row[3]) for row in rows)
