"""Paint skin, eyes, nose and mouth of a face on a canvas: colour, coverage and relief in front view."""

from __future__ import annotations

import numpy as np

from fer_edge.data.faces.canvas import Canvas, Mask, Slices, smooth_curve, stretched
from fer_edge.data.faces.geometry import EyeGeometry, FaceGeometry, MouthGeometry, mirrored, shifted
from fer_edge.data.faces.hair import paint_beard, paint_hair
from fer_edge.data.faces.parameters import Colour, Face, mixed
from fer_edge.data.faces.random_source import Draws

__all__ = ["paint_face"]

_SIDES = (1.0, -1.0)


def _darker(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def paint_face(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    """Paint head, features and wrinkles from back to front."""
    paint_hair(canvas, face, behind=True)
    _neck(canvas, face)
    _skin(canvas, face, geometry)
    paint_beard(canvas, face, geometry)
    _relief(canvas, face, geometry)
    _nose(canvas, face, geometry)
    _mouth(canvas, face, geometry.mouth)
    _eyes(canvas, face, geometry.eye)
    _wrinkles(canvas, face, geometry)
    paint_hair(canvas, face, behind=False)


def _neck(canvas: Canvas, face: Face) -> None:
    width = 0.5 * face.identity.jaw_width
    right = np.array([(width, 0.5), (width, 1.1), (width + 0.04, 1.36), (0.5 * width, 1.52), (0.0, 1.56)])
    outline = np.concatenate([smooth_curve(right), mirrored(smooth_curve(right))[-2::-1]])
    canvas.solid(*canvas.polygon(outline), _darker(face.identity.skin, 0.8))
    under_jaw = smooth_curve([(-0.62, 0.85), (-0.3, 1.12), (0.0, 1.17), (0.3, 1.12), (0.62, 0.85)])
    canvas.darken(*canvas.stroke(under_jaw, 0.22, soft=0.07), 0.5)


def _skin(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    identity = face.identity
    for side in _SIDES:
        ear = np.array([(0.0, -0.17), (0.07, -0.26), (0.12, -0.22), (0.12, -0.08), (0.08, 0.07), (0.02, 0.14)])
        outline = smooth_curve(shifted(ear, 0.83 * identity.face_width, 0.0) * (side, 1.0), closed=True)
        canvas.solid(*canvas.polygon(outline), _darker(identity.skin, 0.86))
        inner = smooth_curve(shifted(ear * (0.7, 0.6), 0.845 * identity.face_width, -0.04) * (side, 1.0), closed=True)
        canvas.darken(*canvas.polygon(inner, soft=0.015), 0.25)
    canvas.solid(*canvas.polygon(geometry.outline), identity.skin)
    flush = mixed(identity.skin, (105.0, 105.0, 205.0), 0.5)
    for side in _SIDES:
        canvas.tint(*canvas.blob(side * 0.47, 0.17, 0.2, 0.16), flush, 0.28)
    canvas.tint(*canvas.blob(0.0, geometry.nose_y, 0.14, 0.1), flush, 0.3)
    grain = Draws(identity.seed, 1).field((48, 48))
    canvas.colour *= (1.0 + 0.012 * stretched(grain, canvas.shape))[..., None]


def _relief(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    units, eye, mouth = face.units, geometry.eye, geometry.mouth
    eye_x, eye_y = eye.centre
    nose_width = geometry.nose_half_width
    brow_y = float(eye.brow_middle[:, 1].mean())
    bumps = [
        # x, y, width, height, amount; mirrored where x is not 0
        (eye_x - 0.03, eye_y - 0.02, 0.15, 0.085, -0.095),
        (0.19, eye_y + 0.02, 0.07, 0.09, -0.055),
        (0.37, 0.5 * (brow_y - 0.48) + 0.03, 0.2, 0.055, 0.05 + 0.015 * units.au4),
        (0.0, -0.44 + 0.05 * units.au4, 0.12, 0.06, 0.02),
        (0.0, -0.85, 0.5, 0.22, 0.03),
        (0.46 + 0.02 * units.au12, 0.13 - 0.05 * units.au6, 0.17, 0.13, 0.05 + 0.05 * units.au12 + 0.02 * units.au6),
        (0.62, 0.4, 0.16, 0.2, -0.03),
        (0.0, 0.5, 0.3, 0.2, 0.05),
        (nose_width * 0.72, geometry.nose_y + 0.03, 0.055, 0.05, 0.055),
        (0.0, geometry.nose_y, 0.1, 0.085, 0.12),
        (0.0, -0.1, 0.055, 0.24, 0.10),
        (0.0, mouth.outer_lower[:, 1].max() + 0.05, 0.17, 0.04, -0.04 - 0.015 * units.au17),
        (0.0, geometry.chin_y - 0.14 - 0.02 * units.au17, 0.17, 0.1, 0.06 + 0.02 * units.au17),
        (0.0, 0.36, 0.03, 0.07, -0.012),
    ]
    for x, y, width, height, amount in bumps:
        for centre in (x, -x) if x else (x,):
            where, bump = canvas.blob(centre, float(y), width, height)
            canvas.relief[where] += np.float32(amount) * bump


def _nose(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    width, y, units = geometry.nose_half_width, geometry.nose_y, face.units
    under = smooth_curve(
        [(-width, y + 0.05), (-0.5 * width, y + 0.09), (0, y + 0.105), (0.5 * width, y + 0.09), (width, y + 0.05)]
    )
    canvas.darken(*canvas.stroke(under, 0.045, soft=0.022), 0.42)
    for side in _SIDES:
        nostril = np.array([(0.32, 0.065), (0.52, 0.045), (0.76, 0.06), (0.55, 0.085)]) * (width, 1.0) + (0.0, y)
        canvas.darken(*canvas.polygon(smooth_curve(nostril * (side, 1.0), closed=True), soft=0.009), 0.72)
        wing = np.array([(width * 0.92, y - 0.05), (width * 1.06, y + 0.01), (width * 0.95, y + 0.07)]) * (side, 1.0)
        canvas.darken(*canvas.stroke(smooth_curve(wing), 0.022, soft=0.01), 0.4 + 0.2 * units.au9)
        bridge = np.array([(0.1, -0.24), (0.085, -0.1), (0.1, y - 0.08)]) * (side, 1.0)
        canvas.darken(*canvas.stroke(smooth_curve(bridge), 0.05, soft=0.03), 0.14)


def _mouth(canvas: Canvas, face: Face, mouth: MouthGeometry) -> None:
    skin, units = face.identity.skin, face.units
    lip = mixed(_darker(skin, 0.78), (85.0, 75.0, 170.0), 0.42)
    upper = np.concatenate([mouth.outer_upper, mouth.inner_upper[::-1]])
    lower = np.concatenate([mouth.inner_lower, mouth.outer_lower[::-1]])
    canvas.tint(*canvas.polygon(lower, soft=0.008), lip, 0.85)
    canvas.tint(*canvas.polygon(upper, soft=0.008), _darker(lip, 0.84), 0.9)
    where, mask = canvas.polygon(lower, soft=0.02)
    canvas.relief[where] += mask * np.float32(0.03)
    where, mask = canvas.polygon(upper, soft=0.02)
    canvas.relief[where] += mask * np.float32(0.015)
    canvas.darken(*canvas.stroke(shifted(mouth.outer_lower[5:-5], 0.0, 0.025), 0.035, soft=0.02), 0.3)
    if mouth.gap > 0.012:
        _open_mouth(canvas, mouth, lip)
    else:
        canvas.darken(*canvas.stroke(mouth.inner_upper, 0.026 + 0.008 * units.au23, soft=0.007), 0.75)
    for side in _SIDES:
        x, y = mouth.corner
        dimple = np.array([(x - 0.02, y), (x + 0.03, y - 0.01 + 0.035 * units.au15 - 0.02 * units.au12)]) * (side, 1.0)
        canvas.darken(*canvas.stroke(dimple, 0.035, soft=0.016), 0.42)


def _open_mouth(canvas: Canvas, mouth: MouthGeometry, lip: Colour) -> None:
    inside = np.concatenate([mouth.inner_upper, mouth.inner_lower[::-1]])
    where, mask = canvas.polygon(inside)
    canvas.tint(where, mask, (22.0, 16.0, 48.0))
    if mouth.gap > 0.16:
        tongue_y = float(mouth.inner_lower[:, 1].max())
        tongue = canvas.placed(*canvas.blob(0.0, tongue_y - 0.01, mouth.corner[0] * 0.5, 0.28 * mouth.gap), into=where)
        canvas.tint(where, mask * np.minimum(1.6 * tongue, 1.0), (92.0, 84.0, 170.0), 0.75)
    shade = canvas.x[:, where[1]] / np.float32(mouth.corner[0] + 1e-6)
    teeth = np.float32(232.0) * (1 - np.float32(0.35) * shade**2)
    for edge, reach, sign in (
        (mouth.inner_upper, mouth.upper_teeth, 1.0),
        (mouth.inner_lower, mouth.lower_teeth, -1.0),
    ):
        if reach < 0.012:
            continue
        band = np.concatenate([edge - (0.0, sign * 0.02), (edge * (0.9, 1.0) + (0.0, sign * reach))[::-1]])
        shown = np.minimum(canvas.placed(*canvas.polygon(band, soft=0.004), into=where), mask)
        part = canvas.colour[where]
        enamel = np.stack([0.93 * teeth, 0.97 * teeth, teeth], axis=-1)
        part += (enamel - part) * (shown * np.float32(0.95))[..., None]
    canvas.darken(*canvas.stroke(mouth.inner_upper, 0.02, soft=0.008), 0.5)
    canvas.darken(*canvas.stroke(mouth.inner_lower, 0.012, soft=0.006), 0.25)
    for side in _SIDES:
        corner = np.array([mouth.corner, (mouth.corner[0] - 0.05, mouth.corner[1])]) * (side, 1.0)
        canvas.tint(*canvas.stroke(corner, 0.03, soft=0.01), _darker(lip, 0.35), 0.7)


def _eyes(canvas: Canvas, face: Face, eye: EyeGeometry) -> None:
    identity, units = face.identity, face.units
    lash = (26.0, 26.0, 34.0)
    for side in _SIDES:
        flip = (side, 1.0)
        canvas.darken(*canvas.blob(side * eye.centre[0], eye.centre[1] - 0.015, 0.21, 0.105), 0.24)
        opening = np.concatenate([eye.upper, eye.lower[::-1]]) * flip
        where, mask = canvas.polygon(opening)
        lid_open = eye.lower[:, 1].max() - eye.upper[:, 1].min()
        if lid_open > 0.02 and (eye.lower[:, 1] - eye.upper[:, 1]).max() > 0.015:
            canvas.tint(where, mask, (212.0, 216.0, 222.0))
            centre = (side * eye.centre[0] + 0.07 * face.gaze[0], eye.centre[1] + 0.045 * face.gaze[1])
            _iris(canvas, where, mask, centre, eye.iris_radius, identity.eye_colour)
            shadow = shifted(eye.upper * flip, 0.0, 0.018)
            canvas.darken(*canvas.stroke(shadow, 0.045, soft=0.014), 0.36)
        canvas.tint(*canvas.stroke(eye.upper * flip, 0.03, soft=0.006), lash, 0.85)
        canvas.darken(*canvas.stroke(eye.lower[2:-1] * flip, 0.014, soft=0.006), 0.38)
        canvas.darken(*canvas.stroke(eye.fold * flip, 0.014, soft=0.008), 0.35)
        bag = 0.18 + 0.3 * identity.age + 0.25 * max(units.au6, units.au7, units.au9)
        canvas.crease(eye.bag * flip, width=0.018, depth=bag, soft=0.012)
        _brow(canvas, face, eye, side)


def _iris(
    canvas: Canvas, where: Slices, mask: Mask, centre: tuple[float, float], radius: float, colour: Colour
) -> None:
    def disc(x: float, y: float, size: float) -> Mask:
        distance = np.hypot(canvas.x[:, where[1]] - np.float32(x), canvas.y[where[0]] - np.float32(y))
        cover = np.clip((np.float32(size) - distance) * np.float32(canvas.scale) + np.float32(0.5), 0.0, 1.0)
        return np.asarray(cover * mask, np.float32)

    for share, shade in ((1.0, _darker(colour, 0.6)), (0.82, colour), (0.5, (12.0, 10.0, 10.0))):
        canvas.tint(where, disc(*centre, share * radius), shade)
    glint = disc(centre[0] - 0.3 * radius, centre[1] - 0.35 * radius, 0.26 * radius)
    canvas.tint(where, glint, (250.0, 250.0, 250.0), 0.9)


def _brow(canvas: Canvas, face: Face, eye: EyeGeometry, side: float) -> None:
    identity = face.identity
    grey = mixed(identity.hair_colour, (30.0, 34.0, 42.0), 0.45)
    where, mask = canvas.polygon(eye.brow * (side, 1.0), soft=0.011)
    canvas.tint(where, mask, grey, 0.88)
    canvas.relief[where] += mask * np.float32(0.012)


def _wrinkles(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    units, age = face.units, face.identity.age
    fold = 0.15 + 0.35 * age + 0.6 * max(units.au12, units.au9, 0.9 * units.au10) + 0.2 * units.au20
    frown = 0.1 * age + max(units.au4 * (1 - 0.3 * units.au1), 0.5 * units.au9)
    for side in _SIDES:
        flip = (side, 1.0)
        canvas.crease(geometry.nasolabial * flip, width=0.045, depth=0.7 * min(1.0, fold), soft=0.02)
        inner = geometry.eye.brow_middle[0]
        line = np.array([(-0.07, -0.10), (-0.085, -0.03), (-0.075, 0.07)]) + inner
        canvas.crease(smooth_curve(line * flip), width=0.022, depth=0.95 * frown, soft=0.01)
        crow = max(units.au6, 0.4 * units.au9) + 0.2 * age
        for angle in (-0.45, 0.0, 0.4):
            outer = shifted(geometry.eye.upper[-1], 0.045, 0.01)
            ray = np.array([outer, outer + 0.11 * np.array([np.cos(angle), np.sin(angle)])]) * flip
            canvas.crease(ray, width=0.014, depth=0.4 * crow)
        x, y = geometry.mouth.corner
        drop = smooth_curve(np.array([(x + 0.035, y + 0.02), (x + 0.06, y + 0.1), (x + 0.05, y + 0.18)]) * flip)
        canvas.crease(drop, width=0.04, depth=0.5 * units.au15 + 0.2 * age, soft=0.02)
    _forehead_and_nose_wrinkles(canvas, face, geometry)


def _forehead_and_nose_wrinkles(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    units, age = face.units, face.identity.age
    raised = 0.15 * age + max(0.9 * units.au2, 0.35 * units.au1)
    across = np.linspace(-1, 1, 13)
    width = 0.48 if units.au2 > 0.3 else 0.26
    for level in range(3):
        bend = 0.02 * np.cos(across * np.pi) - 0.03 * units.au1 * (1 - across**2)
        line = np.stack([across * width, bend - 0.70 - 0.1 * level], axis=1)
        canvas.crease(line, width=0.018, depth=0.6 * raised, soft=0.012)
    if units.au9 > 0.05:
        for level in range(3):
            y = -0.24 + 0.075 * level
            line = np.array([(-0.13, y - 0.035), (-0.05, y + 0.005), (0.05, y + 0.005), (0.13, y - 0.035)])
            canvas.crease(smooth_curve(line), width=0.03, depth=0.9 * units.au9, soft=0.012)
        for side in _SIDES:
            line = np.array([(0.11, -0.17), (0.17, -0.06), (0.185, 0.06)]) * (side, 1.0)
            canvas.crease(smooth_curve(line), width=0.045, depth=0.7 * units.au9, soft=0.018)
    if units.au17 > 0.05:
        y = float(geometry.mouth.outer_lower[:, 1].max()) + 0.05
        line = np.array([(-0.14, y + 0.035), (0.0, y - 0.01), (0.14, y + 0.035)])
        canvas.crease(smooth_curve(line), width=0.03, depth=0.75 * units.au17, soft=0.014)
