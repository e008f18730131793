"""Preprocessing from a camera frame to the network's input, in one order for every caller.

`cut_face` cuts the raw crop; `prepare_face` resizes it and applies the median filter, and is the only place that does
either. Augmentation in training comes between the two. The exported graph then divides by 255 and applies the global
contrast normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import FrameError, InputError, require
from fer_edge.core.json import decode, encode, expect, is_one_of
from fer_edge.core.types import Uint8

__all__ = [
    "GCN_EPSILON",
    "PreprocessSpec",
    "check_image",
    "check_stack",
    "crop_rectangle",
    "cut_face",
    "prepare_face",
    "prepare_stills",
    "to_grey",
]

GCN_EPSILON: Final = 1e-6
"""Added to the variance of a frame (pixels in 0..1), so that a constant frame becomes zeros."""


@dataclass(frozen=True, kw_only=True)
class PreprocessSpec:
    """How a face becomes the network's input; every bundle stores one.

    Attributes:
        size: side S of the square grey input, in pixels.
        margin: fraction of the box's side added on each side before cropping; a negative margin crops tighter.
        square: extend the shorter side of the box about its centre, so that faces are not stretched.
        alignment: ``"eyes"`` rotates the crop until the eyes are level, and requires both eyes.
        interpolation: ``"area"`` averages when shrinking and is linear when enlarging.
        median: aperture of the median filter, 0 for none.
        normalisation: ``"gcn"`` ((x / 255 - mean) / sqrt(variance + 1e-6), frame by frame) or ``"scale"`` (x / 255).

    Raises:
        InputError: a value outside its range.

    Example:
        >>> from fer_edge.runtime import PreprocessSpec
        >>> PreprocessSpec(size=64, median=3).to_json()["median"]
        3
    """

    size: int = 48
    margin: float = 0.0
    square: bool = True
    alignment: Literal["none", "eyes"] = "none"
    interpolation: Literal["area", "linear", "cubic"] = "area"
    median: Literal[0, 3, 5] = 0
    normalisation: Literal["gcn", "scale"] = "gcn"

    def __post_init__(self) -> None:
        whole = isinstance(self.size, int) and not isinstance(self.size, bool)
        expect(whole and 8 <= self.size <= 1024, "size", self.size, "a whole number of pixels from 8 to 1024")
        number = isinstance(self.margin, (int, float)) and -0.4 <= self.margin <= 2.0
        expect(number, "margin", self.margin, "-0.4 to 2.0")
        expect(isinstance(self.square, bool), "square", self.square, "true or false")
        expect(is_one_of(self.alignment, ("none", "eyes")), "alignment", self.alignment, "'none' or 'eyes'")
        known = ("area", "linear", "cubic")
        expect(is_one_of(self.interpolation, known), "interpolation", self.interpolation, "'area', 'linear' or 'cubic'")
        expect(is_one_of(self.median, (0, 3, 5)), "median", self.median, "0, 3 or 5")
        expect(is_one_of(self.normalisation, ("gcn", "scale")), "normalisation", self.normalisation, "'gcn' or 'scale'")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_json` reads."""
        return dict(encode(self))

    @classmethod
    def from_json(cls, value: Any) -> PreprocessSpec:
        """Read the JSON object of `to_json`.

        Raises:
            InputError: an unknown, missing or out-of-range field, named.
        """
        return decode(cls, value)


def to_grey(frame: Uint8) -> Uint8:
    """Convert a camera frame to grey once, for a detector and the crops of several faces.

    Args:
        frame: uint8 (H, W) grey, returned as it is, or (H, W, 3) BGR.

    Returns:
        uint8 (H, W).

    Raises:
        FrameError: another type or shape, or no pixels.
    """
    check_image(frame)
    return _grey(frame)


