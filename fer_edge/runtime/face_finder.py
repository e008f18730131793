"""The faces of one frame: from the caller, or from a detector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fer_edge.core.errors import FrameError, InputError
from fer_edge.core.preprocess import PreprocessSpec, check_image, cut_face, to_grey
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.detector import CropGeometry, Face, FaceDetector
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.yunet_detector import YuNetDetector

__all__ = ["FaceFinder", "FoundFaces", "cut_tilted", "given_faces", "open_detector"]

_LONGEST_SIDE: Final = 2.0  # of a face's box, over the shorter side
_LEVEL_DEG: Final = 5.0  # smaller tilts are as common among the training faces


def open_detector(name: str) -> FaceDetector:
    """Open a detector by name: ``"haar"``, or ``"yunet:FILE"`` with the path of a YuNet model.

    Raises:
        InputError: another name, or no such file.
        SessionError, MissingPackageError: the detector is not available on this machine.

    Example:
        >>> from fer_edge.runtime import open_detector
        >>> type(open_detector("haar")).__name__
        'HaarDetector'
    """
    check_type("detector", name, str, "haar or yunet:FILE")
    kind, _, file = name.partition(":")
    if kind == "haar" and not file:
        return HaarDetector()
    if kind == "yunet" and file:
        return YuNetDetector(file)
    raise InputError(f"detector: got {name!r}, expected haar or yunet:FILE")


def cut_tilted(image: Uint8, face: Face, geometry: CropGeometry, spec: PreprocessSpec) -> Uint8:
    """Cut a detector's face in the framing of the training faces, rotated upright where it is tilted: `cut_face`.

    Raises:
        FrameError: a box without area, or outside the frame.
    """
    box = geometry.apply(face.box_xyxy)
    if abs(face.tilt_deg) < _LEVEL_DEG and spec.alignment == "none":
        return cut_face(image, box, spec)
    tilt = math.radians(face.tilt_deg)
    level = dataclasses.replace(spec, alignment="eyes")
    return cut_face(image, box, level, eyes=((0.0, 0.0), (math.cos(tilt), math.sin(tilt))))


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFaces:
    """The faces of one frame.

    Attributes:
        image: the frame, uint8 (H, W, 3) BGR, or (H, W) where it was given in grey or converted for the detector.
        faces: the faces, with finite boxes in pixels.
        geometry: how these boxes are cut.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import FoundFaces
        >>> FoundFaces(image=np.zeros((480, 640), np.uint8), faces=()).size
        (640, 480)
    """

    image: Uint8
    faces: tuple[Face, ...]
    geometry: CropGeometry = field(default_factory=CropGeometry)

    @property
    def boxes(self) -> tuple[BoxXyxy, ...]:
        """The faces' boxes."""
        return tuple(face.box_xyxy for face in self.faces)

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
        """Return the given boxes, or search the whole frame; boxes of a detector that are not finite are dropped.

        Args:
            frame: uint8 (H, W) grey or (H, W, 3) BGR.
            boxes: the faces' boxes where they are known (`given_faces`).

        Raises:
            FrameError: a frame of another type or shape, or boxes of another form than `given_faces` takes.
            SessionError, MissingPackageError: there is no detector on this machine (`HaarDetector`).
        """
        check_image(frame)
        if boxes is not None:
            return FoundFaces(image=frame, faces=given_faces(boxes, (frame.shape[1], frame.shape[0])))
        image = self.convert(frame)
        return FoundFaces(image=image, faces=self.search(image), geometry=self.geometry)

    @property
    def detector(self) -> FaceDetector:
        """The detector, created where none was given."""
        if self._detector is None:
            self._detector = HaarDetector()
        return self._detector

    @property
    def geometry(self) -> CropGeometry:
        """How the detector's boxes are cut."""
        return getattr(self.detector, "geometry", CropGeometry())

    def convert(self, frame: Uint8) -> Uint8:
        """Return the frame in the colours that the detector reads, converted at most once."""
        return to_grey(frame) if getattr(self.detector, "grey", False) else frame

    def search(self, image: Uint8, *, part: int | None = None, tilt_deg: float = 0.0) -> tuple[Face, ...]:
        """Search a whole frame, or do a part of that (`SearchingDetector`)."""
        search = getattr(self.detector, "search", None)
        if search is not None:
            return tuple(search(image, part=part, tilt_deg=tilt_deg))
        boxes = _plain_boxes(self.detector.detect(image))
        return tuple(Face(box_xyxy=box) for box in boxes if all(map(math.isfinite, box)))


def given_faces(boxes: Sequence[BoxXyxy], image_size: tuple[int, int]) -> tuple[Face, ...]:
    """Check the boxes of a caller; one that is not finite or outside the frame costs its own face only.

    Args:
        boxes: left, top, right, bottom in pixels of the frame; an array (N, 4) is accepted.
        image_size: width and height of the frame.

    Raises:
        FrameError: not four numbers each; or boxes in another form: fractions of the frame, x, y, width, height, or
            corners in another order.
    """
    given = _plain_boxes(boxes)
    for box in given:
        if (form := _other_form(box, image_size)) is not None:
            raise FrameError(f"boxes: got {box}, which {form}; expected pixels: left, top, right, bottom")
    return tuple(Face(box_xyxy=box) for box in given)


def _other_form(box: BoxXyxy, image_size: tuple[int, int]) -> str | None:
    """Recognise what a box was probably meant as, where it is no face's box in pixels."""
    (left, top, right, bottom), (columns, rows) = box, image_size
    if not all(map(math.isfinite, box)):
        return None
    if max(map(abs, box)) <= 1 < min(image_size):
        return f"looks like fractions of the frame; multiply by {columns} and {rows}"
    backwards = right <= left or bottom <= top
    longest = max(right - left, bottom - top) > _LONGEST_SIDE * min(right - left, bottom - top)
    as_size = right > 0 and bottom > 0 and max(right, bottom) <= _LONGEST_SIDE * min(right, bottom)
    if (backwards or longest) and as_size and left + right <= columns and top + bottom <= rows:
        return "looks like x, y, width, height; add x to the width and y to the height"
    if right < left or bottom < top:
        return "has its corners in another order"
    return None


def _plain_boxes(boxes: Any) -> tuple[BoxXyxy, ...]:
    try:
        rows = [tuple(map(float, box)) for box in boxes]
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"boxes: got {boxes!r}, expected four numbers each: left, top, right, bottom") from error
    for row in rows:
        if len(row) != 4:
            raise FrameError(f"boxes: got {row}, expected four numbers each: left, top, right, bottom")
    return tuple((row[0], row[1], row[2], row[3]) for row in rows)
