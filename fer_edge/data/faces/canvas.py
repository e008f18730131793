"""A float canvas in face units, with soft polygons, strokes and blobs.

One face unit is half the side of the face box; x points right, y down, the origin is the middle of the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_edge.core.types import Float32

__all__ = ["BOTTOM", "LEFT", "RIGHT", "TOP", "Canvas", "Curve", "Mask", "Slices", "ribbon", "smooth_curve", "stretched"]

LEFT, TOP, RIGHT, BOTTOM = -1.45, -1.65, 1.45, 1.6
"""The extent of a canvas in face units."""

_SHIFT = 4  # fractional bits of cv2's polygon coordinates

Curve: TypeAlias = NDArray[np.float64]
"""Points (N, 2) in face units."""
Mask: TypeAlias = Float32
"""Coverage 0..1 of a region of a canvas, (H, W)."""
Slices: TypeAlias = tuple[slice, slice]


def smooth_curve(points: Sequence[tuple[float, float]] | Curve, *, closed: bool = False, steps: int = 8) -> Curve:
    """Return the Catmull-Rom curve through `points`: float64 (N, 2)."""
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    before, start, end, after = (part[:, None, :] for part in (before, start, end, after))
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def ribbon(middle: Curve, half_width: Curve) -> Curve:
    """Return the closed outline of a band around a curve: `middle` (N, 2), `half_width` (N,)."""
    tangent = np.empty_like(middle)
    tangent[1:-1] = middle[2:] - middle[:-2]
    tangent[0], tangent[-1] = middle[1] - middle[0], middle[-1] - middle[-2]
    tangent /= np.hypot(tangent[:, :1], tangent[:, 1:]) + 1e-9
    offset = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * half_width[:, None]
    return np.concatenate([middle - offset, (middle + offset)[::-1]])


def stretched(field: Mask, shape: tuple[int, int]) -> Mask:
    """Resize `field` (h, w) to `shape` (H, W)."""
    return np.asarray(cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


class Canvas:
    """Colour, coverage and relief of a head in front view.

    Attributes:
        scale: pixels per face unit.
        colour: float32 (H, W, 3) BGR, 0..255.
        cover: float32 (H, W), 0..1.
        relief: float32 (H, W), height towards the viewer in face units.
        x, y: float32 (1, W) and (H, 1), face units of each pixel's centre.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale
        width, height = round((RIGHT - LEFT) * scale), round((BOTTOM - TOP) * scale)
        self.shape = (height, width)
        columns, rows = (np.arange(count, dtype=np.float32) + np.float32(0.5) for count in (width, height))
        self.x = (columns / np.float32(scale) + np.float32(LEFT))[None, :]
        self.y = (rows / np.float32(scale) + np.float32(TOP))[:, None]
        self.colour = np.zeros((height, width, 3), np.float32)
        self.cover = np.zeros((height, width), np.float32)
        self.relief = np.zeros((height, width), np.float32)

    def polygon(self, points: Curve, *, soft: float = 0.0) -> tuple[Slices, Mask]:
        """Rasterise a filled polygon: slices into the canvas, and float32 coverage there; `soft` in face units."""
        return self._mask(points, soft, reach=1.0, thickness=0)

    def stroke(self, points: Curve, width: float, *, soft: float = 0.0) -> tuple[Slices, Mask]:
        """Rasterise a line of `width` face units; thinner than a pixel, it is one pixel wide and fainter."""
        pixels = width * self.scale
        thickness = max(1, round(pixels))
        where, mask = self._mask(points, soft, reach=thickness + 1.0, thickness=thickness)
        return where, mask * np.float32(min(1.0, max(pixels, 0.15)))

    def _mask(self, points: Curve, soft: float, *, reach: float, thickness: int) -> tuple[Slices, Mask]:
        height, width = self.shape
        sigma = soft * self.scale
        pixels = (points - (LEFT, TOP)) * self.scale - 0.5
        border = reach + 3.0 * sigma + 1.0
        (left, top), (right, bottom) = pixels.min(axis=0) - border, pixels.max(axis=0) + border
        x0, y0, x1, y1 = max(0, int(left)), max(0, int(top)), min(int(right) + 2, width), min(int(bottom) + 2, height)
        if x1 <= x0 or y1 <= y0:
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = np.round((pixels - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
        if thickness:
            cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
        soft_mask = mask.astype(np.float32) * np.float32(1.0 / 255.0)
        if sigma > 0.3:
            soft_mask = np.asarray(cv2.GaussianBlur(soft_mask, (0, 0), sigma), dtype=np.float32)
        return (slice(y0, y1), slice(x0, x1)), soft_mask

    def tint(self, where: Slices, mask: Mask, colour: Sequence[float], opacity: float = 1.0) -> None:
        """Blend `colour` over the canvas without changing its coverage."""
        part = self.colour[where]
        part += (np.asarray(colour, np.float32) - part) * (mask * np.float32(opacity))[..., None]

    def solid(self, where: Slices, mask: Mask, colour: Sequence[float]) -> None:
        """Blend `colour` over the canvas and add to its coverage."""
        part, cover = self.colour[where], self.cover[where]
        total = mask + cover * (1 - mask)
        share = np.divide(mask, total, out=np.zeros_like(mask), where=total > 1e-6)
        part += (np.asarray(colour, np.float32) - part) * share[..., None]
        cover[...] = total

    def darken(self, where: Slices, mask: Mask, strength: float) -> None:
        """Multiply the colour by 1 - strength * mask."""
        self.colour[where] *= (1 - mask * np.float32(strength))[..., None]

    def crease(self, points: Curve, *, width: float, depth: float, soft: float = 0.01) -> None:
        """Draw a wrinkle: a dark line that fades at both ends, and a groove in the relief; `depth` 0..1."""
        pixels = width * self.scale
        if depth * min(1.0, pixels) < 0.06:  # too faint to be seen
            return
        taper = np.sin(np.linspace(0.08, np.pi - 0.08, len(points))) if len(points) > 3 else np.ones(len(points))
        drawn = max(width, 1.0 / self.scale)  # thinner than a pixel: one pixel wide and fainter
        where, mask = self.polygon(ribbon(points, 0.5 * drawn * taper), soft=soft)
        mask *= np.float32(min(1.0, pixels))
        self.darken(where, mask, 0.62 * depth)
        self.relief[where] -= mask * np.float32(0.03 * depth)

    def blob(self, x: float, y: float, width: float, height: float) -> tuple[Slices, Mask]:
        """Evaluate a Gaussian bump: slices into the canvas, and float32 values there with a peak of 1."""
        columns, rows = self._span(x, 3.2 * width, LEFT, self.shape[1]), self._span(y, 3.2 * height, TOP, self.shape[0])
        across = np.exp(np.float32(-0.5) * ((self.x[:, columns] - np.float32(x)) / np.float32(width)) ** 2)
        down = np.exp(np.float32(-0.5) * ((self.y[rows] - np.float32(y)) / np.float32(height)) ** 2)
        return (rows, columns), down * across

    def placed(self, where: Slices, mask: Mask, into: Slices) -> Mask:
        """Move a mask from the region `where` to `into`, padded with zeros."""
        full = np.zeros(self.shape, np.float32)
        full[where] = mask
        return full[into]

    def _span(self, centre: float, reach: float, origin: float, limit: int) -> slice:
        low = int((centre - reach - origin) * self.scale)
        high = int((centre + reach - origin) * self.scale) + 1
        return slice(min(max(low, 0), limit), max(min(high, limit), 0))
