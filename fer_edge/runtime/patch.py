"""Square patches around a face for a search near its last box, and the overlap of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import require
from fer_edge.core.types import Array, Uint8
from fer_edge.runtime.detector import Face
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["Patch", "box_overlaps", "cut_patch", "overlap"]


def box_overlaps(first: Sequence[BoxXyxy], second: Sequence[BoxXyxy]) -> NDArray[np.float64]:
    """Compute the intersection over union of all pairs of boxes: float64 (len(first), len(second)), 0 to 1."""
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def overlap(first: BoxXyxy, second: BoxXyxy) -> float:
    """Compute the intersection over union of two boxes, 0 to 1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / max(sum(areas) - shared, 1e-12)


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """An upright square around a face.

    Attributes:
        image: uint8 (S, S) or (S, S, 3).
        scale: pixels of the patch per pixel of the frame.
        back: the affine matrix (2, 3) from the patch to the frame.
    """

    image: Uint8
    scale: float
    back: Array

    def to_frame(self, box: BoxXyxy) -> BoxXyxy:
        """Return an upright box about the same point of the frame, in the frame's pixels."""
        x, y = self.back @ ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1.0)
        across, down = (box[2] - box[0]) / self.scale / 2, (box[3] - box[1]) / self.scale / 2
        return float(x - across), float(y - down), float(x + across), float(y + down)


def cut_patch(image: Uint8, face: Face, *, margin: float, side: int, enlarge: bool) -> Patch:
    """Cut a face with a margin on each side, resize it to `side` pixels and rotate its head upright.

    Pixels outside the frame repeat its border. Without `enlarge` a smaller patch keeps its size.
    """
    cv2 = require("cv2", needed_by="face detection", extra="cpu")
    left, top, right, bottom = face.box_xyxy
    size = max(right - left, bottom - top)
    reach = max(1, round(size * (0.5 + margin)))
    x, y = round((left + right) / 2), round((top + bottom) / 2)
    rows, columns = image.shape[:2]
    patch = image[max(0, y - reach) : max(0, y + reach), max(0, x - reach) : max(0, x + reach)]
    if not patch.size:
        patch = image[:1, :1]
    outside = (reach - y, y + reach - rows, reach - x, x + reach - columns)
    if max(outside) > 0:
        patch = cv2.copyMakeBorder(patch, *(max(0, border) for border in outside), cv2.BORDER_REPLICATE)
    side = side if enlarge else min(side, 2 * reach)
    patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    scale = side / (2 * reach)
    forth = cv2.getRotationMatrix2D((side / 2, side / 2), face.tilt_deg, 1.0)
    if face.tilt_deg:
        patch = cv2.warpAffine(patch, forth, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    back = cv2.invertAffineTransform(forth) / scale
    back[:, 2] += (x - reach, y - reach)
    return Patch(image=patch, scale=scale, back=back)
