"""Carries boxes from one frame to the next by the optical flow of points in them (median flow)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import require
from fer_edge.core.types import Array, Uint8
from fer_edge.runtime.detector import Face

__all__ = ["carry_faces"]

_SHARE: Final = np.linspace(0.18, 0.82, 6)  # the box's border is left out: background moves otherwise than the face
_GRID: Final = np.stack(np.meshgrid(_SHARE, _SHARE), axis=-1).reshape(-1, 2)
_LEAST_POINTS: Final = 6
_MAX_ERROR: Final = 2.0  # pixels between a point and where its way forth and back ends
_MAX_SCALE: Final = 1.05  # growth of a box per frame
_REACH: Final = 24  # pixels around the boxes in which their points are looked for


def carry_faces(previous: Uint8, current: Uint8, faces: Sequence[Face], *, scale: float) -> list[Face | None]:
    """Move faces by the median flow of their points; None for a face whose points cannot be followed.

    Points are followed forth and back (Kalal et al. 2010), and the half with the larger error is dropped. The change of
     size is that of the points' distances from their median.

    Args:
        previous: the last frame, uint8 (H, W) grey, shrunk by `scale`.
        current: this frame, of the same shape.
        faces: the faces in the last frame, in pixels of the frame before it was shrunk.
        scale: pixels of these pictures per pixel of the frame.
    """
    if not faces or previous.shape != current.shape:
        return [None] * len(faces)
    boxes = np.array([face.box_xyxy for face in faces]) * scale
    rows, columns = current.shape
    left, top = np.clip(boxes[:, :2].min(0).astype(int) - _REACH, 0, (columns - 1, rows - 1))
    right, bottom = np.clip(boxes[:, 2:].max(0).astype(int) + _REACH, (left + 1, top + 1), (columns, rows))
    part = (slice(top, bottom), slice(left, right))
    grid = boxes[:, None, :2] + _GRID * (boxes[:, None, 2:] - boxes[:, None, :2]) - (left, top)
    moved, usable, error = _follow(previous[part], current[part], grid)
    return [
        _carry(face, old, new, good, wrong, scale)
        for face, old, new, good, wrong in zip(faces, grid, moved, usable, error, strict=True)
    ]


def _follow(previous: Uint8, current: Uint8, grid: Array) -> tuple[Array, Array, Array]:
    """Follow points (N, P, 2) forth and back: new places, whether they were found, and the error in pixels."""
    cv2 = require("cv2", needed_by="face tracking", extra="cpu")
    options: dict[str, Any] = {"winSize": (11, 11), "maxLevel": 2, "criteria": (3, 8, 0.05)}
    start = grid.reshape(-1, 1, 2).astype(np.float32)
    forth, found, _ = cv2.calcOpticalFlowPyrLK(previous, current, start, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(current, previous, forth, None, **options)
    shape = grid.shape[:2]
    error = np.linalg.norm(back - start, axis=-1).reshape(shape)
    return forth.reshape(grid.shape), ((found & found_back) == 1).reshape(shape), error


def _carry(face: Face, old: Array, new: Array, usable: Array, error: Array, scale: float) -> Face | None:
    middle = float(_median(error))
    kept = usable & (error <= middle)
    if kept.sum() < _LEAST_POINTS or middle > _MAX_ERROR:
        return None
    old_centre, new_centre = _median(old[kept]), _median(new[kept])
    across, down = _median(new[kept] - old[kept]) / scale
    before, after = np.abs(old[kept] - old_centre).sum(), np.abs(new[kept] - new_centre).sum()
    grow = min(max(float(after / max(before, 1e-6)), 1 / _MAX_SCALE), _MAX_SCALE)
    left, top, right, bottom = face.box_xyxy
    x, y = (left + right) / 2 + across, (top + bottom) / 2 + down
    half_width, half_height = grow * (right - left) / 2, grow * (bottom - top) / 2
    box = (float(x - half_width), float(y - half_height), float(x + half_width), float(y + half_height))
    return Face(box_xyxy=box, tilt_deg=face.tilt_deg)


def _median(values: Array) -> Array:
    """Return the upper median along the first axis; far faster than numpy's for a few values."""
    return np.asarray(np.sort(values, axis=0)[len(values) // 2])
