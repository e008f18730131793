"""Attention of a network over face regions and window frames, and, as a check, the cost of covering a region.

Attention is one weight per region token, so its resolution is the token grid (3x3 in the shipped bundles); pictures
draw it cell by cell, without interpolation. A token also depends on pixels outside its cell, through the CNN's
receptive field and the BiLSTM over all tokens: a weight tells what was pooled, not which pixels decided. Occlusion
sensitivity (Zeiler and Fergus 2014, arXiv 1311.2901) covers a region and measures the lost probability.
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
