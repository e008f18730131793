"""Backgrounds: backdrops for stills, a car's cabin for clips; and the person in front of one, seen by a camera."""

from __future__ import annotations

import cv2
import numpy as np

from fer_edge.core.json import expect
from fer_edge.core.types import Uint8
from fer_edge.data.faces.drawing import draw_face, fill
from fer_edge.data.faces.geometry import smooth_curve
from fer_edge.data.faces.people import Box, Colour, Face, mixed

__all__ = ["apply_camera", "backdrop", "cabin", "face_in_scene", "random_cloth"]


def _random_colour(rng: np.random.Generator, low: float, high: float, *, tint: float = 0.18) -> Colour:
    blue, green, red = np.minimum(rng.uniform(low, high) * rng.uniform(1 - tint, 1 + tint, 3), 255.0)
    return (float(blue), float(green), float(red))


def random_cloth(rng: np.random.Generator) -> Colour:
    """Choose the colour of a shirt."""
    return _random_colour(rng, 45, 175, tint=0.35)


def backdrop(width: int, height: int, rng: np.random.Generator, *, clutter: float = 0.5) -> Uint8:
    """Draw a wall with a light gradient and blurred objects: uint8 (H, W, 3) BGR; `clutter` 0..1."""
    first, second = (np.array(_random_colour(rng, 40, 200)) for _ in range(2))
    across, down = np.linspace(0, rng.random(), width)[None, :, None], np.linspace(0, 0.5, height)[:, None, None]
    picture = np.clip(first + (second - first) * (across + down), 0, 255).astype(np.uint8)
    for _ in range(int(9 * clutter)):
        middle, reach = rng.random(2) * (width, height), rng.uniform(0.05, 0.35, 2) * (width, height)
        corners = middle + reach * [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        fill(picture, corners, _random_colour(rng, 20, 220))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(0.5, 0.008 * height)), dtype=np.uint8)


def cabin(width: int, height: int, rng: np.random.Generator) -> Uint8:
    """Draw the empty inside of a car as seen from the dashboard: uint8 (H, W, 3) BGR.

    Raises:
        InputError: a side is shorter than 16 pixels.
    """
    expect(min(width, height) >= 16, "size", (width, height), "at least 16x16 pixels")
    trim, seat, sky = (_random_colour(rng, *between) for between in ((38, 62), (48, 95), (175, 225)))
    picture = np.full((height, width, 3), trim, np.float32).astype(np.uint8)
    back = [(0.24, 1.05), (0.28, 0.75), (0.36, 0.6), (0.64, 0.6), (0.73, 0.75), (0.77, 1.05)]
    rest = [(0.36, 0.56), (0.35, 0.3), (0.42, 0.2), (0.58, 0.2), (0.65, 0.3), (0.64, 0.56)]
    for outline, colour in (
        ([(0.0, 0.16), (0.2, 0.13), (0.25, 0.58), (0.0, 0.62)], sky),
        ([(0.0, 0.42), (0.235, 0.4), (0.25, 0.58), (0.0, 0.62)], mixed(sky, (70.0, 90.0, 80.0), 0.65)),
        ([(0.78, 0.2), (0.97, 0.24), (0.96, 0.52), (0.8, 0.5)], mixed(sky, trim, 0.35)),
        (smooth_curve(back), seat),
        (smooth_curve(rest, closed=True), mixed(seat, (0.0, 0.0, 0.0), 0.2)),
    ):
        fill(picture, np.asarray(outline) * (width, height), colour)
    if rng.random() < 0.5:
        picture = picture[:, ::-1].copy()
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(0.5, 0.007 * height)), dtype=np.uint8)


def face_in_scene(face: Face, background: Uint8, *, box_xyxy: Box, cloth: Colour, belt: bool = False) -> Uint8:
    """Draw a clothed person: uint8 (H, W, 3) BGR, a new array.

    Args:
        background: uint8 (H, W, 3) BGR.
        box_xyxy: the square of the face in pixels.
        cloth: colour of the shirt.
        belt: draw a seat belt.

    Raises:
        InputError: as `draw_face`.
    """
    half, picture = (box_xyxy[2] - box_xyxy[0]) / 2, background.copy()
    centre = (box_xyxy[0] + half, box_xyxy[1] + half)
    right = smooth_curve([(0.0, 1.32), (0.5, 1.28), (0.75, 1.42), (1.6, 1.66), (2.05, 2.1), (2.25, 3.2), (2.35, 6.0)])
    fill(picture, np.concatenate([right, right[::-1] * (-1, 1)]) * half + centre, cloth)
    for side in (1, -1):
        collar = np.array([(0.5, 1.27), (0.78, 1.42), (0.42, 1.78), (0.04, 1.66), (0.3, 1.5)]) * (side, 1)
        fill(picture, collar * half + centre, mixed(cloth, (255.0, 255.0, 255.0), 0.12))
    if belt:
        band = np.array([(1.25, 1.56), (1.55, 1.66), (-0.9, 5.0), (-1.35, 5.0)])
        fill(picture, band * half + centre, mixed(cloth, (20.0, 20.0, 22.0), 0.8))
    return draw_face(face, picture, box_xyxy=box_xyxy)


def apply_camera(picture: Uint8, rng: np.random.Generator, *, blur: float, noise: float) -> Uint8:
    """Add a camera's blur and noise: uint8 of the same shape, a new array.

    Args:
        picture: uint8 (H, W, 3).
        blur: standard deviation of the Gaussian in pixels.
        noise: standard deviation of the noise in grey levels, the same in all channels.
    """
    blurred = cv2.GaussianBlur(picture, (0, 0), blur) if blur > 0.3 else picture
    grain = rng.standard_normal(picture.shape[:2], dtype=np.float32) * np.float32(noise)
    return np.asarray(np.clip(blurred + grain[..., None] + 0.5, 0, 255), np.uint8)
