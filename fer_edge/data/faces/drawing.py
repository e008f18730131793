"""Draw a head in front of a picture: curves in face units, rotated, projected and blended with OpenCV.

One face unit is half the side of the face box; x points right, y down, the origin is the middle of the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_edge.core.json import expect
from fer_edge.core.types import Float32, Uint8
from fer_edge.data.faces.geometry import Curve, FaceGeometry, face_geometry, mirrored, smooth_curve
from fer_edge.data.faces.people import Box, Colour, Face, mixed

__all__ = ["draw_face", "fill"]

_SHIFT: Final = 4  # fractional bits of OpenCV's coordinates
_REACH: Final = 1.75  # half side of the square that a rotated head may cover
_BLACK: Final = (0.0, 0.0, 0.0)
_WHITE: Final = (255.0, 255.0, 255.0)
_SIDES: Final = ((1.0, 1.0), (-1.0, 1.0))


def draw_face(face: Face, background: Uint8, *, box_xyxy: Box) -> Uint8:
    """Draw a head in front of a picture.

    Args:
        background: uint8 (H, W, 3) BGR; not modified.
        box_xyxy: square in pixels from the middle of the forehead to the chin, the framing of OpenCV's frontal-face
            cascade and of FER2013; it may exceed the picture.

    Returns:
        uint8 (H, W, 3) BGR, a new array.

    Raises:
        InputError: the background is not a BGR picture, or the box is not a finite square of at least 16 pixels.
    """
    given = (str(background.dtype), background.shape)
    bgr = background.dtype == np.uint8 and background.ndim == 3 and background.shape[2] == 3 and background.size > 0
    expect(bgr, "background", given, "uint8 (H, W, 3) BGR")
    x0, y0, x1, y1 = box_xyxy
    side = x1 - x0
    square = math.isfinite(side + y1 - y0) and side >= 16 and abs(side - (y1 - y0)) <= 0.02 * side + 1e-6
    expect(square, "box_xyxy", box_xyxy, "a finite square of at least 16 pixels")
    picture, half, centre = background.copy(), side / 2, np.array([x0 + x1, y0 + y1]) / 2
    corner = np.clip(np.round(centre - _REACH * half), 0, picture.shape[1::-1]).astype(int)
    end = np.clip(np.round(centre + _REACH * half), 0, picture.shape[1::-1]).astype(int)
    if (corner < end).all():
        part = picture[corner[1] : end[1], corner[0] : end[0]]
        head = _Head(part.astype(np.float32), face, centre - corner, half)
        _draw(head, face, face_geometry(face))
        part[...] = np.clip(head.pixels + 0.5, 0, 255).astype(np.uint8)
    return picture


def fill(picture: Uint8, points: Curve, colour: Colour) -> None:
    """Fill a polygon of pixel coordinates (N, 2) in place."""
    cv2.fillPoly(picture, [np.round(points * (1 << _SHIFT)).astype(np.int32)], colour, cv2.LINE_AA, _SHIFT)


class _Head:
    """The part of a picture that a head may cover, float32 (H, W, 3) BGR."""

    def __init__(self, pixels: Float32, face: Face, centre: NDArray[np.float64], half: float) -> None:
        self.pixels, self.centre, self.half = pixels, centre, half
        self._angles = [math.radians(each) for each in (face.yaw_deg, face.pitch_deg, face.roll_deg)]

    def project(self, points: Curve) -> Curve:
        """Rotate points on the face about the head's axis: face units (N, 2) -> pixels (N, 2)."""
        yaw, pitch, roll = self._angles
        x, y = points[:, 0], points[:, 1]
        nose = 0.17 * np.exp(-0.5 * ((x / 0.14) ** 2 + ((y - 0.13) / 0.17) ** 2))
        z = np.maximum(0.62 * (1 - (x / 1.12) ** 2 - 0.35 * ((y + 0.1) / 1.3) ** 2), -0.2) + nose - 0.62
        x, z = x * math.cos(yaw) + z * math.sin(yaw), z * math.cos(yaw) - x * math.sin(yaw)
        y = y * math.cos(pitch) + z * math.sin(pitch)
        x, y = x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll)
        return np.stack([x, y], axis=1) * self.half + self.centre

    def paint(
        self, points: Curve, colour: Colour, opacity: float = 1.0, *, width: float = 0.0, soft: float = 0.0
    ) -> None:
        """Blend a polygon, or a line where `width` is not 0, over the picture; `soft` blurs its edge (face units).

        A line thinner than a pixel is one pixel wide and fainter.
        """
        where, mask = self.mask(points, width=width, soft=soft)
        part = self.pixels[where]
        part += (np.asarray(colour, np.float32) - part) * (mask * np.float32(opacity))[..., None]

    def mask(self, points: Curve, *, width: float = 0.0, soft: float = 0.0) -> tuple[tuple[slice, slice], Float32]:
        """Rasterise: slices into the picture, and coverage 0..1 there, float32."""
        sigma, line = soft * self.half, width * self.half
        fixed = self.project(points) - 0.5
        border = 3 * sigma + line + 2
        low = np.clip(np.floor(fixed.min(axis=0) - border), 0, self.pixels.shape[1::-1]).astype(int)
        high = np.clip(np.ceil(fixed.max(axis=0) + border), 0, self.pixels.shape[1::-1]).astype(int)
        where = (slice(low[1], high[1]), slice(low[0], high[0]))
        mask = np.zeros(self.pixels[where].shape[:2], np.uint8)
        if mask.size == 0:
            return where, mask.astype(np.float32)
        shifted = np.round((fixed - low) * (1 << _SHIFT)).astype(np.int32)
        if width:
            cv2.polylines(mask, [shifted], False, 255, max(1, round(line)), cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, [shifted], 255, cv2.LINE_AA, _SHIFT)
        cover = mask.astype(np.float32) * np.float32((min(1.0, max(line, 0.15)) if width else 1.0) / 255)
        return where, np.asarray(cv2.GaussianBlur(cover, (0, 0), sigma), np.float32) if sigma > 0.3 else cover

    def blob(self, x: float, y: float, size: tuple[float, float], colour: Colour, opacity: float) -> None:
        """Blend a soft ellipse; `size` is its half width and half height."""
        self.paint(_ellipse(x, y, size), colour, opacity, soft=0.5 * min(size))

    def crease(self, points: Curve, colour: Colour, depth: float, *, width: float = 0.025) -> None:
        """Draw a wrinkle, `depth` 0..1."""
        if depth > 0.05:
            self.paint(smooth_curve(points), colour, min(1.0, depth), width=width, soft=0.012)


