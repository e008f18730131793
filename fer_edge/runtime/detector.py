"""Faces in a camera image, by the Haar cascade that OpenCV 4 brings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from fer_edge.core.cascade import CASCADE_PIXELS, load_cascade
from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import check_image
from fer_edge.core.types import Uint8
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["FaceDetector", "FaceFinder", "HaarDetector"]


class FaceDetector(Protocol):
    """Anything that finds faces; give your own to `VideoRecognizer`."""

    def detect(self, image: Uint8) -> Sequence[BoxXyxy]:
        """Boxes (left, top, right, bottom) in pixels of uint8 (H, W) grey or (H, W, 3) BGR."""


class HaarDetector:
    """OpenCV's frontal-face cascade (Viola and Jones 2001), on an image shrunk to a bounded size.

    One detector belongs to one thread: OpenCV's cascades cannot be shared.

    Args:
        min_face: shortest side of a face to look for, as a fraction of the image's shorter side.
        longest_side: images are shrunk to this many pixels first; the cost grows with its square.
        scale_step: ratio between the sizes looked for.
        min_neighbours: overlapping hits that make a face; more are surer and miss more.

    Raises:
        InputError: a value outside its range.
        SessionError: this OpenCV has no cascades.
        MissingPackageError: OpenCV is not installed.
    """

    def __init__(
        self, *, min_face: float = 0.15, longest_side: int = 480, scale_step: float = 1.1, min_neighbours: int = 5
    ) -> None:
        if not 0 < min_face <= 1:
            raise InputError(f"min_face: got {min_face}, expected above 0, at most 1")
        if longest_side < 2 * CASCADE_PIXELS:
            raise InputError(f"longest_side: got {longest_side}, expected at least {2 * CASCADE_PIXELS} pixels")
        if not (math.isfinite(scale_step) and scale_step > 1):
            raise InputError(f"scale_step: got {scale_step}, expected above 1")
        if min_neighbours < 0:
            raise InputError(f"min_neighbours: got {min_neighbours}, expected 0 or more")
        self._min_face = min_face
        self._longest_side = longest_side
        self._scale_step = scale_step
        self._min_neighbours = min_neighbours
        self._cascade = load_cascade()

    def detect(self, image: Uint8) -> tuple[BoxXyxy, ...]:
        """Faces in one image, largest first.

        Args:
            image: uint8 (H, W) grey or (H, W, 3) BGR.

        Returns:
            Boxes (left, top, right, bottom) in the image's pixels.

        Raises:
            InputError: another type or shape.
        """
        check_image(image)
        import cv2

        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
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


class FaceFinder:
    """The faces' boxes of an image, from the caller or a detector, as plain finite numbers.

    Args:
        detector: finds faces; the Haar cascade of OpenCV 4, opened when first asked, where none is given.
    """

    def __init__(self, detector: FaceDetector | None = None) -> None:
        self._detector = detector

    def find(self, image: Uint8, boxes: Sequence[BoxXyxy] | None = None) -> tuple[BoxXyxy, ...]:
        """The boxes given, or where there are none those that the detector finds, less any that is not finite.

        Args:
            image: uint8 (H, W) grey or (H, W, 3) BGR.
            boxes: the faces' boxes where they are known; an array (N, 4) will do.

        Raises:
            InputError: a box that is not four numbers, or of those given one that is not finite.
            SessionError, MissingPackageError: no detector is to be had (`HaarDetector`).
        """
        if boxes is not None:
            given = tuple(map(_plain_box, boxes))
            for box in given:
                if not all(map(math.isfinite, box)):
                    raise InputError(f"boxes: got {box}, expected finite pixels")
            return given
        if self._detector is None:
            self._detector = HaarDetector()
        found = map(_plain_box, self._detector.detect(image))
        return tuple(box for box in found if all(map(math.isfinite, box)))


def _plain_box(box: Any) -> BoxXyxy:
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError) as error:
        raise InputError(f"boxes: got {box!r}, expected four numbers: left, top, right, bottom") from error
    return left, top, right, bottom
