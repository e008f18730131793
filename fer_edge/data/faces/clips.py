"""Drawn clips of a driver whose face changes from neutral to an expression and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fer_edge.core.json import expect
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Float32, Uint8
from fer_edge.data.faces.people import Box, random_face, random_units
from fer_edge.data.faces.scenes import apply_camera, cabin, face_in_scene, random_cloth

__all__ = ["ClipFrame", "synthetic_frames"]

_NEUTRAL = EXPRESSIONS.index("neutral")
_SHOWN = 0.5  # lowest intensity of a frame with the expression's label
_SHORTEST = 5  # frames of an onset, an apex and an offset


@dataclass(frozen=True, kw_only=True)
class ClipFrame:
    """One frame with its ground truth.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        time_s: seconds since the first frame.
        label: index into `EXPRESSIONS`; an expression counts from half its strength.
        intensity: 0 neutral to 1 apex.
        box_xyxy: the square face box in pixels.
    """

    image: Uint8
    time_s: float
    label: int
    intensity: float
    box_xyxy: Box


def synthetic_frames(
    expression: str | Sequence[str],
    *,
    frames: int = 60,
    frame_rate: float = 20.0,
    seed: int = 0,
    size: tuple[int, int] = (640, 480),
) -> Iterator[ClipFrame]:
    """Draw a driver in a cabin, with small head motion, blinks and changing light, one frame at a time.

    Args:
        expression: one of the seven, or several in sequence with neutral in between.
        frames: length of the whole clip; at least 5 per expression.
        frame_rate: frames per second, above 0; sets the speed of head, blinks and light.
        seed: a whole number from 0: the person, the cabin and all motion.
        size: width and height in pixels, 96 to 4096 each.

    Raises:
        InputError: an unknown expression, or an argument out of range; raised at once, not at the first frame.
    """
    shown = (expression,) if isinstance(expression, str) else tuple(expression)
    known = bool(shown) and set(shown) <= set(EXPRESSIONS)
    expect(known, "expression", shown, f"at least one of {', '.join(EXPRESSIONS)}")
    expect(frames >= _SHORTEST * len(shown), "frames", frames, f"at least {_SHORTEST} per expression")
    expect(math.isfinite(frame_rate) and frame_rate > 0, "frame_rate", frame_rate, "a number above 0")
    expect(seed >= 0, "seed", seed, "a whole number of at least 0")
    fits = len(size) == 2 and 96 <= min(size) <= max(size) <= 4096
    expect(fits, "size", size, "(width, height) of 96 to 4096 pixels each")
    return _frames(shown, frames, frame_rate, seed, size)


def _frames(
    shown: tuple[str, ...], frames: int, frame_rate: float, seed: int, size: tuple[int, int]
) -> Iterator[ClipFrame]:
    rng = np.random.default_rng((seed, 2))
    scene, cloth = cabin(*size, rng), random_cloth(rng)
    person = random_face(rng, "neutral", turn=0.0)
    apexes = [random_units(rng, name) for name in shown]
    base = 0.175 * min(size[1], 0.8 * size[0]) * rng.uniform(0.95, 1.08)
    centre = np.array(size) * (rng.uniform(0.48, 0.52), rng.uniform(0.41, 0.45))
    speeds, phases = rng.uniform(0.08, 0.3, 7), rng.uniform(0, 2 * math.pi, 7)
    blink_period_s, noise = rng.uniform(2.5, 4.5), rng.uniform(1.5, 4.0)
    segment = np.arange(frames) * len(shown) // frames
    intensities = np.concatenate([_rise_and_fall(int((segment == index).sum())) for index in range(len(shown))])
    for index in range(frames):
        which, intensity, time_s = int(segment[index]), float(intensities[index]), index / frame_rate
        units = apexes[which].scaled(intensity)
        blink = max(0.0, 1.0 - abs((time_s + phases[0]) % blink_period_s - 0.1) / 0.1)
        yaw, pitch, roll, lean, across, light, glow = np.sin(2 * math.pi * speeds * time_s + phases)
        face = dataclasses.replace(
            person,
            units=dataclasses.replace(units, au43=max(units.au43, blink)),
            yaw_deg=7.0 * yaw,
            pitch_deg=4.0 * pitch,
            roll_deg=3.0 * roll,
            light_deg=person.light_deg + 14.0 * light,
            brightness=person.brightness * (1.0 + 0.12 * glow),
        )
        half = base * (1.0 + 0.03 * lean)
        x, y = centre + np.array([0.06 * across + 0.07 * yaw, 0.04 * pitch]) * half
        box = (float(x - half), float(y - half), float(x + half), float(y + half))
        picture = face_in_scene(face, scene, box_xyxy=box, cloth=cloth, belt=True)
        yield ClipFrame(
            image=apply_camera(picture, rng, blur=0.008 * half, noise=noise),
            time_s=time_s,
            label=EXPRESSIONS.index(shown[which]) if intensity >= _SHOWN else _NEUTRAL,
            intensity=intensity,
            box_xyxy=box,
        )


def _rise_and_fall(count: int) -> Float32:
    """float32 (count,): 0, a smooth onset, the apex at 1, a smooth offset, 0."""
    share = np.linspace(0.0, 1.0, count)
    ramp = np.interp(share, (0.0, 0.12, 0.3, 0.75, 0.92, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0))
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)