def cut_face(
    frame: Uint8,
    box_xyxy: Sequence[float] | NDArray[np.floating[Any]],
    spec: PreprocessSpec,
    *,
    eyes: Sequence[Sequence[float]] | None = None,
) -> Uint8:
    """Cut one face out of a camera frame: the raw crop, neither resized nor filtered (`prepare_face` does both).

    Only the crop of a colour frame is converted to grey. Where several faces share a frame that is needed in grey
    anyway, pass `to_grey(frame)`. Pixels outside the frame repeat its border.

    Args:
        frame: uint8 (H, W) grey or (H, W, 3) BGR.
        box_xyxy: bounding box of the face in pixels: left, top, right, bottom.
        spec: crop geometry: margin, square, alignment.
        eyes: (x, y) in pixels of the eye on the left and of the eye on the right of the frame; required where
            ``spec.alignment == "eyes"``, otherwise ignored.

    Returns:
        uint8 (h, w) grey, the size of `crop_rectangle`.

    Raises:
        FrameError: a frame of another type or shape, an empty or non-finite box, a box outside the frame, eyes missing
            or in one point.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import PreprocessSpec, cut_face, prepare_face
        >>> frame = np.zeros((480, 640, 3), np.uint8)
        >>> crop = cut_face(frame, (240, 160, 400, 320), PreprocessSpec(size=48))
        >>> crop.shape, prepare_face(crop, PreprocessSpec(size=48)).shape
        ((160, 160), (48, 48))
    """
    check_image(frame)
    left, top, width, height = crop_rectangle(frame, box_xyxy, spec)
    if spec.alignment == "eyes":
        return _cut_level(frame, (left, top, width, height), eyes)
    rows, columns = frame.shape[:2]
    inside = frame[max(top, 0) : min(top + height, rows), max(left, 0) : min(left + width, columns)]
    crop = np.ascontiguousarray(_grey(inside))
    outside = (-top, top + height - rows, -left, left + width - columns)
    if max(outside) > 0:
        cv2 = _cv2()
        crop = cv2.copyMakeBorder(crop, *(max(border, 0) for border in outside), cv2.BORDER_REPLICATE)
    return crop


def crop_rectangle(
    frame: Uint8, box_xyxy: Sequence[float] | NDArray[np.floating[Any]], spec: PreprocessSpec
) -> tuple[int, int, int, int]:
    """Compute what `cut_face` cuts for a box: left, top, width, height in whole pixels; may extend beyond the frame.

    Raises:
        FrameError: an empty or non-finite box, one far larger than the frame, or one outside it.
    """
    left, top, right, bottom = box = _numbers(box_xyxy, (4,), "box_xyxy", "four finite numbers").tolist()
    rows, columns = frame.shape[:2]
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0:
        raise FrameError(f"box_xyxy: got {box}, which has no area; expected left < right and top < bottom")
    if max(width, height) > 8 * max(rows, columns):
        raise FrameError(f"box_xyxy: got {box}, far larger than the {columns}x{rows} image")
    if spec.square:
        width = height = max(width, height)
    scale = 1 + 2 * spec.margin
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    x, y = round((left + right - width) / 2), round((top + bottom - height) / 2)
    if x + width <= 0 or y + height <= 0 or x >= columns or y >= rows:
        raise FrameError(f"box_xyxy: got {box}, which is outside the {columns}x{rows} image")
    return x, y, width, height


def prepare_face(face: Uint8, spec: PreprocessSpec) -> Uint8:
    """Turn a raw crop into the network's input: grey, resize, median filter.

    Args:
        face: uint8 (H, W) grey or (H, W, 3) BGR; a raw crop, never a face that is already prepared.
        spec: size, interpolation, median.

    Returns:
        uint8 (size, size) grey.

    Raises:
        FrameError: another type or shape, or no pixels.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import PreprocessSpec, prepare_face
        >>> prepare_face(np.zeros((90, 80, 3), np.uint8), PreprocessSpec(size=48, median=3)).shape
        (48, 48)
    """
    check_image(face)
    return _prepare(_grey(face), spec)


