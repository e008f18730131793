"""From a camera image to the pixels a network takes: the one implementation that every other part calls.

The order is the same everywhere: crop, resize, [augment, in training], median filter, all in uint8; then, inside the
exported graph, division by 255 and global contrast normalisation. `normalise` is that last step in numpy: the reference
that the graph and the training code are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError, require
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.types import Float32, Uint8

__all__ = [
    "GCN_EPSILON",
    "PreprocessSpec",
    "check_image",
    "crop_face",
    "crop_rectangle",
    "normalise",
    "prepare_face",
    "prepare_stills",
]

GCN_EPSILON: Final = 1e-6
"""Added to the variance of a frame (pixels in 0..1), so that a constant frame becomes zeros."""


@dataclass(frozen=True, kw_only=True)
class PreprocessSpec:
    """How a face becomes the network's input; stored in every bundle.

    Attributes:
        size: side S of the square grey frame, in pixels.
        margin: fraction of the box's side added on each side before cropping; negative cuts into the box.
        square: widen the shorter side of the box about its centre, so that faces are not stretched.
        alignment: ``"eyes"`` turns the face until the line between the eyes is level, and then wants the eyes.
        interpolation: ``"area"`` averages when shrinking and is linear when enlarging.
        median: aperture of the median filter, 0 for none.
        normalisation: ``"gcn"`` (x / 255, minus the frame's mean, over the root of its variance + 1e-6) or ``"scale"``
            (x / 255).

    Raises:
        InputError: a value outside its range.
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
        expect(math.isfinite(self.margin) and -0.4 <= self.margin <= 2.0, "margin", self.margin, "-0.4 to 2.0")
        expect(isinstance(self.square, bool), "square", self.square, "true or false")
        expect(self.alignment in ("none", "eyes"), "alignment", self.alignment, "'none' or 'eyes'")
        known = ("area", "linear", "cubic")
        expect(self.interpolation in known, "interpolation", self.interpolation, "'area', 'linear' or 'cubic'")
        expect(self.median in (0, 3, 5), "median", self.median, "0, 3 or 5")
        expect(self.normalisation in ("gcn", "scale"), "normalisation", self.normalisation, "'gcn' or 'scale'")

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads back."""
        return dict(encode(self))

    @classmethod
    def from_json(cls, value: Any) -> PreprocessSpec:
        """Read the JSON object of `to_json`.

        Raises:
            InputError: an unknown, missing or out-of-range field, named.
        """
        return decode(cls, value)


def crop_face(
    image: Uint8,
    box_xyxy: Sequence[float] | NDArray[np.floating[Any]],
    spec: PreprocessSpec,
    *,
    eyes: Sequence[Sequence[float]] | None = None,
) -> Uint8:
    """Cut one face out of a camera image and bring it to the network's size.

    What the widened box takes in beyond the image's border repeats the border's pixels.

    Args:
        image: uint8 (H, W) grey or (H, W, 3) BGR.
        box_xyxy: the face's box in pixels: left, top, right, bottom.
        spec: crop geometry, size, interpolation, median.
        eyes: (x, y) of the eye on the left and the eye on the right of the image, in pixels; used, and then needed,
            where ``spec.alignment == "eyes"``.

    Returns:
        uint8 (size, size) grey.

    Raises:
        InputError: an image of another type or shape, an empty or non-finite box, a box outside the image, eyes
            missing or in one point.
    """
    check_image(image)
    left, top, width, height = crop_rectangle(image, box_xyxy, spec)
    grey = _grey(image)
    if spec.alignment == "eyes":
        return _finish(_turned_crop(grey, (left, top, width, height), eyes), spec)
    rows, columns = grey.shape
    inner = grey[max(top, 0) : min(top + height, rows), max(left, 0) : min(left + width, columns)]
    outside = (-top, top + height - rows, -left, left + width - columns)
    if max(outside) > 0:
        cv2 = _cv2()
        above, below, before, after = (max(border, 0) for border in outside)
        inner = cv2.copyMakeBorder(inner, above, below, before, after, cv2.BORDER_REPLICATE)
    return _finish(inner, spec)


def crop_rectangle(
    image: Uint8, box_xyxy: Sequence[float] | NDArray[np.floating[Any]], spec: PreprocessSpec
) -> tuple[int, int, int, int]:
    """What `crop_face` cuts out for a box: left, top, width and height in whole pixels; it may reach beyond the image.

    Raises:
        InputError: an empty or non-finite box, one far larger than the image, or one outside it.
    """
    box = np.asarray(box_xyxy, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise InputError(f"box_xyxy: got {box_xyxy!r}, expected four finite numbers: left, top, right, bottom")
    left, top, right, bottom = (float(edge) for edge in box)
    if right <= left or bottom <= top:
        raise InputError(f"box_xyxy: got {box.tolist()}, which has no area; expected left < right and top < bottom")
    rows, columns = image.shape[:2]
    width, height = right - left, bottom - top
    if max(width, height) > 8 * max(rows, columns):
        raise InputError(f"box_xyxy: got {box.tolist()}, far larger than the {columns}x{rows} image")
    grow = 1 + 2 * spec.margin
    if spec.square:
        width = height = max(width, height)
    width, height = max(1, round(width * grow)), max(1, round(height * grow))
    x, y = round((left + right - width) / 2), round((top + bottom - height) / 2)
    if x + width <= 0 or y + height <= 0 or x >= columns or y >= rows:
        raise InputError(f"box_xyxy: got {box.tolist()}, which lies outside the {columns}x{rows} image")
    return x, y, width, height


def prepare_face(face: Uint8, spec: PreprocessSpec) -> Uint8:
    """Bring a face that is already cropped to the network's size: grey, resize, median.

    Args:
        face: uint8 (H, W) grey or (H, W, 3) BGR.
        spec: size, interpolation, median.

    Returns:
        uint8 (size, size) grey.

    Raises:
        InputError: another type or shape, or an empty image.
    """
    check_image(face)
    return _finish(_grey(face), spec)


def prepare_stills(images: Uint8, spec: PreprocessSpec) -> Uint8:
    """`prepare_face` for a stack of grey faces.

    Args:
        images: uint8 (N, H, W) grey, N may be 0.
        spec: size, interpolation, median.

    Returns:
        uint8 (N, size, size) grey.

    Raises:
        InputError: another type or shape, or images without pixels.
    """
    _check_stack(images, "images")
    if images.shape[1:] == (spec.size, spec.size) and spec.median == 0:
        return np.ascontiguousarray(images)
    prepared = np.empty((len(images), spec.size, spec.size), np.uint8)
    for index, image in enumerate(images):
        prepared[index] = _finish(image, spec)
    return prepared


def normalise(frames: Uint8, spec: PreprocessSpec) -> Float32:
    """What the exported graph does first, in FP32: x / 255, then global contrast normalisation frame by frame.

    Args:
        frames: uint8 (N, S, S) grey, of the size that `spec` states.
        spec: size and normalisation.

    Returns:
        float32 (N, S, S); with ``"gcn"`` every frame has mean 0 and, unless constant, variance close to 1.

    Raises:
        InputError: another type, shape or size.
    """
    _check_stack(frames, "frames")
    if frames.shape[1:] != (spec.size, spec.size):
        raise InputError(f"frames: got shape {frames.shape}, expected (N, {spec.size}, {spec.size})")
    scaled = frames.astype(np.float32) / np.float32(255)
    if spec.normalisation == "scale":
        return scaled
    centred = scaled - scaled.mean(axis=(1, 2), keepdims=True)
    variance = np.square(centred).mean(axis=(1, 2), keepdims=True)
    # The mean of equal floats can miss them by an ulp, which the small epsilon would blow up.
    constant = frames.min(axis=(1, 2), keepdims=True) == frames.max(axis=(1, 2), keepdims=True)
    return np.where(constant, np.float32(0), centred / np.sqrt(variance + np.float32(GCN_EPSILON)))


def check_image(image: Any) -> None:
    """Refuse what is not uint8 (H, W) grey or (H, W, 3) BGR with at least one pixel.

    Raises:
        InputError: saying what was got.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"image: got {type(image).__name__}, expected a numpy array, uint8 (H, W) or (H, W, 3) BGR")
    if image.dtype != np.uint8:
        raise InputError(f"image: got dtype {image.dtype}, expected uint8 in 0..255")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"image: got shape {image.shape}, expected (H, W) grey or (H, W, 3) BGR")
    if 0 in image.shape:
        raise InputError(f"image: got shape {image.shape}, which has no pixels")


