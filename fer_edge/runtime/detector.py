"""Face detection: the interface of a detector, and how its boxes become crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fer_edge.core.errors import InputError
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import number
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.shipped_recipes import shipped_recipe

__all__ = ["CropGeometry", "Face", "FaceDetector", "SearchingDetector"]


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face in a frame.

    Attributes:
        box_xyxy: its box as if the head were upright, in pixels.
        tilt_deg: rotation of the head in the picture about the box's centre; positive is clockwise.

    Example:
        >>> from fer_edge.runtime import Face
        >>> Face(box_xyxy=(40.0, 20.0, 140.0, 120.0)).tilt_deg
        0.0
    """

    box_xyxy: BoxXyxy
    tilt_deg: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CropGeometry:
    """How the boxes of one detector become the framing of the training faces.

    `bench/crop_geometry.py` measures it; the shipped recipes ``haar`` and ``yunet`` hold the results.

    Attributes:
        scale: side of the crop over the longer side of the box.
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

    @classmethod
    def of(cls, detector: str) -> CropGeometry:
        """Load the shipped recipe of a detector: ``"haar"`` or ``"yunet"``.

        Raises:
            InputError: another name.
        """
        if detector not in ("haar", "yunet"):
            raise InputError(f"detector: got {detector!r}, expected 'haar' or 'yunet'")
        return shipped_recipe(cls, detector)

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

    Two attributes are optional: ``geometry``, a `CropGeometry` (the boxes as they are by default), and ``grey`` (False
    by default): True for a detector that reads grey frames, which are then converted once for it and the crops. A
    `SearchingDetector` also searches near a face.

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


class SearchingDetector(FaceDetector, Protocol):
    """A detector that can also search a part of its work, and near a face: far cheaper than whole frames.

    Attributes:
        parts: number of parts of about equal cost that `search` can do one by one.
    """

    parts: int

    def search(self, image: Uint8, *, part: int | None = None, tilt_deg: float = 0.0) -> Sequence[Face]:
        """Find faces in a whole frame, or do one part of that search; `tilt_deg` is the tilt to look for."""

    def search_near(self, image: Uint8, face: Face) -> Face | None:
        """Find a face again near its last box, at about its size, and near its tilt."""
