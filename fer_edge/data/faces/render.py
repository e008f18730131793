"""Shade a painted head, rotate it, and composite it into a picture."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.types import Float32, Uint8
from fer_edge.data.faces.canvas import LEFT, TOP, Canvas
from fer_edge.data.faces.geometry import face_geometry
from fer_edge.data.faces.hair import paint_glasses
from fer_edge.data.faces.occlusion import paint_occlusion
from fer_edge.data.faces.paint import paint_face
from fer_edge.data.faces.parameters import Box, Camera, Face, Light, Pose
from fer_edge.data.faces.random_source import Draws

__all__ = ["apply_camera", "draw_face", "face_centre_shift"]

_Grid: TypeAlias = NDArray[np.float64]
_REACH = 1.75
"""Half side of the square that a rotated head may cover, in face units."""


def draw_face(face: Face, background: Uint8, *, box_xyxy: Box) -> Uint8:
    """Draw a head in front of a picture.

    Args:
        face: the face's parameters.
        background: uint8 (H, W, 3) BGR; not modified.
        box_xyxy: square in pixels from the middle of the forehead to the chin, the framing of OpenCV's frontal-face
            cascade and of FER2013; it may exceed the picture.

    Returns:
        uint8 (H, W, 3) BGR, a new array.

    Raises:
        InputError: the background is not a BGR picture, or the box is not a finite square of at least 16 pixels.
    """
    if background.dtype != np.uint8 or background.ndim != 3 or background.shape[2] != 3 or background.size == 0:
        raise InputError(f"background: got {background.dtype} {background.shape}, expected uint8 (H, W, 3) BGR")
    half, centre = _checked_box(box_xyxy)
    finest = 2 if half <= 64 else 1  # small faces are drawn at twice their size
    canvas = Canvas(half * finest)
    geometry = face_geometry(face)
    paint_face(canvas, face, geometry)
    _shade(canvas, face.light, face.pose)
    paint_glasses(canvas, face, geometry)

    picture = background.copy()
    height, width = picture.shape[:2]
    x0, x1 = (min(max(0, round(centre[0] + sign * _REACH * half)), width) for sign in (-1, 1))
    y0, y1 = (min(max(0, round(centre[1] + sign * _REACH * half)), height) for sign in (-1, 1))
    if x1 > x0 and y1 > y0:
        origin = ((x0 - centre[0]) / half, (y0 - centre[1]) / half)
        head = _rotated(canvas, face, origin=origin, pixels=(x1 - x0, y1 - y0), half=half, finest=finest)
        _composite(picture[y0:y1, x0:x1], head)
    if face.occlusion is not None:
        paint_occlusion(picture, face.occlusion, face.identity.skin, centre=centre, half=half)
    return picture


def _checked_box(box_xyxy: Box) -> tuple[float, tuple[float, float]]:
    x0, y0, x1, y1 = box_xyxy
    width, height = x1 - x0, y1 - y0
    if not (math.isfinite(width + height) and width >= 16.0 and abs(width - height) <= 0.02 * width + 1e-6):
        raise InputError(f"box_xyxy: got {box_xyxy}, expected a finite square of at least 16 pixels")
    return width / 2, ((x0 + x1) / 2, (y0 + y1) / 2)


def _shade(canvas: Canvas, light: Light, pose: Pose) -> None:
    """Multiply the colour by Lambert light and ambient occlusion from the relief on a dome."""
    dome = np.maximum(
        1.0 - (canvas.x / np.float32(1.0)) ** 2 - ((canvas.y + np.float32(0.1)) / np.float32(1.55)) ** 2, 0.05
    )
    height = np.float32(0.72) * np.sqrt(dome) + canvas.relief
    per_unit = canvas.scale / 8.0
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=per_unit)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=per_unit)
    length = np.sqrt(slope_x**2 + slope_y**2 + np.float32(1.0))
    azimuth, elevation = math.radians(light.azimuth_deg), math.radians(light.elevation_deg)
    lamp = _head_direction(
        np.array(
            [math.sin(azimuth) * math.cos(elevation), -math.sin(elevation), math.cos(azimuth) * math.cos(elevation)]
        ),
        pose,
    )
    facing = (-slope_x * lamp[0] - slope_y * lamp[1] + lamp[2]) / length
    lambert = np.maximum((facing + np.float32(0.2)) / np.float32(1.2), 0.0)
    sky = 1.0 + np.float32(0.16) * (slope_y / length)  # surfaces that look up get more ambient light
    around = cv2.GaussianBlur(canvas.relief, (0, 0), 0.13 * canvas.scale)
    occlusion = 1.0 + np.clip(2.4 * (canvas.relief - around), -0.26, 0.12)
    shade = (0.98 * (1 - light.contrast) * sky + 1.22 * light.contrast * lambert) * occlusion * light.brightness
    canvas.colour *= np.asarray(shade, np.float32)[..., None]
    half_way = lamp + np.array([0.0, 0.0, 1.0], np.float32)
    half_way /= np.linalg.norm(half_way)
    gloss = np.maximum((-slope_x * half_way[0] - slope_y * half_way[1] + half_way[2]) / length, 0.0)
    for _ in range(4):  # the 16th power
        gloss = gloss * gloss
    canvas.colour += np.asarray(20.0 * light.contrast * light.brightness * gloss, np.float32)[..., None]
    np.clip(canvas.colour, 0.0, 255.0, out=canvas.colour)


def _head_direction(direction: NDArray[np.float64], pose: Pose) -> Float32:
    """Rotate a direction from the picture's frame to the head's (x right, y down, z to the viewer)."""
    yaw, pitch, roll = math.radians(pose.yaw_deg), math.radians(pose.pitch_deg), math.radians(pose.roll_deg)
    x, y, z = direction
    x, y = x * math.cos(roll) + y * math.sin(roll), y * math.cos(roll) - x * math.sin(roll)
    y, z = y * math.cos(pitch) - z * math.sin(pitch), y * math.sin(pitch) + z * math.cos(pitch)
    x, z = x * math.cos(yaw) - z * math.sin(yaw), x * math.sin(yaw) + z * math.cos(yaw)
    return np.array([x, y, z], dtype=np.float32)


def _depth(x: _Grid, y: _Grid) -> _Grid:
    """Return the height of the head above its axis of rotation; smooth, so that the rotation is invertible."""
    dome = 0.62 * (1 - (x / 1.12) ** 2 - 0.35 * ((y + 0.1) / 1.3) ** 2)
    nose = 0.17 * np.exp(-0.5 * ((x / 0.14) ** 2 + ((y - 0.13) / 0.17) ** 2))
    return np.asarray(np.maximum(dome, -0.2) + nose)


def face_centre_shift(pose: Pose) -> tuple[float, float]:
    """Return the shift of the face's centre under a rotation, in face units (right, down)."""
    yaw, pitch, roll = math.radians(pose.yaw_deg), math.radians(pose.pitch_deg), math.radians(pose.roll_deg)
    depth = 0.62
    x, y = depth * math.sin(yaw), depth * math.cos(yaw) * math.sin(pitch)
    return x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll)


