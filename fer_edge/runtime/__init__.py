"""From face crops or video to expressions, with numpy, OpenCV and one engine."""

from __future__ import annotations

from fer_edge.runtime.estimate import UNKNOWN, ExpressionEstimate
from fer_edge.runtime.inference import Network, NetworkInfo
from fer_edge.runtime.providers import PROVIDERS, open_session
from fer_edge.runtime.recognizer import ExpressionStream, Recognizer, StreamOptions
from fer_edge.runtime.session import Session, TensorSpec

__all__ = [
    "PROVIDERS",
    "UNKNOWN",
    "ExpressionEstimate",
    "ExpressionStream",
    "Network",
    "NetworkInfo",
    "Recognizer",
    "Session",
    "StreamOptions",
    "TensorSpec",
    "open_session",
]
