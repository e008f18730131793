"""The parameters of a drawn face: identity, action units, pose, light, camera, occlusion.

Expressions are combinations of FACS action units (Ekman, Friesen, Hager: Facial Action Coding System, 2002), after
the EMFACS prototypes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

from fer_edge.core.errors import InputError
from fer_edge.core.json import expect

__all__ = [
    "EXPRESSION_UNITS",
    "ActionUnits",
    "Box",
    "Camera",
    "Colour",
    "Face",
    "Hair",
    "Identity",
    "Light",
    "Occlusion",
    "Pose",
    "mixed",
]

Colour: TypeAlias = tuple[float, float, float]
"""BGR, each 0..255."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
Hair: TypeAlias = Literal["short", "parted", "fringe", "long", "receding", "bald"]


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Mix `share` of `second` into `first`."""
    return tuple(x + (y - x) * share for x, y in zip(first, second, strict=True))  # type: ignore[return-value]


_Ranges: TypeAlias = Mapping[tuple[float, float], tuple[str, ...]]
"""(low, high) -> fields; no field means all."""


class _Checked:
    """Refuses a field outside its range in `_RANGES`."""

    _RANGES: ClassVar[_Ranges]

    def __post_init__(self) -> None:
        for (low, high), names in self._RANGES.items():
            for name in names or [field.name for field in dataclasses.fields(self)]:  # type: ignore[arg-type]
                value = getattr(self, name)
                if not low <= value <= high:  # also refuses NaN
                    raise InputError(f"{type(self).__name__}.{name}: got {value!r}, expected {low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True)
class ActionUnits(_Checked):
    """Strength, 0..1, of each FACS action unit that the renderer draws."""

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

    _RANGES: ClassVar[_Ranges] = {(0.0, 1.0): ()}

    def scaled(self, intensity: float) -> ActionUnits:
        """Multiply every unit by `intensity`, 0..1."""
        expect(0.0 <= intensity <= 1.0, "intensity", intensity, "0 to 1")
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
class Identity(_Checked):
    """The person, independent of the expression. Factors are relative to an average face."""

    seed: int = 0  # grain of skin and hair, and a slight asymmetry
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
    hair: Hair = "short"
    hair_colour: Colour = (35.0, 50.0, 70.0)
    beard: Literal["none", "stubble", "moustache", "full"] = "none"
    glasses: Literal["none", "thin", "thick"] = "none"
    age: float = 0.3  # 0 smooth skin to 1 deep lines

    _RANGES: ClassVar[_Ranges] = {
        (0.7, 1.4): (
            "face_width", "jaw_width", "eye_size", "eye_spacing", "nose_width", "nose_length", "mouth_width",
        ),
        (0.4, 2.0): ("brow_thickness", "lip_fullness"),
        (0.0, 1.0): ("age",),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pose(_Checked):
    """Head rotation in degrees: yaw turns to the viewer's right, pitch nods down, roll tilts clockwise."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0

    _RANGES: ClassVar[_Ranges] = {(-35.0, 35.0): ("yaw_deg", "pitch_deg", "roll_deg")}


@dataclass(frozen=True, kw_only=True)
class Light(_Checked):
    """One soft lamp and ambient light. Azimuth is positive to the viewer's right, elevation positive upwards."""

    azimuth_deg: float = -25.0
    elevation_deg: float = 30.0
    contrast: float = 0.5  # share of the lamp, 0..1; the rest is ambient
    brightness: float = 1.0

    _RANGES: ClassVar[_Ranges] = {
        (-90.0, 90.0): ("azimuth_deg", "elevation_deg"), (0.0, 1.0): ("contrast",), (0.1, 2.0): ("brightness",),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Camera(_Checked):
    """Blur and noise of the camera; lengths are fractions of the face box's side."""

    blur: float = 0.0  # standard deviation of the Gaussian
    motion_blur: float = 0.0  # length of a horizontal smear
    noise: float = 0.0  # standard deviation in grey levels

    _RANGES: ClassVar[_Ranges] = {(0.0, 0.2): ("blur", "motion_blur"), (0.0, 60.0): ("noise",)}


@dataclass(frozen=True, kw_only=True)
class Occlusion(_Checked):
    """An object in front of the face; lengths are in half box sides, `x` and `y` from the centre of the face."""

    kind: Literal["hand", "bar", "glare"]
    x: float
    y: float
    size: float = 0.5
    angle_deg: float = 0.0

    _RANGES: ClassVar[_Ranges] = {(-2.0, 2.0): ("x", "y"), (0.05, 1.5): ("size",)}


@dataclass(frozen=True, kw_only=True)
class Face:
    """The parameters of `draw_face`."""

    identity: Identity = dataclasses.field(default_factory=Identity)
    units: ActionUnits = dataclasses.field(default_factory=ActionUnits)
    pose: Pose = dataclasses.field(default_factory=Pose)
    light: Light = dataclasses.field(default_factory=Light)
    occlusion: Occlusion | None = None
    gaze: tuple[float, float] = (0.0, 0.0)  # position of the irises, right and down, -1..1