def _ellipse(x: float, y: float, size: tuple[float, float]) -> Curve:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + size[0] * np.cos(turn), y + size[1] * np.sin(turn)], axis=1)


def _both(right: Sequence[tuple[float, float]]) -> Curve:
    """Close the right half of an outline, from top to bottom, with its mirror image."""
    half = np.asarray(right, dtype=np.float64)
    return smooth_curve(np.concatenate([half, mirrored(half[::-1])]), closed=True)


def _draw(head: _Head, face: Face, geometry: FaceGeometry) -> None:
    """Draw from back to front."""
    identity, skin = face.identity, face.identity.skin
    dark = mixed(skin, _BLACK, 0.72)
    if identity.hair == "long":
        back = _both([(0.05, -1.42), (0.98, -0.95), (1.12, 0.4), (1.1, 1.2), (0.4, 1.3)])
        head.paint(back, mixed(identity.hair_colour, _BLACK, 0.4))
    neck = _both([(0.5, 0.5), (0.52, 1.1), (0.5, 1.4), (0.2, 1.56)])
    head.paint(neck, mixed(skin, _BLACK, 0.35))
    for flip in _SIDES:
        ear = _ellipse(0.86 * identity.face_width, -0.06, (0.1, 0.2)) * flip
        head.paint(ear, mixed(skin, _BLACK, 0.2))
    head.paint(geometry.outline, skin)
    _draw_relief(head, face, geometry, dark)
    if identity.beard:
        x, y = geometry.mouth.corner
        beard = _both([(0.05, y - 0.2), (x + 0.05, y - 0.1), (0.82, 0.05), (0.7, 0.7), (0.3, geometry.chin_y)])
        head.paint(beard, identity.hair_colour, 0.75, soft=0.04)
    _draw_mouth(head, face, geometry, dark)
    _draw_wrinkles(head, face, geometry, dark)
    for flip in _SIDES:
        _draw_eye(head, face, geometry, flip, dark)
    _light(head, face, geometry)
    _draw_hair(head, face)
    if identity.glasses:
        x, y = geometry.eye.centre
        for flip in _SIDES:
            rim = _ellipse(x, y + 0.03, (0.27, 0.21)) * flip
            head.paint(np.concatenate([rim, rim[:1]]), (45.0, 45.0, 52.0), 0.9, width=0.03)
            head.paint(np.array([(x + 0.27, y), (0.87, y - 0.02)]) * flip, (45.0, 45.0, 52.0), 0.85, width=0.03)
        head.paint(np.array([(0.27 - x, y), (x - 0.27, y)]), (45.0, 45.0, 52.0), 0.9, width=0.03)