def prepare_stills(images: Uint8, spec: PreprocessSpec) -> Uint8:
    """Prepare a stack of grey crops: `prepare_face` for each.

    Args:
        images: uint8 (N, H, W) grey raw crops, N may be 0.
        spec: size, interpolation, median.

    Returns:
        uint8 (N, size, size) grey.

    Raises:
        InputError: another type or shape, or images without pixels.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import PreprocessSpec, prepare_stills
        >>> prepare_stills(np.zeros((5, 90, 80), np.uint8), PreprocessSpec(size=48)).shape
        (5, 48, 48)
    """
    check_stack(images, "images")
    if images.shape[1:] == (spec.size, spec.size) and spec.median == 0:
        return np.ascontiguousarray(images)
    prepared = np.empty((len(images), spec.size, spec.size), np.uint8)
    for index, image in enumerate(images):
        prepared[index] = _prepare(image, spec)
    return prepared


def check_image(image: Any) -> None:
    """Refuse anything but uint8 (H, W) grey or (H, W, 3) BGR with at least one pixel.

    Raises:
        FrameError: another type, dtype or shape.
    """
    if not isinstance(image, np.ndarray):
        raise FrameError(f"image: got {type(image).__name__}, expected a numpy array, uint8 (H, W) or (H, W, 3) BGR")
    if image.dtype != np.uint8:
        raise FrameError(f"image: got dtype {image.dtype}, expected uint8 in 0..255")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise FrameError(f"image: got shape {image.shape}, expected (H, W) grey or (H, W, 3) BGR")
    if 0 in image.shape:
        raise FrameError(f"image: got shape {image.shape}, which has no pixels")


def _cv2() -> Any:
    return require("cv2", needed_by="face preprocessing", extra="cpu")


def check_stack(images: Any, name: str) -> None:
    """Refuse anything but uint8 (N, H, W) with at least one pixel per image.

    Raises:
        InputError: another type or shape.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{name}: got {got}, expected a uint8 array (N, H, W) grey")
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise InputError(f"{name}: got shape {images.shape}, expected (N, H, W) grey with H and W of at least 1")


def _numbers(values: Any, shape: tuple[int, ...], name: str, expected: str) -> NDArray[np.float64]:
    """Convert coordinates given by a caller or a detector to float64 of `shape`, all finite."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"{name}: got {values!r}, expected {expected}") from error
    if array.shape != shape or not np.isfinite(array).all():
        raise FrameError(f"{name}: got {values!r}, expected {expected}")
    return array


def _grey(image: Uint8) -> Uint8:
    if image.ndim == 2:
        return image
    cv2 = _cv2()
    grey: Uint8 = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return grey


def _cut_level(frame: Uint8, rectangle: tuple[int, int, int, int], eyes: Any) -> Uint8:
    """Cut the rectangle, rotated about its centre until the eyes are level."""
    if eyes is None:
        raise FrameError("eyes: got None, expected both eyes; this bundle's preprocessing aligns faces by the eyes")
    points = _numbers(eyes, (2, 2), "eyes", "two different finite points (x, y)")
    if np.array_equal(points[0], points[1]):
        raise FrameError(f"eyes: got {eyes!r}, expected two different finite points (x, y)")
    cv2 = _cv2()
    left, top, width, height = rectangle
    # The part of the frame that the rotated rectangle can reach; its border is the frame's wherever that is repeated.
    reach = math.ceil(math.hypot(width, height) / 2) + 2
    x, y = max(0, left + width // 2 - reach), max(0, top + height // 2 - reach)
    part = _grey(frame[y : top + height // 2 + reach + 1, x : left + width // 2 + reach + 1])
    across, down = points[1] - points[0]
    centre = (left - x + (width - 1) / 2, top - y + (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, math.degrees(math.atan2(down, across)), 1.0)
    matrix[:, 2] -= (left - x, top - y)
    level: Uint8 = cv2.warpAffine(
        part, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return level


def _prepare(grey: Uint8, spec: PreprocessSpec) -> Uint8:
    """Resize to (size, size), then apply the median filter."""
    face = np.ascontiguousarray(grey)
    if face.shape != (spec.size, spec.size):
        cv2 = _cv2()
        area = cv2.INTER_AREA if min(face.shape) >= spec.size else cv2.INTER_LINEAR
        method = {"area": area, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[spec.interpolation]
        face = cv2.resize(face, (spec.size, spec.size), interpolation=method)
    if spec.median:
        face = _cv2().medianBlur(face, spec.median)
    return face
