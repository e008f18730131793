"""Tells from a coarse picture of a face whether another person has taken its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fer_edge.core.errors import require
from fer_edge.core.preprocess import to_grey
from fer_edge.core.types import Uint8

__all__ = ["Appearance"]

_SIDE: Final = 16
_SHIFT: Final = 1  # pixels by which a crop may be displaced in the next frame
_FLAT: Final = 1.0  # standard deviation, in grey levels, below which a picture shows nothing
_SOON_S: Final = 0.15  # heads turn little within this time
_ALIKE_SOON: Final = (
    0.7  # correlation: 0.72 and more for one face in video, below 0.68 for 99 % of pairs of FER2013 faces
)
_ALIKE: Final = 0.4  # later, when the head may have turned: 0.42 and more for one face, below for three pairs of four


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """A face at one time as 16x16 grey pixels; None where it shows nothing."""

    time_s: float
    pixels: Uint8 | None

    @classmethod
    def of(cls, crop: Uint8, *, time_s: float) -> Appearance:
        """Reduce a face crop, uint8 (H, W) grey or (H, W, 3) BGR."""
        cv2 = require("cv2", needed_by="face tracking", extra="cpu")
        pixels = np.asarray(cv2.resize(to_grey(crop), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
        return cls(time_s=time_s, pixels=pixels if pixels.std() > _FLAT else None)

    def is_another(self, earlier: Appearance) -> bool:
        """Return whether this is another person than `earlier`, a face at about the same place a moment before."""
        if self.pixels is None or earlier.pixels is None:
            return False
        cv2 = require("cv2", needed_by="face tracking", extra="cpu")
        middle = earlier.pixels[_SHIFT:-_SHIFT, _SHIFT:-_SHIFT]
        alike = cv2.matchTemplate(self.pixels, middle, cv2.TM_CCOEFF_NORMED).max()
        return bool(alike < (_ALIKE_SOON if self.time_s - earlier.time_s <= _SOON_S else _ALIKE))
