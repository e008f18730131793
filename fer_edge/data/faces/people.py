"""People to draw: identity, expression as FACS action units, pose and light, fixed or chosen at random.

Expressions are combinations of FACS action units (Ekman, Friesen, Hager: Facial Action Coding System, 2002), after
the EMFACS prototypes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from fer_edge.core.json import expect

__all__ = [
    "EXPRESSION_UNITS",
    "ActionUnits",
    "Box",
    "Colour",
    "Face",
    "Identity",
    "mixed",
    "random_face",
    "random_units",
]

Colour: TypeAlias = tuple[float, float, float]
"""BGR, each 0..255."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Mix `share` of `second` into `first`."""
    return tuple(x + (y - x) * share for x, y in zip(first, second, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class ActionUnits:
    """Strength, 0..1, of each FACS action unit that is drawn."""

    au1: float = 0.0  # inner brow raiser
    au2: float = 0.0  # outer brow raiser
    au4: float = 0.0  # brow lowerer
    au5: float = 0.0  # upper lid raiser
    au6: float = 0.0  # cheek raiser
    au7: float = 0.0  # lid tightener
    au9: float = 0.0  # nose wrinkler
    au10: float = 0.0  # upper lip raiser
    au12: float = 0.0  # lip corner puller
    au15: float = 0.0  # lip corner depressor
    au17: float = 0.0  # chin raiser
    au20: float = 0.0  # lip stretcher
    au23: float = 0.0  # lip tightener
    au25: float = 0.0  # lips part
    au26: float = 0.0  # jaw drop
    au27: float = 0.0  # mouth stretch
    au43: float = 0.0  # eyes closing; 1 is a blink

    def scaled(self, intensity: float) -> ActionUnits:
        """Multiply every unit by `intensity`, 0..1."""
        return ActionUnits(**{name: value * intensity for name, value in dataclasses.asdict(self).items()})


EXPRESSION_UNITS: Final[Mapping[str, tuple[ActionUnits, ...]]] = {
    "angry": (
        ActionUnits(au4=1.0, au5=0.45, au7=0.6, au17=0.35, au23=1.0),
        ActionUnits(au4=1.0, au5=0.35, au7=0.5, au17=0.6, au23=0.8, au15=0.15),
        ActionUnits(au4=1.0, au5=0.4, au7=0.5, au10=0.35, au23=0.5, au25=1.0, au26=0.25),
    ),
    "disgust": (
        ActionUnits(au4=0.2, au6=0.5, au7=0.8, au9=1.0, au10=1.0, au17=0.4),
        ActionUnits(au4=0.2, au6=0.5, au7=0.8, au9=1.0, au10=1.0, au25=0.8),
    ),
    "fear": (
        ActionUnits(au1=1.0, au2=0.25, au4=0.7, au5=1.0, au20=1.0, au25=0.9, au26=0.25),
        ActionUnits(au1=1.0, au2=0.3, au4=0.7, au5=0.9, au20=0.9, au25=0.7, au26=0.45),
    ),
    "happy": (
        ActionUnits(au6=0.8, au12=1.0, au25=0.9, au26=0.15),
        ActionUnits(au6=0.6, au12=0.9),
        ActionUnits(au6=0.9, au12=1.0, au25=1.0, au26=0.45),
    ),
    "sad": (
        ActionUnits(au1=0.9, au4=0.7, au15=1.0, au17=0.6, au43=0.35),
        ActionUnits(au1=0.8, au4=0.8, au15=0.8, au17=0.9, au43=0.45),
    ),
    "surprise": (
        ActionUnits(au1=1.0, au2=1.0, au5=0.8, au25=1.0, au26=0.8, au27=0.5),
        ActionUnits(au1=0.9, au2=1.0, au5=0.9, au25=1.0, au26=0.8, au27=0.9),
    ),
    "neutral": (ActionUnits(),),
}
"""The variants of each expression at full strength."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The person, independent of the expression. Factors are relative to an average face."""

    skin: Colour = (150.0, 178.0, 222.0)
    face_width: float = 1.0
    jaw_width: float = 1.0
    eye_size: float = 1.0
    eye_spacing: float = 1.0
    eye_colour: Colour = (45.0, 70.0, 95.0)
    brow_thickness: float = 1.0
    nose_width: float = 1.0
    nose_length: float = 1.0
    mouth_width: float = 1.0
    lip_fullness: float = 1.0
    hair: Literal["short", "long", "bald"] = "short"
    hair_colour: Colour = (35.0, 50.0, 70.0)
    beard: bool = False
    glasses: bool = False
    age: float = 0.3  # 0 smooth skin to 1 deep lines


@dataclass(frozen=True, kw_only=True)
class Face:
    """The parameters of `draw_face`.

    Attributes:
        yaw_deg, pitch_deg, roll_deg: rotation of the head: to the viewer's right, down, clockwise.
        light_deg: direction of a soft lamp above the face, positive to the viewer's right.
        contrast: share of the lamp in the light, 0..1; the rest is ambient.
        brightness: factor on all light.
        gaze: position of the irises, right and down, -1..1.
    """

    identity: Identity = dataclasses.field(default_factory=Identity)
    units: ActionUnits = dataclasses.field(default_factory=ActionUnits)
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    light_deg: float = -25.0
    contrast: float = 0.5
    brightness: float = 1.0
    gaze: tuple[float, float] = (0.0, 0.0)


_SKINS: Final[tuple[Colour, ...]] = ((178, 198, 236), (146, 176, 220), (108, 142, 192), (70, 98, 146), (58, 80, 122))
_HAIRS: Final[tuple[Colour, ...]] = ((24, 24, 28), (30, 38, 52), (40, 58, 86), (70, 104, 140), (36, 62, 120))
_EYES: Final[tuple[Colour, ...]] = ((30, 48, 70), (35, 60, 92), (70, 100, 90), (130, 105, 80))


def random_identity(rng: np.random.Generator) -> Identity:
    """Choose an adult."""
    tone = rng.uniform(0.0, len(_SKINS) - 1.001)
    dark, low = tone > len(_SKINS) / 2, int(tone)
    bearded = bool(rng.random() < 0.25)
    return Identity(
        skin=mixed(_SKINS[low], _SKINS[low + 1], tone % 1.0),
        face_width=rng.uniform(0.92, 1.07),
        jaw_width=rng.uniform(0.9, 1.07),
        eye_size=rng.uniform(0.92, 1.12),
        eye_spacing=rng.uniform(0.95, 1.06),
        eye_colour=_EYES[rng.integers(2 if dark else len(_EYES))],
        brow_thickness=rng.uniform(0.75, 1.3),
        nose_width=rng.uniform(0.85, 1.18),
        nose_length=rng.uniform(0.92, 1.08),
        mouth_width=rng.uniform(0.9, 1.1),
        lip_fullness=rng.uniform(0.75, 1.25),
        hair=("short", "bald", "short", "long")[rng.integers(2 if bearded else 4)],
        hair_colour=_HAIRS[rng.integers(2 if dark else len(_HAIRS))],
        beard=bearded,
        glasses=bool(rng.random() < 0.25),
        age=rng.uniform(0.0, 0.9),
    )


def random_units(rng: np.random.Generator, expression: str) -> ActionUnits:
    """Choose a variant of an expression, each unit slightly stronger or weaker.

    Raises:
        InputError: an unknown expression.
    """
    expect(expression in EXPRESSION_UNITS, "expression", expression, f"one of {', '.join(EXPRESSION_UNITS)}")
    variants = EXPRESSION_UNITS[expression]
    units = dataclasses.asdict(variants[rng.integers(len(variants))])
    return ActionUnits(**{name: min(1.0, value * rng.uniform(0.85, 1.1)) for name, value in units.items()})


def random_face(
    rng: np.random.Generator, expression: str, *, identity: Identity | None = None, turn: float = 1.0
) -> Face:
    """Choose a person with an expression.

    Args:
        expression: one of the seven.
        identity: the person; a random one by default.
        turn: scale of the rotation: at 1 within 16 degrees of yaw, 9 of pitch, 7 of roll.

    Raises:
        InputError: an unknown expression.
    """
    person = identity or random_identity(rng)
    yaw, pitch, roll = rng.uniform(-turn, turn, 3) * rng.uniform(0.2, 1.0, 3)
    exposure = (495.0 / sum(person.skin)) ** 0.45  # brighter for darker skin, like automatic exposure
    return Face(
        identity=person,
        units=random_units(rng, expression).scaled(rng.uniform(0.75, 1.0)),
        yaw_deg=16.0 * yaw,
        pitch_deg=9.0 * pitch,
        roll_deg=7.0 * roll,
        light_deg=rng.uniform(-55.0, 55.0),
        contrast=rng.uniform(0.3, 0.65),
        brightness=min(1.6, exposure * rng.uniform(0.8, 1.15)),
        gaze=(rng.uniform(-0.35, 0.35), 0.45 if expression == "sad" else rng.uniform(-0.1, 0.15)),
    )
