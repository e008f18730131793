"""Objects between the camera and a face."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_edge.core.types import Uint8
from fer_edge.data.faces.parameters import Colour, Occlusion

__all__ = ["paint_occlusion"]

_SHIFT = 4


def paint_occlusion(
    picture: Uint8, occlusion: Occlusion, skin: Colour, *, centre: tuple[float, float], half: float
) -> None:
    """Paint the occlusion into `picture`, uint8 (H, W, 3) BGR, in place; `half` is half the box side in pixels."""
    where = np.array([centre[0] + occlusion.x * half, centre[1] + occlusion.y * half])
    size = occlusion.size * half
    if occlusion.kind == "hand":
        _hand(picture, where, size, occlusion.angle_deg, skin, inward=-1.0 if occlusion.x > 0 else 1.0)
    elif occlusion.kind == "bar":
        _bar(picture, where, size, occlusion.angle_deg, half)
    else:
        _glare(picture, where, size)


def _line(
    picture: Uint8,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    thickness: float,
    colour: tuple[float, ...],
) -> None:
    a, b = (tuple(int(value * (1 << _SHIFT)) for value in point) for point in (start, end))
    cv2.line(picture, a, b, colour, max(1, round(thickness)), cv2.LINE_AA, _SHIFT)


def _hand(
    picture: Uint8,
    where: NDArray[np.float64],
    size: float,
    angle_deg: float,
    skin: Colour,
    *,
    inward: float,
) -> None:
    """Paint a palm outside the cheek and four fingers that point up and in."""
    edge, flesh = (tuple(channel * factor for channel in skin) for factor in (0.55, 0.9))
    for outline in (True, False):
        colour, extra = (edge, 0.06 * size) if outline else (flesh, 0.0)
        for finger in range(4):
            turn = math.radians(angle_deg + inward * (8 + 11 * finger))
            root = where + np.array([inward * 0.28 * (finger - 1.5) * size, 0.0])
            tip = root + 0.95 * size * np.array([math.sin(turn), -math.cos(turn)]) * (1.0 if finger in {1, 2} else 0.85)
            _line(picture, root, tip, 0.24 * size + extra, colour)
        palm = where + np.array([0.0, 0.45 * size])
        _line(picture, palm, palm + np.array([-inward * 0.5 * size, 1.6 * size]), 1.05 * size + extra, colour)


def _bar(picture: Uint8, where: NDArray[np.float64], size: float, angle_deg: float, half: float) -> None:
    """Paint the rim of a steering wheel, dark with a dull highlight."""
    turn = math.radians(angle_deg)
    along = 2.2 * half * np.array([math.cos(turn), math.sin(turn)])
    _line(picture, where - along, where + along, 2 * size, (34.0, 32.0, 32.0))
    up = np.array([math.sin(turn), -math.cos(turn)]) * 0.45 * size
    _line(picture, where - along + up, where + along + up, 0.3 * size, (74.0, 70.0, 70.0))


def _glare(picture: Uint8, where: NDArray[np.float64], size: float) -> None:
    """Paint a patch of low sun."""
    height, width = picture.shape[:2]
    x = np.exp(-0.5 * ((np.arange(width, dtype=np.float32) - np.float32(where[0])) / np.float32(0.5 * size)) ** 2)
    y = np.exp(-0.5 * ((np.arange(height, dtype=np.float32) - np.float32(where[1])) / np.float32(0.5 * size)) ** 2)
    light = np.float32(110.0) * y[:, None] * x[None, :]
    picture[...] = np.clip(picture + light[..., None], 0, 255).astype(np.uint8)
