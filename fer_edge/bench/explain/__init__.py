"""Where a network looked: its own attention over regions and frames, and, as a check, what covering a region costs.

The attention of a face is one weight a region token, so its resolution is the token grid (3x3 in the shipped bundles)
and no finer: pictures show it cell by cell, without interpolation. A token also sees beyond its cell, by the CNN's
receptive field and by the BiLSTM that runs over all tokens. So a weight says what was pooled, not which pixels decided;
covering a region and looking at the probability again (occlusion sensitivity, Zeiler and Fergus 2014, arXiv 1311.2901)
asks the latter.
"""

from __future__ import annotations

from fer_edge.bench.explain.faces import FaceExplanation, FaceMaps, entropies, face_maps
from fer_edge.bench.explain.source import ExplainOptions, SourceExplanation, explain_source
from fer_edge.bench.explain.video import FrameExplanation, VideoExplainer, WindowExplanation

__all__ = [
    "ExplainOptions",
    "FaceExplanation",
    "FaceMaps",
    "FrameExplanation",
    "SourceExplanation",
    "VideoExplainer",
    "WindowExplanation",
    "entropies",
    "explain_source",
    "face_maps",
]
