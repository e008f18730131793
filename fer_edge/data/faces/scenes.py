"""Backgrounds: plain or cluttered backdrops for stills, a car's cabin for clips, and the torso."""

from __future__ import annotations

import cv2
import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Uint8
from fer_edge.data.faces.canvas import Curve, smooth_curve
from fer_edge.data.faces.parameters import Colour, mixed
from fer_edge.data.faces.random_source import Draws

__all__ = ["backdrop", "cabin", "paint_torso", "random_cloth"]

_SHIFT = 4


def _empty(width: int, height: int) -> Uint8:
    if width < 16 or height < 16:
        raise InputError(f"picture size is {width}x{height}, expected at least 16x16 pixels")
    return np.zeros((height, width, 3), np.uint8)


def _fill(picture: Uint8, points: Curve, colour: Colour) -> None:
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(picture, [fixed], colour, cv2.LINE_AA, _SHIFT)


def _colour(draws: Draws, low: float, high: float, *, tint: float = 0.18) -> Colour:
    grey = draws.between(low, high)
    blue, green, red = (grey * draws.between(1 - tint, 1 + tint) for _ in range(3))
    return (min(blue, 255.0), min(green, 255.0), min(red, 255.0))


def random_cloth(draws: Draws) -> Colour:
    """Choose the colour of a shirt."""
    return _colour(draws, 45, 175, tint=0.35)


def backdrop(width: int, height: int, draws: Draws, *, clutter: float = 0.5) -> Uint8:
    """Draw a wall with a light gradient and blurred objects: uint8 (H, W, 3) BGR; `clutter` 0..1."""
    picture = _empty(width, height)
    first, second = _colour(draws, 40, 200), _colour(draws, 40, 200)
    share = (
        np.linspace(0, 1, width)[None, :, None] * draws.between(0, 1) + np.linspace(0, 1, height)[:, None, None] * 0.5
    )
    picture[...] = np.clip(np.asarray(first) + (np.asarray(second) - np.asarray(first)) * share, 0, 255).astype(
        np.uint8
    )
    for _ in range(int(9 * clutter)):
        x, y = draws.between(0, width), draws.between(0, height)
        w, h = draws.between(0.05, 0.3) * width, draws.between(0.05, 0.4) * height
        _fill(
            picture, np.array([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)]), _colour(draws, 20, 220)
        )
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(0.5, 0.008 * height)), dtype=np.uint8)


def cabin(width: int, height: int, draws: Draws) -> Uint8:
    """Draw the empty inside of a car as seen from the dashboard: uint8 (H, W, 3) BGR."""
    picture = _empty(width, height)
    size = np.array([width, height], dtype=np.float64)
    trim, seat, sky = _colour(draws, 38, 62), _colour(draws, 48, 95), _colour(draws, 175, 225, tint=0.06)
    picture[...] = np.clip(np.asarray(trim), 0, 255).astype(np.uint8)
    side = draws.chance(0.5)

    def place(*points: tuple[float, float]) -> Curve:
        spot = np.array(points)
        if side:
            spot = (1 - spot[:, 0])[:, None] * (1.0, 0.0) + spot * (0.0, 1.0)
        return np.asarray(spot * size)

    ground = mixed(sky, (70.0, 90.0, 80.0), 0.65)
    window = ((0.0, 0.16), (0.2, 0.13), (0.25, 0.58), (0.0, 0.62))
    _fill(picture, place(*window), sky)
    _fill(picture, place((0.0, 0.42), (0.235, 0.40), (0.25, 0.58), (0.0, 0.62)), ground)
    _fill(picture, place((0.03, 0.34), (0.1, 0.33), (0.12, 0.46), (0.02, 0.47)), mixed(ground, (40.0, 60.0, 50.0), 0.6))
    _fill(picture, place((0.78, 0.2), (0.97, 0.24), (0.96, 0.52), (0.8, 0.5)), mixed(sky, trim, 0.35))
    _fill(picture, place((0.2, 0.1), (0.27, 0.1), (0.33, 0.75), (0.25, 0.75)), mixed(trim, (0.0, 0.0, 0.0), 0.3))
    _fill(
        picture,
        place((0.0, 0.0), (1.0, 0.0), (1.0, 0.14), (0.5, 0.09), (0.0, 0.15)),
        mixed(trim, (150.0, 155.0, 160.0), 0.5),
    )
    back = smooth_curve([(0.24, 1.05), (0.28, 0.75), (0.36, 0.6), (0.64, 0.6), (0.73, 0.75), (0.77, 1.05)])
    _fill(picture, place(*map(tuple, back)), seat)
    rest = smooth_curve(
        [(0.36, 0.56), (0.35, 0.3), (0.42, 0.2), (0.58, 0.2), (0.65, 0.3), (0.64, 0.56), (0.5, 0.6)], closed=True
    )
    _fill(picture, place(*map(tuple, rest)), mixed(seat, (0.0, 0.0, 0.0), 0.2))
    blurred = cv2.GaussianBlur(picture, (0, 0), max(0.5, 0.007 * height)).astype(np.float32)
    glow = np.exp(-np.abs(np.linspace(0, 1, width) - (1.0 if side else 0.0)) * 3.0)[None, :, None]
    return np.clip(blurred * (0.85 + 0.3 * glow), 0, 255).astype(np.uint8)


def paint_torso(picture: Uint8, *, centre: tuple[float, float], half: float, cloth: Colour, belt: bool) -> None:
    """Paint shoulders under a head, in place; `centre` and `half` of the face box are in pixels."""

    def place(points: Curve) -> Curve:
        return np.asarray(points * half + centre)

    right = np.array([(0.0, 1.32), (0.5, 1.28), (0.75, 1.42), (1.6, 1.66), (2.05, 2.1), (2.25, 3.2), (2.35, 6.0)])
    curve = smooth_curve(right)
    _fill(picture, place(np.concatenate([curve, (curve * (-1, 1))[::-1]])), cloth)
    for side in (1, -1):
        arm = smooth_curve([(1.3, 2.5), (1.42, 3.2), (1.5, 6.0), (1.62, 6.0), (1.52, 3.1)]) * (side, 1.0)
        _fill(picture, place(arm), mixed(cloth, (0.0, 0.0, 0.0), 0.25))
        collar = np.array([(0.5, 1.27), (0.78, 1.42), (0.42, 1.78), (0.04, 1.66), (0.3, 1.5)]) * (side, 1.0)
        _fill(picture, place(collar), mixed(cloth, (255.0, 255.0, 255.0), 0.12))
    if belt:
        band = np.array([(1.25, 1.56), (1.55, 1.66), (-0.9, 5.0), (-1.35, 5.0)])
        _fill(picture, place(band), mixed(cloth, (20.0, 20.0, 22.0), 0.8))
