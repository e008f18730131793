"""Hair, beard and glasses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from fer_edge.data.faces.canvas import Canvas, smooth_curve, stretched
from fer_edge.data.faces.geometry import FaceGeometry, mirrored, shifted
from fer_edge.data.faces.parameters import Colour, Face, mixed
from fer_edge.data.faces.random_source import Draws

__all__ = ["paint_beard", "paint_glasses", "paint_hair"]

# Right half of the hairline, from the middle of the forehead to the sideburn.
_HAIRLINES: Final[Mapping[str, tuple[tuple[float, float], ...]]] = {
    "short": ((0.0, -0.95), (0.35, -0.96), (0.62, -0.86), (0.75, -0.62), (0.80, -0.38), (0.835, -0.18)),
    "parted": ((0.0, -0.98), (0.32, -0.98), (0.6, -0.86), (0.74, -0.6), (0.80, -0.34), (0.83, -0.1)),
    "fringe": ((0.0, -0.80), (0.32, -0.78), (0.6, -0.74), (0.755, -0.5), (0.80, -0.2), (0.83, 0.05)),
    "long": ((0.0, -1.04), (0.28, -0.98), (0.56, -0.82), (0.73, -0.52), (0.79, -0.15), (0.82, 0.2)),
    "receding": ((0.0, -1.12), (0.3, -1.18), (0.55, -1.08), (0.74, -0.78), (0.81, -0.42), (0.84, -0.18)),
}
_CROWNS: Final[Mapping[str, float]] = {"short": 1.36, "parted": 1.46, "fringe": 1.44, "long": 1.46, "receding": 1.33}


def paint_hair(canvas: Canvas, face: Face, *, behind: bool) -> None:
    """Paint the hair behind the head, or on top of it."""
    identity = face.identity
    if identity.hair == "bald" or (behind and identity.hair != "long"):
        return
    width = identity.face_width
    if behind:
        right = np.array([
            (0.0, -1.45), (0.6, -1.35), (0.98, -0.95), (1.1, -0.3), (1.12, 0.4), (1.14, 1.1), (0.85, 1.45), (0.4, 1.3),
        ])  # fmt: skip
        outline = smooth_curve(np.concatenate([right, mirrored(right[:0:-1])]) * (width, 1.0), closed=True)
        canvas.solid(*canvas.polygon(outline, soft=0.012), _dimmed(identity.hair_colour, 0.6))
        return
    crown = _CROWNS[identity.hair]
    line = np.array(_HAIRLINES[identity.hair])
    side = line[-1]
    bulk = 0.05 if identity.hair in {"short", "receding"} else 0.1
    left_line = mirrored(line)
    if identity.hair == "parted":  # combed to one side
        line = shifted(line, 0.0, 0.03)
        left_line[:, 1] += (0.0, 0.05, 0.06, 0.03, 0.0, 0.0)
    top = np.array([
        (side[0] + 0.02, side[1]), (0.87 + 0.4 * bulk, side[1] - 0.14), (0.88 + bulk, -0.6), (0.80 + bulk, -0.98),
        (0.46 + 0.5 * bulk, -crown + 0.08), (0.0, -crown),
    ])  # fmt: skip
    outer = np.concatenate([top, mirrored(top[-2::-1])])
    inner = np.concatenate([left_line[::-1], line[1:]])
    outline = np.concatenate([smooth_curve(outer), smooth_curve(inner)]) * (width, 1.0)
    where, mask = canvas.polygon(outline, soft=0.014)
    strands = stretched(Draws(identity.seed, 2).field((5, 72)), canvas.shape)[where]
    canvas.solid(where, mask, identity.hair_colour)
    after = canvas.colour[where]
    after *= (1 + 0.16 * strands * mask)[..., None]
    sheen = canvas.placed(*canvas.blob(-0.2, -1.12, 0.45, 0.13), into=where) * mask
    after += sheen[..., None] * np.float32(26.0)
    canvas.relief[where] += mask * np.float32(0.03)
    forehead = shifted(smooth_curve(inner) * (width, 1.0), 0.0, 0.02)
    shade_where, shade = canvas.stroke(forehead, 0.05, soft=0.03)
    under = shade * (1 - canvas.placed(where, mask, shade_where))
    canvas.darken(shade_where, under, 0.25)


def _dimmed(colour: Colour, factor: float) -> Colour:
    return mixed((0.0, 0.0, 0.0), colour, factor)


def paint_beard(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    """Paint stubble, moustache or full beard; the lips follow later."""
    kind, identity = face.identity.beard, face.identity
    if kind == "none":
        return
    mouth_x, mouth_y = geometry.mouth.corner
    lip_top = float(geometry.mouth.outer_upper[:, 1].min())
    moustache = np.array([
        (0.0, lip_top - 0.075), (0.14, lip_top - 0.07), (mouth_x + 0.02, mouth_y - 0.04),
        (mouth_x + 0.03, mouth_y + 0.05), (0.5 * mouth_x, lip_top + 0.045), (0.0, lip_top + 0.03),
    ])  # fmt: skip
    moustache = smooth_curve(np.concatenate([moustache, mirrored(moustache[-2:0:-1])]), closed=True)
    grain = 1 + np.float32(0.1) * stretched(Draws(identity.seed, 3).field((110, 110)), canvas.shape)
    strength, colour = (
        (0.3, mixed(identity.hair_colour, identity.skin, 0.2)) if kind == "stubble" else (0.85, identity.hair_colour)
    )
    if kind != "moustache":
        width = 0.86 * identity.face_width
        cheek = np.array(
            [(0.93 * width, 0.0), (0.86 * width, 0.3), (0.6 * width, 0.5), (mouth_x + 0.06, mouth_y + 0.02)]
        )
        lip_bottom = geometry.mouth.outer_lower[:, 1].max()
        chin = np.array([(0.17, lip_bottom + 0.055), (0.0, lip_bottom + 0.05)])
        upper = smooth_curve(np.concatenate([cheek, chin, mirrored(chin[:1]), mirrored(cheek[::-1])]))
        below = np.array([(-1.2, 1.45), (1.2, 1.45)])
        where, mask = canvas.polygon(np.concatenate([upper, below]), soft=0.045 if kind == "stubble" else 0.03)
        head_where, head = canvas.polygon(geometry.outline)
        mask *= canvas.placed(head_where, head, where)
        canvas.tint(where, np.minimum(mask * grain[where], 1.0), colour, strength)
    where, mask = canvas.polygon(moustache, soft=0.02)
    canvas.tint(where, np.minimum(mask * grain[where], 1.0), colour, strength)


def paint_glasses(canvas: Canvas, face: Face, geometry: FaceGeometry) -> None:
    """Paint the frames over the shaded face."""
    kind = face.identity.glasses
    if kind == "none":
        return
    line, colour = (0.024, (60.0, 62.0, 66.0)) if kind == "thin" else (0.045, (28.0, 28.0, 36.0))
    x, y = geometry.eye.centre
    angle = np.linspace(0, 2 * np.pi, 41)
    rounded = np.stack([np.sign(wave) * np.abs(wave) ** 0.6 for wave in (np.cos(angle), np.sin(angle))], axis=1)
    rim = rounded * (0.27, 0.205) + (x + 0.01, y + 0.045)
    for side in (1.0, -1.0):
        flip = (side, 1.0)
        canvas.tint(*canvas.polygon(rim * flip), (235.0, 235.0, 235.0), 0.05)
        canvas.tint(*canvas.stroke(rim * flip, line), colour, 0.92)
        temple = np.array([(x + 0.28, y), (0.87 * face.identity.face_width, y - 0.02)]) * flip
        canvas.tint(*canvas.stroke(temple, line), colour, 0.85)
    bridge = smooth_curve([(-(x - 0.255), y), (0.0, y - 0.04), (x - 0.255, y)])
    canvas.tint(*canvas.stroke(bridge, line), colour, 0.92)
