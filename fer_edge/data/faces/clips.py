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
from fer_edge.data.faces.parameters import ActionUnits, Box, Camera, Face, Pose
from fer_edge.data.faces.random_source import Draws, random_units
from fer_edge.data.faces.render import apply_camera, draw_face, face_centre_shift
from fer_edge.data.faces.scenes import cabin, paint_torso, random_cloth
from fer_edge.data.faces.stills import random_face

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
    draws = Draws(seed, 2)
    scene = cabin(*size, draws)
    person = random_face(draws, "neutral", frontal=True)
    cloth = random_cloth(draws)
    apexes = [random_units(draws, name) for name in shown]
    motion = _Motion(draws, person, size)
    camera = Camera(blur=0.004, noise=draws.between(1.5, 4.0))
    segment = np.arange(frames) * len(shown) // frames
    intensities = np.concatenate([_rise_and_fall(int((segment == index).sum())) for index in range(len(shown))])
    for index in range(frames):
        which, intensity = int(segment[index]), float(intensities[index])
        face, box, body = motion.at(index / frame_rate, apexes[which].scaled(intensity))
        side = box[2] - box[0]
        picture = scene.copy()
        paint_torso(picture, centre=body, half=side / 2, cloth=cloth, belt=True)
        picture = draw_face(face, picture, box_xyxy=box)
        yield ClipFrame(
            image=apply_camera(picture, camera, box_side=side, draws=draws),
            time_s=index / frame_rate,
            label=EXPRESSIONS.index(shown[which]) if intensity >= _SHOWN else _NEUTRAL,
            intensity=intensity,
            box_xyxy=box,
        )


def _rise_and_fall(count: int) -> Float32:
    """float32 (count,): 0, a smooth onset, the apex at 1, a smooth offset, 0."""
    share = np.linspace(0.0, 1.0, count)
    ramp = np.interp(share, (0.0, 0.12, 0.3, 0.75, 0.92, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0))
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)


class _Wander:
    """A smooth random motion within -1..1: three sines of random phase."""

    def __init__(self, draws: Draws, *, cycles_per_s: float) -> None:
        self._parts = [
            (cycles_per_s * draws.between(0.6, 1.6) * (1 + order), draws.between(0, 2 * math.pi), 0.5 / (1 + order))
            for order in range(3)
        ]

    def at(self, time_s: float) -> float:
        return sum(share * math.sin(2 * math.pi * speed * time_s + phase) for speed, phase, share in self._parts)


class _Motion:
    """Head, eyelids and light of one driver over time."""

    def __init__(self, draws: Draws, person: Face, size: tuple[int, int]) -> None:
        self._person = person
        width, height = size
        self._half = 0.175 * min(height, 0.8 * width) * draws.between(0.95, 1.08)
        self._neck = (width * draws.between(0.48, 0.52), height * draws.between(0.41, 0.45))
        self._yaw, self._pitch, self._roll, self._lean, self._sway = (
            _Wander(draws, cycles_per_s=speed) for speed in (0.13, 0.17, 0.11, 0.08, 0.2)
        )
        self._shake = _Wander(draws, cycles_per_s=2.4)
        self._azimuth, self._brightness = _Wander(draws, cycles_per_s=0.1), _Wander(draws, cycles_per_s=0.15)
        self._blink_period_s, self._blink_start_s = draws.between(2.5, 4.5), draws.between(0.6, 2.0)

    def at(self, time_s: float, units: ActionUnits) -> tuple[Face, Box, tuple[float, float]]:
        """Return face, box and the position of the body."""
        pose = Pose(
            yaw_deg=7.0 * self._yaw.at(time_s),
            pitch_deg=4.0 * self._pitch.at(time_s),
            roll_deg=3.0 * self._roll.at(time_s),
        )
        light = dataclasses.replace(
            self._person.light,
            azimuth_deg=min(90.0, max(-90.0, self._person.light.azimuth_deg + 14.0 * self._azimuth.at(time_s))),
            brightness=min(2.0, self._person.light.brightness * (1.0 + 0.12 * self._brightness.at(time_s))),
        )
        since_blink = (time_s - self._blink_start_s) % self._blink_period_s
        closing = max(0.0, 1.0 - abs(since_blink - 0.1) / 0.1)
        half = self._half * (1.0 + 0.03 * self._lean.at(time_s))
        shift_x, shift_y = face_centre_shift(pose)
        body = (
            self._neck[0] + half * (0.06 * self._sway.at(time_s)),
            self._neck[1] + half * (0.015 * self._shake.at(time_s)),
        )
        x, y = body[0] + shift_x * half, body[1] + shift_y * half
        face = dataclasses.replace(
            self._person, units=dataclasses.replace(units, au43=max(units.au43, closing)), pose=pose, light=light
        )
        return face, (x - half, y - half, x + half, y + half), body