def _rotated(
    canvas: Canvas, face: Face, *, origin: tuple[float, float], pixels: tuple[int, int], half: float, finest: int
) -> Float32:
    """Rotate the canvas: premultiplied float32 (H, W, 4) BGRA, 0..255.

    `origin` is the upper left corner of the region in face units from the centre of the face, `pixels` its width and
    height. The rotation is inverted on a coarse grid by fixed-point iteration, and interpolated.
    """
    pose = face.pose
    yaw, pitch, roll = math.radians(pose.yaw_deg), math.radians(pose.pitch_deg), math.radians(pose.roll_deg)
    shift_x, shift_y = face_centre_shift(pose)
    columns, rows = (max(2, min(count, math.ceil(16 * count / half))) for count in pixels)
    flat_x = (np.arange(columns) + 0.5)[None, :] * (pixels[0] / half / columns) + origin[0] + shift_x
    flat_y = (np.arange(rows) + 0.5)[:, None] * (pixels[1] / half / rows) + origin[1] + shift_y
    target_x = flat_x * math.cos(roll) + flat_y * math.sin(roll)
    target_y = flat_y * math.cos(roll) - flat_x * math.sin(roll)
    x, y = target_x, target_y
    for _ in range(7):
        depth = _depth(x, y)
        x = (target_x - depth * math.sin(yaw)) / math.cos(yaw)
        y = (target_y - (depth * math.cos(yaw) - x * math.sin(yaw)) * math.sin(pitch)) / math.cos(pitch)
    x, y = _lopsided(x, y, face.identity.seed)
    fine = (pixels[0] * finest, pixels[1] * finest)
    map_x = cv2.resize(((x - LEFT) * canvas.scale - 0.5).astype(np.float32), fine, interpolation=cv2.INTER_LINEAR)
    map_y = cv2.resize(((y - TOP) * canvas.scale - 0.5).astype(np.float32), fine, interpolation=cv2.INTER_LINEAR)
    layers = np.concatenate(
        [canvas.colour * canvas.cover[..., None], canvas.cover[..., None] * np.float32(255.0)], axis=2
    )
    rotated = cv2.remap(layers, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if finest > 1:
        rotated = cv2.resize(rotated, pixels, interpolation=cv2.INTER_AREA)
    return np.asarray(rotated, dtype=np.float32)


def _lopsided(x: _Grid, y: _Grid, seed: int) -> tuple[_Grid, _Grid]:
    draws = Draws(seed, 4)
    a, b, c, d = (draws.between(-1, 1) for _ in range(4))
    return (
        x + 0.014 * a * np.sin(1.9 * y + 3 * b) * (1 + 0.3 * x),
        y + 0.012 * c * np.sin(1.7 * x + 3 * d),
    )


def _composite(view: Uint8, head: Float32) -> None:
    """Composite a premultiplied head over a region of a picture, in place."""
    blended = view * (1 - head[..., 3:] * np.float32(1 / 255.0)) + head[..., :3]
    view[...] = np.clip(blended + 0.5, 0, 255).astype(np.uint8)


def apply_camera(picture: Uint8, camera: Camera, *, box_side: float, draws: Draws) -> Uint8:
    """Add a camera's blur and noise.

    Args:
        picture: uint8 (H, W, 3) or (H, W).
        camera: the strength of each.
        box_side: side of the face box in pixels, the unit of the blur.
        draws: source of the noise.

    Returns:
        uint8 of the same shape, a new array.
    """
    blurred = picture
    if camera.motion_blur * box_side >= 1.0:
        length = max(2, round(camera.motion_blur * box_side))
        blurred = np.asarray(cv2.blur(blurred, (length, 1)), np.uint8)
    if camera.blur * box_side > 0.3:
        blurred = np.asarray(cv2.GaussianBlur(blurred, (0, 0), camera.blur * box_side), np.uint8)
    if camera.noise <= 0.0:
        return blurred.copy() if blurred is picture else blurred
    noise = draws.field(picture.shape[:2]) * np.float32(camera.noise)
    if picture.ndim == 3:
        noise = noise[..., None]
    return np.asarray(np.clip(blurred + noise + 0.5, 0, 255), np.uint8)