def _draw_relief(head: _Head, face: Face, geometry: FaceGeometry, dark: Colour) -> None:
    """Shade what lies deeper or higher than the cheeks, and the nose."""
    skin, units = face.identity.skin, face.units
    light, flush = mixed(skin, _WHITE, 0.3), mixed(skin, (105.0, 105.0, 205.0), 0.4)
    x, y = geometry.eye.centre
    width, tip = geometry.nose_half_width, geometry.nose_y
    head.blob(0.0, -0.85, (0.5, 0.2), light, 0.5)
    head.blob(0.0, geometry.chin_y - 0.14, (0.17, 0.09), light, 0.4)
    for flip in _SIDES:
        side = flip[0]
        head.blob(side * (x - 0.02), y - 0.03, (0.27, 0.16), dark, 0.5)
        head.blob(side * 0.17, y + 0.02, (0.07, 0.12), dark, 0.35)
        head.blob(side * 0.49, 0.14 - 0.05 * units.au6, (0.2, 0.14), flush, 0.35)
        head.blob(side * 0.46, 0.1 - 0.05 * units.au6, (0.17, 0.1), light, 0.35 + 0.4 * units.au12)
        head.blob(side * 0.66, 0.45, (0.14, 0.2), dark, 0.15)
        wing = np.array([(width * 0.85, tip - 0.06), (width * 1.05, tip + 0.01), (width * 0.92, tip + 0.07)]) * flip
        head.crease(wing, dark, 0.4 + 0.3 * units.au9)
        nostril = _ellipse(width * 0.54, tip + 0.065, (0.25 * width, 0.024)) * flip
        head.paint(nostril, mixed(dark, _BLACK, 0.5), 0.85, soft=0.009)
    head.blob(0.0, -0.08, (0.06, 0.26), light, 0.55)
    head.blob(0.0, tip, (0.09, 0.07), light, 0.5)
    under = [
        (-width, tip + 0.05),
        (-0.5 * width, tip + 0.09),
        (0.0, tip + 0.105),
        (0.5 * width, tip + 0.09),
        (width, tip + 0.05),
    ]
    head.paint(smooth_curve(under), dark, 0.5, width=0.045, soft=0.022)


