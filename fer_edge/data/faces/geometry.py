"""The curves of a face in face units, for one identity and one set of action units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.data.faces.people import Face

__all__ = ["Curve", "EyeGeometry", "FaceGeometry", "MouthGeometry", "face_geometry", "mirrored", "smooth_curve"]

Curve: TypeAlias = NDArray[np.float64]
"""Points (N, 2) in face units."""

_T = np.linspace(-1.0, 1.0, 25)


def mirrored(points: Curve) -> Curve:
    """Mirror a curve to the other half of the face."""
    return np.asarray(points * (-1.0, 1.0))


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


@dataclass(frozen=True, kw_only=True)
class EyeGeometry:
    """The eye on the right of the picture; curves run from its inner to its outer corner."""

    centre: tuple[float, float]
    upper: Curve
    lower: Curve
    fold: Curve  # crease of the upper lid
    bag: Curve  # edge of the lower lid
    iris_radius: float
    brow: Curve  # closed outline
    brow_middle: Curve


@dataclass(frozen=True, kw_only=True)
class MouthGeometry:
    """Lips, teeth and opening; curves run from left to right."""

    outer_upper: Curve
    inner_upper: Curve
    inner_lower: Curve
    outer_lower: Curve
    gap: float
    upper_teeth: float  # visible height
    lower_teeth: float
    corner: tuple[float, float]  # the corner on the right


@dataclass(frozen=True, kw_only=True)
class FaceGeometry:
    """All curves of a face."""

    outline: Curve
    chin_y: float
    eye: EyeGeometry
    mouth: MouthGeometry
    nose_y: float  # height of the tip
    nose_half_width: float
    nasolabial: Curve  # the fold on the right, from the wing of the nose down


def face_geometry(face: Face) -> FaceGeometry:
    """Compute all curves."""
    identity, units = face.identity, face.units
    jaw_drop = 0.02 * units.au25 + 0.08 * units.au26 + 0.17 * units.au27 - 0.02 * units.au17
    chin_y = 1.0 + jaw_drop
    nose_y = 0.02 + 0.17 * identity.nose_length - 0.035 * units.au9 - 0.01 * units.au10
    nose_half_width = 0.145 * identity.nose_width * (1 + 0.14 * units.au9 + 0.08 * units.au12 + 0.05 * units.au10)
    mouth = _mouth(face)
    return FaceGeometry(
        outline=_outline(face, chin_y=chin_y, jaw_drop=jaw_drop),
        chin_y=chin_y,
        eye=_eye(face),
        mouth=mouth,
        nose_y=nose_y,
        nose_half_width=nose_half_width,
        nasolabial=_nasolabial(face, mouth, nose_y=nose_y, nose_half_width=nose_half_width),
    )


def _outline(face: Face, *, chin_y: float, jaw_drop: float) -> Curve:
    width, jaw = 0.86 * face.identity.face_width, face.identity.jaw_width
    puff = 0.02 * face.units.au12
    right = np.array([
        (0.0, -1.30), (0.42 * width / 0.86, -1.23), (0.73 * width / 0.86, -0.95), (0.97 * width, -0.55), (width, -0.15),
        (0.965 * width + puff, 0.2), ((0.85 * width + puff) * jaw, 0.53 + 0.4 * jaw_drop),
        (0.62 * width * jaw, 0.82 + 0.8 * jaw_drop), (0.32 * width * jaw, chin_y - 0.025), (0.0, chin_y + 0.02),
    ])  # fmt: skip
    return smooth_curve(np.concatenate([right, mirrored(right[-2:0:-1])]), closed=True)


def _eye(face: Face) -> EyeGeometry:
    identity, units = face.identity, face.units
    centre_x, centre_y = 0.385 * identity.eye_spacing, -0.22
    half_width = 0.185 * identity.eye_size
    open_share = 1.0 - units.au43
    squint = 0.30 * units.au7 + 0.22 * units.au6 + 0.25 * units.au9
    upper_height = 0.088 * identity.eye_size * max(0.25, 1 + 0.75 * units.au5 - squint) * open_share - 0.03 * units.au43
    lower_height = 0.055 * identity.eye_size * max(0.15, 1 + 0.35 * units.au5 - 1.1 * squint - 0.35 * units.au6)
    droop = 0.035 * units.au15 * units.au1  # the outer corner sags in sadness
    x = centre_x + _T * half_width
    tilt = centre_y + 0.012 - 0.02 * (_T + 1) / 2 + droop * ((_T + 1) / 2) ** 2
    lift = 0.03 * units.au1 * (1 - _T) / 2
    upper = np.stack([x, tilt - (upper_height + lift * open_share) * (1 - _T**2) ** 0.7], axis=1)
    lower = np.stack([x, tilt + lower_height * (1 - _T**2) ** 0.8], axis=1)
    fold_gap = 0.035 + 0.02 * units.au43 - 0.012 * units.au5 - 0.015 * units.au4
    fold = upper - np.stack([0 * _T, fold_gap * (1 - 0.5 * _T**2)], axis=1)
    bag = np.stack([x, tilt + (0.10 - 0.025 * (units.au6 + units.au7) / 2) * (1 - _T**2) ** 0.6 + 0.01], axis=1)[4:-3]
    middle = _brow_middle(face)
    along = np.linspace(0, 1, len(middle))
    thickness = (
        0.038 * identity.brow_thickness * np.interp(along, (0, 0.08, 0.3, 0.6, 1), (0.35, 0.85, 1.1, 0.85, 0.12))
    )
    return EyeGeometry(
        centre=(centre_x, centre_y - 0.012),
        upper=upper,
        lower=lower,
        fold=fold,
        bag=bag,
        iris_radius=0.082 * identity.eye_size,
        brow=ribbon(middle, thickness),
        brow_middle=middle,
    )


def _brow_middle(face: Face) -> Curve:
    units, spacing = face.units, face.identity.eye_spacing
    base = np.array([(0.15, -0.435), (0.27, -0.475), (0.42, -0.50), (0.57, -0.475), (0.685, -0.405)]) * (spacing, 1.0)
    inner = np.array([1.0, 0.75, 0.3, 0.0, -0.05])
    outer = np.array([0.0, 0.25, 0.7, 1.0, 0.95])
    lowered = np.array([1.0, 0.85, 0.5, 0.2, 0.05])
    fear_flat = units.au1 * units.au4  # raised and drawn together at once
    up = 0.15 * units.au1 * inner + 0.13 * units.au2 * outer
    down = (0.135 * units.au4 * (1 - 0.75 * units.au1) + 0.05 * units.au9) * lowered
    base[:, 1] += down - up
    base[:, 1] += 0.02 * fear_flat * outer * (1 - units.au2)
    base[:, 0] -= (0.05 * units.au4 + 0.02 * units.au9) * np.array([1.0, 0.8, 0.5, 0.25, 0.1])
    return smooth_curve(base, steps=6)


def _mouth(face: Face) -> MouthGeometry:
    identity, units = face.identity, face.units
    half_width = 0.30 * identity.mouth_width + (
        0.10 * units.au12 + 0.11 * units.au20 - 0.03 * units.au23 * (1 - units.au25)
        - 0.035 * units.au26 * (1 - units.au12) - 0.06 * units.au27 - 0.02 * units.au15 - 0.02 * units.au17
    )  # fmt: skip
    gap = 0.055 * units.au25 + 0.11 * units.au26 * (1 - 0.35 * units.au12) + 0.24 * units.au27
    middle = 0.50 - 0.065 * units.au10 - 0.025 * units.au9 - 0.03 * units.au17 - 0.01 * units.au12 * (1 - units.au25)
    middle -= 0.02 * units.au25 + 0.015 * units.au20
    corner_y = (
        0.508 + 0.5 * gap - 0.135 * units.au12 + 0.115 * units.au15 + 0.035 * units.au20
        + 0.03 * units.au10 * (1 - units.au12) - 0.02 * units.au17 * (1 - units.au15) - 0.4 * gap * units.au12
    )  # fmt: skip
    bared = max(units.au20, units.au23, units.au10) * (1 - units.au12)
    round_mouth = max(0.5 * units.au26 * (1 - units.au12) * (1 - bared), units.au27)
    flat = 2.0 + 2.2 * bared * units.au25 + 0.8 * units.au15
    reach = np.abs(_T) ** flat * (1 - round_mouth) + (1 - np.sqrt(1 - _T**2)) * round_mouth
    x = _T * half_width
    inner_upper = middle + (corner_y - middle) * reach
    inner_lower = middle + gap + (corner_y - middle - gap) * reach
    thin = (1 - 0.65 * units.au23) * (1 - 0.25 * units.au12 * units.au25 - 0.2 * units.au20)
    upper_lip = 0.062 * identity.lip_fullness * thin * (1 - 0.35 * units.au10 - 0.15 * units.au17)
    lower_lip = 0.085 * identity.lip_fullness * thin * (1 + 0.15 * units.au17)
    bow = (1 - np.abs(_T) ** 2.2) - 0.28 * np.exp(-((_T / 0.16) ** 2)) * (1 - units.au12 * 0.5)
    if units.au10 > 0.0:  # the raiser lifts both sides of the upper lip and squares it
        side = np.exp(-(((np.abs(_T) - 0.45) / 0.25) ** 2))
        inner_upper = inner_upper - 0.03 * units.au10 * units.au25 * side
    return MouthGeometry(
        outer_upper=np.stack([x, inner_upper - upper_lip * bow], axis=1),
        inner_upper=np.stack([x, inner_upper], axis=1),
        inner_lower=np.stack([x, inner_lower], axis=1),
        outer_lower=np.stack([x, inner_lower + lower_lip * (1 - _T**2) ** 0.8], axis=1),
        gap=gap,
        upper_teeth=min(0.095, 0.012 * units.au25 + 0.08 * max(units.au12, units.au10, 0.6 * units.au20) * units.au25),
        lower_teeth=0.05 * max(0.8 * units.au20, units.au23) * units.au25 * (1 - units.au12),
        corner=(half_width, corner_y),
    )


def _nasolabial(face: Face, mouth: MouthGeometry, *, nose_y: float, nose_half_width: float) -> Curve:
    units = face.units
    start = (nose_half_width + 0.025, nose_y - 0.02 - 0.03 * units.au9 - 0.02 * units.au10)
    end = (mouth.corner[0] + 0.065 + 0.02 * units.au12, mouth.corner[1] - 0.01 - 0.05 * units.au10)
    bulge = 0.03 + 0.05 * units.au12 + 0.02 * units.au10
    middle = ((start[0] + end[0]) / 2 + bulge, (start[1] + end[1]) / 2 - 0.02 * units.au12)
    return smooth_curve([start, middle, end], steps=8)
