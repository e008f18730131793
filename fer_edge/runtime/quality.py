"""Whether a face crop is fit to be judged: cheap measures of the picture, each with a measured limit.

``bench/quality.py`` measures the limits on FER2013's faces and writes them to ``recipes/quality.toml``. To reject crops
by a rule of your own, pass ``reject=`` to `VideoRecognizer`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import require
from fer_edge.core.json import expect, is_one_of
from fer_edge.core.preprocess import PreprocessSpec, to_grey
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import check_type, number
from fer_edge.runtime.shipped_recipes import shipped_recipe

__all__ = [
    "NOT_A_FACE",
    "UNMEASURED",
    "Measure",
    "Quality",
    "QualityLimit",
    "QualityLimits",
    "chosen_limits",
    "face_thumbnails",
    "judge_crop",
    "judge_crops",
    "measure_crop",
    "quality_limits",
]

Measure: TypeAlias = Literal[
    "side_px", "bright_end", "dark_end", "contrast", "gradient", "detail", "symmetry", "plain", "strangeness"
]

NOT_A_FACE: Final = "not a face"
"""The reason of the learnt measures: the distance from FER2013's faces, and the eighth output of the head `crowd`."""

_SIDE: Final = 48  # crops are measured at the size of FER2013's faces
_CELLS: Final = 6
_PLAIN: Final = 0.12  # a cell with less of the crop's contrast than this shows nothing
_THUMBNAIL: Final = 8
_LEAST_CONTRAST: Final = 1e-3


