"""YuNet as a detector: a small network whose landmarks also give the head's tilt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import InputError, SessionError, require
from fer_edge.core.preprocess import check_image
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import number, whole_number
from fer_edge.runtime.detector import CropGeometry, Face
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.one_process import Reopened
from fer_edge.runtime.patch import cut_patch, overlap

__all__ = ["YuNetDetector"]

_NEAR_SIDE: Final = 96  # pixels of a local search's patch, one input size for all
_NEAR_MARGIN: Final = 0.4
_CANDIDATES: Final = 200
_SUPPRESSION: Final = 0.3


class YuNetDetector(Reopened):
    """YuNet (Wu et al. 2023) in OpenCV's `FaceDetectorYN`, on a frame shrunk to a bounded size.

    OpenCV's model zoo has the model file. Use one detector per thread.

    Args:
        model: the ONNX file.
        longest_side: frames are shrunk to this many pixels first; the cost grows with its square.
        min_score: smallest score of a face, 0 to 1.

    Raises:
        InputError: there is no such file, or a value outside its range.
        SessionError: this OpenCV has no `FaceDetectorYN`, or cannot read the file.
        MissingPackageError: OpenCV is not installed.

    Example:
        >>> from fer_edge.runtime import FerEdgeError, YuNetDetector
        >>> try:
        ...     YuNetDetector("no-such-file.onnx")
        ... except FerEdgeError as error:
        ...     print(type(error).__name__)
        InputError
    """

    grey = False
    parts = 1
    finds_tilt = True

    def __init__(self, model: str | Path, *, longest_side: int = 320, min_score: float = 0.6) -> None:
        self._longest_side = whole_number("longest_side", longest_side, least=32)
        self._min_score = number("min_score", min_score)
        if self._min_score > 1:
            raise InputError(f"min_score: got {min_score}, expected above 0, at most 1")
        self._model = Path(model).expanduser()
        if not self._model.is_file():
            raise InputError(f"YuNet model: got {model}, expected an ONNX file; OpenCV's model zoo has it")
        self._whole, self._near = self._open(), self._open()
        self._near.setInputSize((_NEAR_SIDE, _NEAR_SIDE))
        self._size = (0, 0)
        self.geometry = CropGeometry.of("yunet")

    def _open(self) -> Any:
        cv2 = require("cv2", needed_by="face detection", extra="cpu")
        if not hasattr(cv2, "FaceDetectorYN"):
            raise SessionError(f"OpenCV: got {cv2.__version__} without FaceDetectorYN, expected 4.8 or newer")
        size = (_NEAR_SIDE, _NEAR_SIDE)
        try:
            return cv2.FaceDetectorYN.create(str(self._model), "", size, self._min_score, _SUPPRESSION, _CANDIDATES)
        except cv2.error as error:
            raise SessionError(f"OpenCV cannot read the YuNet model {self._model}: {error.err}") from error

    def detect(self, image: Uint8) -> tuple[BoxXyxy, ...]:
        """Find the faces of one frame, largest first: boxes (left, top, right, bottom) in pixels.

        Raises:
            FrameError: another type or shape than uint8 (H, W) grey or (H, W, 3) BGR.
            SessionError: OpenCV cannot run the model.
        """
        boxes = [face.box_xyxy for face in self.search(image)]
        return tuple(sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1])))

    def search(self, image: Uint8, *, part: int | None = None, tilt_deg: float = 0.0) -> tuple[Face, ...]:
        """Find the faces of one frame with their tilt; the search has one part, and finds tilted heads by itself.

        Raises:
            FrameError, SessionError: as `detect`.
        """
        cv2 = require("cv2", needed_by="face detection", extra="cpu")
        check_image(image)
        rows, columns = image.shape[:2]
        shrink = min(1.0, self._longest_side / max(rows, columns))
        size = (max(1, round(columns * shrink)), max(1, round(rows * shrink)))
        if size != self._size:
            self._whole.setInputSize(size)
            self._size = size
        across, down = columns / size[0], rows / size[1]
        return tuple(
            Face(box_xyxy=(box[0] * across, box[1] * down, box[2] * across, box[3] * down), tilt_deg=tilt)
            for box, tilt in self._run(self._whole, cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        )

    def search_near(self, image: Uint8, face: Face) -> Face | None:
        """Find a face again near its last box; None where it is not found.

        Raises:
            SessionError: OpenCV cannot run the model.
        """
        level = Face(box_xyxy=face.box_xyxy)
        patch = cut_patch(image, level, margin=_NEAR_MARGIN, side=_NEAR_SIDE, enlarge=True)
        faces = [Face(box_xyxy=patch.to_frame(box), tilt_deg=tilt) for box, tilt in self._run(self._near, patch.image)]
        best = max(faces, key=lambda each: overlap(each.box_xyxy, face.box_xyxy), default=None)
        return best if best and overlap(best.box_xyxy, face.box_xyxy) > 0 else None

    def _run(self, network: Any, image: Uint8) -> list[tuple[BoxXyxy, float]]:
        cv2 = require("cv2", needed_by="face detection", extra="cpu")
        try:
            rows = network.detect(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image)[1]
        except cv2.error as error:
            raise SessionError(f"OpenCV cannot run the YuNet model {self._model}: {error.err}") from error
        found: list[tuple[BoxXyxy, float]] = []
        for x, y, width, height, right_x, right_y, left_x, left_y, *_ in () if rows is None else rows.tolist():
            # YuNet names eyes by the person: the person's right eye is on the left of the picture.
            tilt = math.degrees(math.atan2(left_y - right_y, left_x - right_x))
            found.append(((x, y, x + width, y + height), tilt))
        return [each for each in found if each[0][2] > each[0][0] and each[0][3] > each[0][1]]
