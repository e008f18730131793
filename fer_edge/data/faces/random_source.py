"""Random people, expressions, poses and light, the same for a seed in every NumPy version."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Float32
from fer_edge.data.faces.parameters import (
    EXPRESSION_UNITS,
    ActionUnits,
    Camera,
    Colour,
    Hair,
    Identity,
    Light,
    Occlusion,
    Pose,
    mixed,
)

__all__ = [
    "Draws",
    "random_camera",
    "random_identity",
    "random_light",
    "random_occlusion",
    "random_pose",
    "random_units",
]

_T = TypeVar("_T")


class Draws:
    """Random draws that are the same in every NumPy version.

    They use only `Generator.random`, whose stream is PCG64's; other methods may change between releases (NEP 19).
    """

    def __init__(self, *key: int) -> None:
        if any(part < 0 for part in key):
            raise InputError(f"seed: got {key}, expected whole numbers of at least 0")
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def between(self, low: float, high: float) -> float:
        """Draw uniformly from [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(self._generator.random()) < probability

    def pick(self, choices: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
        """Choose one of `choices`."""
        shares = np.cumsum(weights if weights is not None else np.ones(len(choices)))
        index = int(np.searchsorted(shares, float(self._generator.random()) * shares[-1], side="right"))
        return choices[min(index, len(choices) - 1)]

    def whole(self, stop: int) -> int:
        """Draw a whole number in [0, stop)."""
        return int(float(self._generator.random()) * stop)

    def field(self, shape: tuple[int, ...]) -> Float32:
        """Draw triangular noise of mean 0 and standard deviation 1: float32 of `shape`."""
        pair = self._generator.random((2, *shape), dtype=np.float32)
        return np.asarray((pair[0] + pair[1] - np.float32(1.0)) * np.float32(6.0**0.5))


_SKINS: Final[tuple[Colour, ...]] = (
    (178, 198, 236), (158, 184, 228), (146, 176, 220), (128, 160, 208),
    (108, 142, 192), (88, 120, 172), (70, 98, 146), (58, 80, 122),
)  # fmt: skip
_HAIRS: Final[tuple[Colour, ...]] = (
    (24, 24, 28), (30, 38, 52), (40, 58, 86), (70, 104, 140), (110, 160, 196), (36, 62, 120), (150, 152, 156),
)  # fmt: skip
_EYES: Final[tuple[Colour, ...]] = ((30, 48, 70), (35, 60, 92), (70, 100, 90), (130, 105, 80))


def random_identity(draws: Draws) -> Identity:
    """Draw an adult."""
    tone = draws.between(0.0, len(_SKINS) - 1.001)
    low, share = int(tone), tone % 1.0
    hair_colours = _HAIRS if tone < 4.0 else _HAIRS[:2]
    bearded = draws.chance(0.5)
    styles: tuple[Hair, ...] = ("short", "parted", "receding", "bald", "fringe", "long")
    hair = draws.pick(styles, (4, 3, 1, 1, 0, 0) if bearded else (2, 2, 0, 0, 1.5, 4))
    return Identity(
        seed=draws.whole(2**31),
        skin=mixed(_SKINS[low], _SKINS[low + 1], share),
        face_width=draws.between(0.92, 1.07),
        jaw_width=draws.between(0.88, 1.04) + (0.06 if bearded else 0.0),
        eye_size=draws.between(0.92, 1.12),
        eye_spacing=draws.between(0.95, 1.06),
        eye_colour=draws.pick(_EYES if tone < 3.0 else _EYES[:2]),
        brow_thickness=draws.between(0.75, 1.1) + (0.25 if bearded else 0.0),
        nose_width=draws.between(0.85, 1.18),
        nose_length=draws.between(0.92, 1.08),
        mouth_width=draws.between(0.9, 1.1),
        lip_fullness=draws.between(0.75, 1.15) + (0.0 if bearded else 0.2),
        hair=hair,
        hair_colour=draws.pick(hair_colours),
        beard=draws.pick(("none", "stubble", "moustache", "full"), (4, 3, 1, 2)) if bearded else "none",
        glasses=draws.pick(("none", "thin", "thick"), (7, 2, 1)),
        age=draws.between(0.0, 0.9),
    )


def random_units(draws: Draws, expression: str, *, intensity: float = 1.0) -> ActionUnits:
    """Draw a variant of an expression, each unit slightly stronger or weaker.

    Raises:
        InputError: an unknown expression.
    """
    if expression not in EXPRESSION_UNITS:
        raise InputError(f"expression: got {expression!r}, expected one of {', '.join(EXPRESSION_UNITS)}")
    variant = draws.pick(EXPRESSION_UNITS[expression])
    units = {name: min(1.0, value * draws.between(0.85, 1.1)) for name, value in dataclasses.asdict(variant).items()}
    if expression == "neutral":  # a resting face still moves slightly
        units = {name: draws.between(0.0, 0.06) if name in {"au4", "au12", "au15", "au43"} else 0.0 for name in units}
    return ActionUnits(**units).scaled(intensity)


def random_pose(draws: Draws, *, spread: float = 1.0) -> Pose:
    """Draw a near-frontal pose: at spread 1 within 16 degrees of yaw, 9 of pitch, 7 of roll."""
    yaw, pitch, roll = (draws.between(-1, 1) * draws.between(0.2, 1) * spread for _ in range(3))
    return Pose(yaw_deg=16.0 * yaw, pitch_deg=9.0 * pitch, roll_deg=7.0 * roll)


def random_light(draws: Draws) -> Light:
    """Draw a lamp above the face on either side."""
    return Light(
        azimuth_deg=draws.between(-55.0, 55.0),
        elevation_deg=draws.between(5.0, 50.0),
        contrast=draws.between(0.3, 0.65),
        brightness=draws.between(0.8, 1.15),
    )


def random_camera(draws: Draws) -> Camera:
    """Draw a camera, from a good one to a cheap one in the dark."""
    return Camera(
        blur=draws.between(0.0, 0.014),
        motion_blur=draws.between(0.0, 0.05) if draws.chance(0.2) else 0.0,
        noise=draws.between(0.5, 9.0),
    )


def random_occlusion(draws: Draws) -> Occlusion:
    """Draw a hand at the cheek or chin, the rim of the wheel, or glare."""
    kind = draws.pick(("hand", "bar", "glare"))
    side = -1.0 if draws.chance(0.5) else 1.0
    if kind == "hand":
        x, y = side * draws.between(0.65, 0.9), draws.between(0.4, 0.9)
        return Occlusion(kind="hand", x=x, y=y, size=draws.between(0.3, 0.45))
    if kind == "bar":
        y, size = draws.between(0.95, 1.1), draws.between(0.12, 0.2)
        return Occlusion(kind="bar", x=0.0, y=y, size=size, angle_deg=draws.between(-15, 15))
    x, y = side * draws.between(0.3, 0.9), draws.between(-0.8, 0.4)
    return Occlusion(kind="glare", x=x, y=y, size=draws.between(0.4, 0.7))
