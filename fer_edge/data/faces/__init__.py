"""Drawn faces with the seven expressions: stills and clips of people who do not exist, reproducible from a seed.

`stills` and `clips` draw; `parameters` describes a face, `random_source` chooses one; `render` paints it by `geometry`,
`paint`, `hair`, `occlusion` and `scenes` on a `canvas`.
"""

from __future__ import annotations

from fer_edge.data.faces.clips import ClipFrame, synthetic_frames
from fer_edge.data.faces.parameters import Face
from fer_edge.data.faces.render import draw_face
from fer_edge.data.faces.stills import contact_sheet, face_in_scene, random_face, synthetic_stills

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
