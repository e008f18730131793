"""OpenCV's Haar cascade as a detector: whole frames, and the neighbourhood of a face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from fer_edge.core.cascade import CASCADE_PIXELS, load_cascade
from fer_edge.core.errors import InputError, require
from fer_edge.core.preprocess import to_grey
from fer_edge.core.types import Array, Uint8
from fer_edge.runtime.arguments import number, whole_number
from fer_edge.runtime.detector import CropGeometry, Face
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.one_process import Reopened
from fer_edge.runtime.patch import cut_patch, overlap

__all__ = ["HaarDetector"]

_STEP: Final = 1.1  # ratio between successive face sizes
_FIRST_OCTAVE: Final = ((0, 1), (1, 2), (2, 4), (4, 8))  # parts of the first octave, in steps of size
_LARGE: Final = 0.6  # of the frame's shorter side: larger faces are searched in a padded frame
_PADDING: Final = 0.25  # the cascade needs a margin around a face that fills the frame
_NEAR_SIDE: Final = 96  # pixels of a local search's patch
_NEAR_MARGIN: Final = 0.35
_SAME: Final = 0.3  # overlap of two boxes of one face


class HaarDetector(Reopened):
    """OpenCV's frontal-face cascade (Viola and Jones 2001), in a frame, and near a face.

    The cascade accepts heads within about 12 degrees; the tilt of a face is that of the search that found it. Use one
    detector per thread: OpenCV's cascades cannot be shared.

    Args:
        min_face: side of the smallest face to find, as a fraction of the frame's shorter side; frames are
            shrunk until it has the cascade's size, so the cost falls with its square.
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
    parts = len(_FIRST_OCTAVE) + 2

    def __init__(self, *, min_face: float = 0.1, min_neighbours: int = 3) -> None:
        self._min_face = number("min_face", min_face)
        self._min_neighbours = whole_number("min_neighbours", min_neighbours, least=0)
        if self._min_face > 1:
            raise InputError(f"min_face: got {min_face}, expected above 0, at most 1")
        self._cascade = load_cascade()
        self.geometry = CropGeometry.of("haar")

    def detect(self, image: Uint8) -> tuple[BoxXyxy, ...]:
        """Find the upright faces of one frame, largest first.

        Args:
            image: uint8 (H, W) grey or (H, W, 3) BGR.

        Returns:
            Boxes (left, top, right, bottom) in the frame's pixels.

        Raises:
            FrameError: another type or shape.
        """
        boxes = [face.box_xyxy for face in self.search(image)]
        return tuple(sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1])))

    def search(self, image: Uint8, *, part: int | None = None, tilt_deg: float = 0.0) -> tuple[Face, ...]:
        """Find the faces of one frame with about a tilt, or do one of the search's `parts`, which are ranges of sizes.

        Raises:
            FrameError: another type or shape of image.
        """
        cv2 = require("cv2", needed_by="face detection", extra="cpu")
        grey = to_grey(image)
        shrink = min(1.0, CASCADE_PIXELS / (self._min_face * min(grey.shape)))
        found: list[Face] = []
        for octave, low, high in _passes(shrink * min(grey.shape), part):
            scale = shrink / 2**octave
            size = [max(1, round(side * scale)) for side in reversed(grey.shape)]
            small = cv2.equalizeHist(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))
            pad = round(_PADDING * min(size)) if high > _LARGE * min(size) else 0
            scene, back = _turned(small, pad=pad, tilt_deg=tilt_deg)
            for box in self._hits(scene, low, high):
                x, y = (back @ ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1.0)) / scale
                half = (box[2] - box[0]) / scale / 2
                moved = (float(x - half), float(y - half), float(x + half), float(y + half))
                if all(overlap(moved, other.box_xyxy) < _SAME for other in found):
                    found.append(Face(box_xyxy=moved, tilt_deg=tilt_deg))
        return tuple(found)

    def search_near(self, image: Uint8, face: Face) -> Face | None:
        """Find a face again near its last box, at about its size, and near its tilt; None where it is not found."""
        patch = cut_patch(to_grey(image), face, margin=_NEAR_MARGIN, side=_NEAR_SIDE, enlarge=False)
        side = patch.scale * (face.box_xyxy[2] - face.box_xyxy[0])
        cv2 = require("cv2", needed_by="face detection", extra="cpu")
        boxes = self._hits(cv2.equalizeHist(patch.image), 0.72 * side, 1.38 * side)
        faces = [Face(box_xyxy=patch.to_frame(box), tilt_deg=face.tilt_deg) for box in boxes]
        return max(faces, key=lambda each: overlap(each.box_xyxy, face.box_xyxy), default=None)

    def _hits(self, grey: Any, low: float, high: float) -> list[BoxXyxy]:
        if min(grey.shape) < CASCADE_PIXELS or high < CASCADE_PIXELS:
            return []
        found: Sequence[Sequence[int]] = self._cascade.detectMultiScale(
            grey,
            scaleFactor=_STEP,
            minNeighbors=self._min_neighbours,
            minSize=(int(low), int(low)),
            maxSize=(math.ceil(high), math.ceil(high)),
        )
        return [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in found]


def _passes(shorter: float, part: int | None) -> list[tuple[int, float, float]]:
    """Return the passes of a search, or of one part: octave, smallest and largest face in that octave's pixels.

    Each octave halves the picture, because the cascade searches faces above twice its size in steps half as wide.
    The first octave takes three quarters of the time, so it is four parts; the second is the fifth, the rest the last.
    """
    top = 2 * CASCADE_PIXELS * _STEP  # one size more than the octave's own: a face needs hits at neighbouring sizes
    octaves = max(1, math.ceil(math.log2(max(1.0, shorter / CASCADE_PIXELS))))
    passes = [(octave, float(CASCADE_PIXELS), top) for octave in range(octaves)]
    if part is None:
        return passes
    if part < len(_FIRST_OCTAVE):
        low, high = _FIRST_OCTAVE[part]
        return [(0, CASCADE_PIXELS * _STEP**low, CASCADE_PIXELS * _STEP**high)]
    return passes[1:2] if part == len(_FIRST_OCTAVE) else passes[2:]


def _turned(grey: Uint8, *, pad: int, tilt_deg: float) -> tuple[Uint8, Array]:
    """Pad and rotate a picture so that heads of a tilt are upright; returns it and the matrix (2, 3) back."""
    cv2 = require("cv2", needed_by="face detection", extra="cpu")
    rows, columns = grey.shape
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), tilt_deg, 1.0)
    matrix[:, 2] += pad
    back = cv2.invertAffineTransform(matrix)
    if not tilt_deg:
        return (cv2.copyMakeBorder(grey, *(pad,) * 4, cv2.BORDER_REPLICATE) if pad else grey), back
    size = (columns + 2 * pad, rows + 2 * pad)
    return cv2.warpAffine(grey, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), back
