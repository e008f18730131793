"""Drawn faces with the seven expressions: stills and clips of people who do not exist, reproducible from a seed.

`people` describes and chooses a face; `geometry` computes its curves, `drawing` draws them, `scenes` what is around
them; `stills` and `clips` put them together.
"""

from __future__ import annotations

from fer_edge.data.faces.clips import ClipFrame, synthetic_frames
from fer_edge.data.faces.drawing import draw_face
from fer_edge.data.faces.people import Face, random_face
from fer_edge.data.faces.scenes import face_in_scene
from fer_edge.data.faces.stills import contact_sheet, synthetic_stills

__all__ = [
    "ClipFrame",
    "Face",
    "contact_sheet",
    "draw_face",
    "face_in_scene",
    "random_face",
    "synthetic_frames",
    "synthetic_stills",
]