@dataclass(frozen=True, kw_only=True)
class QualityLimit:
    """The limit of one measure.

    Attributes:
        measure: the measure (`measure_crop`).
        reason: why a crop beyond the limit is rejected.
        reject: the limit; beyond it, seen from `good`, a crop is rejected.
        good: a value as most faces have it; from here on the measure takes nothing from the quality.
        beside_head: the limit where the head `crowd` judges the face too; `reject` where None.

    Raises:
        InputError: `good` equals `reject`, or there is no reason.

    Example:
        >>> from fer_edge.runtime.quality import QualityLimit
        >>> limit = QualityLimit(measure="contrast", reason="flat", reject=20.0, good=40.0)
        >>> limit.score(40.0), limit.score(20.0), limit.score(0.0)
        (1.0, 0.5, 0.0)
    """

    measure: Measure
    reason: str
    reject: float
    good: float
    beside_head: float | None = None

    def __post_init__(self) -> None:
        apart = number("good", self.good, positive=False) - number("reject", self.reject, positive=False)
        number("good - reject", abs(apart))
        expect(isinstance(self.reason, str), "reason", self.reason, "text")
        known = get_args(Measure)
        expect(is_one_of(self.measure, known), "measure", self.measure, ", ".join(known))

    def score(self, value: float) -> float:
        """Return 1 where the value is good, 1/2 at the limit, 0 as far beyond it."""
        return min(1.0, max(0.0, 0.5 + 0.5 * (value - self.reject) / (self.good - self.reject)))


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """The limits of all measures, and the statistics of FER2013's faces that `strangeness` is measured by.

    Attributes:
        limits: a measure may have several.
        mean_face: mean of the thumbnails (`face_thumbnails`), in thousandths.
        face_axes: directions in which they differ most, of length 1, in thousandths.

    Example:
        >>> from fer_edge.runtime.quality import quality_limits
        >>> [limit.reason for limit in quality_limits().limits][:3]
        ['too small', 'dark', 'bright']
    """

    limits: tuple[QualityLimit, ...]
    mean_face: tuple[int, ...] = (0,) * _THUMBNAIL**2
    face_axes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        sizes = {len(row) for row in (self.mean_face, *self.face_axes)}
        expect(sizes == {_THUMBNAIL**2}, "face_axes", sizes, f"rows of {_THUMBNAIL**2} numbers, as mean_face")
        object.__setattr__(self, "_mean", np.array(self.mean_face, np.float32) / 1000)
        axes = np.array(self.face_axes, np.float32).reshape(-1, _THUMBNAIL**2)
        object.__setattr__(self, "_axes", axes / 1000)

    def strangeness(self, thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute how much of each thumbnail the mean face and the axes do not explain: float32 (N,), 0 to about 2."""
        apart = thumbnails - self._mean  # type: ignore[attr-defined]
        along = apart @ self._axes.T  # type: ignore[attr-defined]
        return np.asarray(np.einsum("ij,ij->i", apart, apart) - np.einsum("ij,ij->i", along, along))

    def without(self, *reasons: str) -> QualityLimits:
        """Return a copy that does not reject for these reasons.

        Raises:
            InputError: no limit has such a reason.
        """
        known = {limit.reason for limit in self.limits}
        for reason in reasons:
            expect(is_one_of(reason, tuple(known)), "reasons", reason, f"some of {', '.join(sorted(known))}")
        return dataclasses.replace(self, limits=tuple(each for each in self.limits if each.reason not in reasons))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How fit a crop is to be judged.

    Attributes:
        score: 1 is as most faces are; below 0.5 the crop is rejected. None where it was not measured.
        reasons: why it is rejected, the worst first; empty where it is not.
        detail: the worst measure in words; None where the crop is not rejected.
    """

    score: float | None
    reasons: tuple[str, ...] = ()
    detail: str | None = None


UNMEASURED: Final = Quality(score=None)
"""The quality of a crop that was not measured."""


@functools.cache
def quality_limits(*, beside_head: bool = False) -> QualityLimits:
    """Return the measured limits; those `beside_head` leave to the head `crowd` what it judges better."""
    read = shipped_recipe(QualityLimits, "quality")
    looser = [dataclasses.replace(each, reject=each.beside_head or each.reject) for each in read.limits]
    return dataclasses.replace(read, limits=tuple(looser)) if beside_head else read


def chosen_limits(given: object, *, beside_head: bool) -> QualityLimits | None:
    """Return the limits of an argument: ``"measured"``, `QualityLimits` or None.

    Raises:
        InputError: anything else.
    """
    if is_one_of(given, ("measured",)):
        return quality_limits(beside_head=beside_head)
    check_type("quality", given, (QualityLimits, type(None)), "QualityLimits, 'measured' or None")
    return given  # type: ignore[return-value]


def judge_crop(crop: Uint8, limits: QualityLimits, *, small: Uint8 | None = None) -> Quality:
    """Judge a raw crop, before it is resized for the network.

    Args:
        crop: uint8 (H, W) grey or (H, W, 3) BGR.
        limits: the limits.
        small: the crop as uint8 (48, 48), where it is at hand.

    Raises:
        FrameError: another type or shape.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime.quality import judge_crop, quality_limits
        >>> judge_crop(np.zeros((96, 96), np.uint8), quality_limits()).reasons
        ('flat', 'blurred', 'covered', 'dark')
    """
    values = measure_crop(crop, limits, small=small)
    scored = sorted(((limit.score(values[limit.measure]), limit) for limit in limits.limits), key=lambda each: each[0])
    failed, score = [limit for score, limit in scored if score < 0.5], scored[0][0] if scored else 1.0
    if not failed:
        return Quality(score=score)
    worst, side = failed[0], "least" if failed[0].good > failed[0].reject else "most"
    detail = f"{worst.reason}: {worst.measure} {values[worst.measure]:.3g}, expected at {side} {worst.reject:.3g}"
    return Quality(score=score, reasons=tuple(dict.fromkeys(limit.reason for limit in failed)), detail=detail)


def judge_crops(
    crops: Sequence[Uint8], prepared: Sequence[Uint8], limits: QualityLimits | None, spec: PreprocessSpec
) -> list[Quality]:
    """Judge raw crops that `prepare_face` has prepared; each is `UNMEASURED` where there are no limits."""
    if limits is None:
        return [UNMEASURED] * len(crops)
    same = (spec.size, spec.median, spec.interpolation) == (_SIDE, 0, "area")
    return [judge_crop(crop, limits, small=each if same else None) for crop, each in zip(crops, prepared, strict=True)]


def measure_crop(crop: Uint8, limits: QualityLimits, *, small: Uint8 | None = None) -> dict[Measure, float]:
    """Measure a raw crop: all but `side_px` after resizing it to 48 x 48, or on `small`, which is that already.

    Returns:
        `side_px`: its shorter side. `bright_end`, `dark_end`: the grey values that 5 % and 95 % of the pixels exceed.
        `contrast`: standard deviation of the pixels. `gradient`, `detail`: mean step between neighbouring pixels, and
        standard deviation of the Laplacian, over the contrast. `symmetry`: correlation with the mirror image, -1 to 1.
        `plain`: share of the cells that show next to nothing. `strangeness`: distance from FER2013's faces.

    Raises:
        FrameError: another type or shape.
    """
    cv2 = require("cv2", needed_by="the quality of a crop", extra="cpu")
    grey = to_grey(crop)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) if small is None else small
    ranked = np.cumsum(np.bincount(small.ravel(), minlength=256)) / small.size
    pixels = small.astype(np.float32)
    mean, deviation = (float(each[0, 0]) for each in cv2.meanStdDev(pixels))
    contrast, centred = max(deviation, _LEAST_CONTRAST), pixels - mean
    steps = cv2.norm(pixels[1:], pixels[:-1], cv2.NORM_L1) + cv2.norm(pixels[:, 1:], pixels[:, :-1], cv2.NORM_L1)
    means = cv2.resize(centred, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    squares = cv2.resize(centred * centred, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    plain = squares - means * means < (_PLAIN * contrast) ** 2
    return {
        "side_px": float(min(grey.shape)),
        "bright_end": float(np.searchsorted(ranked, 0.95)),
        "dark_end": float(np.searchsorted(ranked, 0.05)),
        "contrast": contrast,
        "gradient": float(steps) / (2 * _SIDE * (_SIDE - 1)) / contrast,
        "detail": float(cv2.meanStdDev(cv2.Laplacian(pixels, cv2.CV_32F))[1][0, 0]) / contrast,
        "symmetry": float(np.vdot(centred, centred[:, ::-1])) / centred.size / contrast**2,
        "plain": float(np.count_nonzero(plain)) / plain.size,
        "strangeness": float(limits.strangeness(face_thumbnails([small]))[0]),
    }


def face_thumbnails(crops: Sequence[Uint8]) -> NDArray[np.float32]:
    """Shrink crops to 8 x 8, each of mean 0 and length 1 (0 where it is constant): float32 (N, 64)."""
    cv2 = require("cv2", needed_by="the quality of a crop", extra="cpu")
    size = (_THUMBNAIL, _THUMBNAIL)
    rows = np.array([cv2.resize(crop, size, interpolation=cv2.INTER_AREA).ravel() for crop in crops], np.float32)
    rows -= rows.sum(axis=1, keepdims=True) / rows.shape[1]
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return np.asarray(rows / np.maximum(lengths, _LEAST_CONTRAST), np.float32)