def _draw_mouth(head: _Head, face: Face, geometry: FaceGeometry, dark: Colour) -> None:
    mouth, units, skin = geometry.mouth, face.units, face.identity.skin
    lip = mixed(mixed(skin, _BLACK, 0.25), (85.0, 75.0, 170.0), 0.42)
    upper = np.concatenate([mouth.outer_upper, mouth.inner_upper[::-1]])
    lower = np.concatenate([mouth.inner_lower, mouth.outer_lower[::-1]])
    head.paint(mouth.outer_lower[5:-5] + np.array([0.0, 0.03]), dark, 0.4, width=0.04, soft=0.02)
    head.paint(lower, lip, 0.85, soft=0.008)
    head.paint(upper, mixed(lip, _BLACK, 0.18), 0.9, soft=0.008)
    if mouth.gap > 0.012:
        head.paint(np.concatenate([mouth.inner_upper, mouth.inner_lower[::-1]]), (22.0, 16.0, 48.0))
        if mouth.gap > 0.16:
            tongue = (0.0, float(mouth.inner_lower[:, 1].max()) - 0.25 * mouth.gap)
            head.blob(*tongue, (0.5 * mouth.corner[0], 0.2 * mouth.gap), (92.0, 84.0, 170.0), 0.8)
        for edge, other, reach in (
            (mouth.inner_upper, mouth.inner_lower, mouth.upper_teeth),
            (mouth.inner_lower, mouth.inner_upper, mouth.lower_teeth),
        ):
            if reach > 0.012:
                gap = other[:, 1] - edge[:, 1]
                end = edge[:, 1] + np.sign(gap) * np.minimum(np.abs(gap), reach)
                row = np.concatenate([edge, np.stack([edge[:, 0], end], axis=1)[::-1]])
                head.paint(row, (212.0, 221.0, 228.0), 0.95)
        head.paint(mouth.inner_upper, dark, 0.5, width=0.02, soft=0.008)
    else:
        head.paint(mouth.inner_upper, mixed(dark, _BLACK, 0.3), 0.85, width=0.028 + 0.008 * units.au23, soft=0.007)
    for flip in _SIDES:
        x, y = mouth.corner
        dimple = np.array([(x - 0.02, y), (x + 0.03, y - 0.01 + 0.035 * units.au15 - 0.02 * units.au12)]) * flip
        head.paint(dimple, dark, 0.5, width=0.035, soft=0.016)


def _draw_eye(head: _Head, face: Face, geometry: FaceGeometry, flip: tuple[float, float], dark: Colour) -> None:
    eye, identity, units = geometry.eye, face.identity, face.units
    height = eye.lower[:, 1] - eye.upper[:, 1]
    if height.max() > 0.015:
        opening = np.concatenate([eye.upper, eye.lower[::-1]]) * flip
        head.paint(opening, (212.0, 216.0, 222.0))
        where, mask = head.mask(opening)
        before = head.pixels[where].copy()
        x = flip[0] * eye.centre[0] + 0.07 * face.gaze[0]
        y, radius = eye.centre[1] + 0.045 * face.gaze[1], eye.iris_radius
        for size, colour in (
            (1.0, mixed(identity.eye_colour, _BLACK, 0.4)), (0.82, identity.eye_colour), (0.5, (12.0, 10.0, 10.0)),
        ):  # fmt: skip
            head.paint(_ellipse(x, y, (size * radius, size * radius)), colour)
        head.paint(_ellipse(x - 0.3 * radius, y - 0.35 * radius, (0.26 * radius, 0.26 * radius)), _WHITE, 0.9)
        iris = head.pixels[where]
        iris[...] = before + (iris - before) * mask[..., None]
        head.paint(eye.upper * flip + np.array([0.0, 0.018]), dark, 0.36, width=0.045, soft=0.014)
    head.paint(eye.upper * flip, (26.0, 26.0, 34.0), 0.85, width=0.03, soft=0.006)
    head.paint(eye.lower[2:-1] * flip, dark, 0.45, width=0.014, soft=0.006)
    head.paint(eye.fold * flip, dark, 0.45, width=0.014, soft=0.008)
    bag = 0.18 + 0.3 * identity.age + 0.25 * max(units.au6, units.au7, units.au9)
    head.paint(eye.bag * flip, dark, 0.7 * bag, width=0.018, soft=0.012)
    brow = mixed(identity.hair_colour, (30.0, 34.0, 42.0), 0.45)
    head.paint(eye.brow * flip, brow, 0.88, soft=0.011)