def _cv2() -> Any:
    return require("cv2", needed_by="face preprocessing", extra="cpu")


def _check_stack(images: Any, name: str) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{name}: got {got}, expected a uint8 array (N, H, W) grey")
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise InputError(f"{name}: got shape {images.shape}, expected (N, H, W) grey with H and W of at least 1")


def _grey(image: Uint8) -> Uint8:
    if image.ndim == 2:
        return image
    cv2 = _cv2()
    grey: Uint8 = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return grey


def _turned_crop(grey: Uint8, rectangle: tuple[int, int, int, int], eyes: Any) -> Uint8:
    """The rectangle's pixels, turned about its centre until the eyes are level."""
    if eyes is None:
        raise InputError("eyes: missing; this bundle's preprocessing aligns by the eyes, so crop_face needs both")
    points = np.asarray(eyes, dtype=np.float64)
    if points.shape != (2, 2) or not np.isfinite(points).all() or np.array_equal(points[0], points[1]):
        raise InputError(f"eyes: got {eyes!r}, expected two different finite points (x, y)")
    cv2 = _cv2()
    left, top, width, height = rectangle
    across, down = points[1] - points[0]
    centre = (left + (width - 1) / 2, top + (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, math.degrees(math.atan2(down, across)), 1.0)
    matrix[:, 2] -= (left, top)
    turned: Uint8 = cv2.warpAffine(
        grey, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return turned


def _finish(grey: Uint8, spec: PreprocessSpec) -> Uint8:
    """Resize to (size, size), then the median filter."""
    frame = np.ascontiguousarray(grey)
    if frame.shape != (spec.size, spec.size):
        cv2 = _cv2()
        shrinks = min(frame.shape) >= spec.size
        area = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        method = {"area": area, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[spec.interpolation]
        frame = cv2.resize(frame, (spec.size, spec.size), interpolation=method)
    if spec.median:
        frame = _cv2().medianBlur(frame, spec.median)
    return frame
