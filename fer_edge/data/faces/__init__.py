"""Procedural faces with the seven expressions: stills and clips of people who do not exist, all from a seed."""

from __future__ import annotations

from fer_edge.data.faces.clips import ClipFrame, SyntheticClip, synthetic_clip, synthetic_frames
from fer_edge.data.faces.contact_sheet import contact_sheet
from fer_edge.data.faces.parameters import (
    EXPRESSION_UNITS,
    ActionUnits,
    Camera,
    Face,
    Identity,
    Light,
    Occlusion,
    Pose,
)
from fer_edge.data.faces.random_source import Draws
from fer_edge.data.faces.render import apply_camera, draw_face
from fer_edge.data.faces.scenes import backdrop, cabin
from fer_edge.data.faces.stills import face_in_scene, random_face, synthetic_stills

__all__ = [
    "EXPRESSION_UNITS",
    "ActionUnits",
    "Camera",
    "ClipFrame",
    "Draws",
    "Face",
    "Identity",
    "Light",
    "Occlusion",
    "Pose",
    "SyntheticClip",
    "apply_camera",
    "backdrop",
    "cabin",
    "contact_sheet",
    "draw_face",
    "face_in_scene",
    "random_face",
    "synthetic_clip",
    "synthetic_frames",
    "synthetic_stills",
]