def _draw_wrinkles(head: _Head, face: Face, geometry: FaceGeometry, dark: Colour) -> None:
    units, age = face.units, face.identity.age
    fold = 0.15 + 0.35 * age + 0.6 * max(units.au12, units.au9, 0.9 * units.au10) + 0.2 * units.au20
    frown = 0.1 * age + max(units.au4 * (1 - 0.3 * units.au1), 0.5 * units.au9)
    crow = 0.4 * max(units.au6, 0.4 * units.au9) + 0.08 * age
    inner, outer = geometry.eye.brow_middle[0], geometry.eye.upper[-1] + (0.045, 0.01)
    x, y = geometry.mouth.corner
    for flip in _SIDES:
        head.crease(geometry.nasolabial * flip, dark, 0.6 * min(1.0, fold), width=0.04)
        head.crease((np.array([(-0.07, -0.1), (-0.085, -0.03), (-0.075, 0.07)]) + inner) * flip, dark, 0.8 * frown)
        for end in ((0.1, -0.05), (0.11, 0.0), (0.1, 0.04)):
            head.crease(np.array([outer, outer + end]) * flip, dark, crow, width=0.014)
        drop = np.array([(x + 0.035, y + 0.02), (x + 0.06, y + 0.1), (x + 0.05, y + 0.18)]) * flip
        head.crease(drop, dark, 0.5 * units.au15 + 0.2 * age, width=0.04)
        beside = np.array([(0.11, -0.17), (0.17, -0.06), (0.185, 0.06)]) * flip
        head.crease(beside, dark, 0.7 * units.au9, width=0.045)
    across, width = np.linspace(-1, 1, 9), 0.48 if units.au2 > 0.3 else 0.26
    for level in range(3):
        bend = 0.02 * np.cos(across * np.pi) - 0.03 * units.au1 * (1 - across**2) - 0.7 - 0.1 * level
        raised = 0.1 * age + max(0.55 * units.au2, 0.2 * units.au1)
        head.crease(np.stack([across * width, bend], axis=1), dark, raised, width=0.018)
        root = -0.24 + 0.075 * level
        nose = np.array([(-0.13, root - 0.035), (-0.05, root), (0.05, root), (0.13, root - 0.035)])
        head.crease(nose, dark, 0.8 * units.au9)
    chin = float(geometry.mouth.outer_lower[:, 1].max()) + 0.05
    head.crease(np.array([(-0.14, chin + 0.035), (0.0, chin - 0.01), (0.14, chin + 0.035)]), dark, 0.7 * units.au17)


def _light(head: _Head, face: Face, geometry: FaceGeometry) -> None:
    """Multiply the head by Lambert light on an ellipsoid, from a lamp 30 degrees above."""
    rows, columns = head.pixels.shape[:2]
    x = ((np.arange(columns) + 0.5 - head.centre[0]) / head.half)[None, :]
    y = ((np.arange(rows) + 0.5 - head.centre[1]) / head.half)[:, None]
    depth = np.sqrt(np.maximum(1 - x**2 - ((y + 0.1) / 1.55) ** 2, 0.05))
    turn, rise = math.radians(face.light_deg), math.radians(30.0)
    facing = x * math.sin(turn) * math.cos(rise) - y / 1.55 * math.sin(rise) + depth * math.cos(turn) * math.cos(rise)
    lamp = np.maximum(facing + 0.2, 0.0)
    shade = face.brightness * (0.98 * (1 - face.contrast) + face.contrast * lamp)
    where, mask = head.mask(geometry.outline, soft=0.002)
    head.pixels[where] *= (1 + (shade[where] - 1) * mask)[..., None].astype(np.float32)


def _draw_hair(head: _Head, face: Face) -> None:
    identity = face.identity
    if identity.hair == "bald":
        return
    low = 0.2 if identity.hair == "long" else -0.18
    top = np.array([(0.85, low), (0.92, low - 0.14), (0.95, -0.6), (0.87, -0.98), (0.5, -1.3), (0.0, -1.4)])
    line = np.array([(0.0, -0.97), (0.33, -0.95), (0.6, -0.84), (0.74, -0.58), (0.8, -0.3), (0.83, low)])
    outer = smooth_curve(np.concatenate([top, mirrored(top[-2::-1])]))
    inner = smooth_curve(np.concatenate([mirrored(line)[::-1], line[1:]]))
    width = (identity.face_width, 1.0)
    head.paint((inner + np.array([0.0, 0.03])) * width, mixed(identity.skin, _BLACK, 0.6), 0.3, width=0.06, soft=0.03)
    head.paint(np.concatenate([outer, inner]) * width, identity.hair_colour, soft=0.014)
    head.blob(-0.2, -1.15, (0.4, 0.1), mixed(identity.hair_colour, _WHITE, 0.3), 0.4)
