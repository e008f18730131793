"""The runtime: from face crops or video to expressions, with numpy, OpenCV and one engine."""

from __future__ import annotations

from fer_edge.core.errors import (
    BundleError,
    DataError,
    FerEdgeError,
    FrameError,
    InputError,
    MissingPackageError,
    OutputError,
    SessionError,
)
from fer_edge.core.preprocess import PreprocessSpec, cut_face, prepare_face, prepare_stills, to_grey
from fer_edge.runtime.deadline import DeadlineOptions
from fer_edge.runtime.detector import CropGeometry, Face, FaceDetector
from fer_edge.runtime.estimate import UNKNOWN, BoxXyxy, ExpressionEstimate
from fer_edge.runtime.face_finder import FaceFinder, FoundFaces, open_detector
from fer_edge.runtime.frame_layout import LAYOUTS, convert_frame
from fer_edge.runtime.frame_reader import FrameReader
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.health import Health
from fer_edge.runtime.inference import Network, NetworkInfo
from fer_edge.runtime.live import LiveRecognizer
from fer_edge.runtime.live_options import LiveOptions
from fer_edge.runtime.live_result import LiveResult
from fer_edge.runtime.providers import ENGINE_PROVIDERS, PROVIDERS, open_session
from fer_edge.runtime.recognizer import ExpressionStream, Recognizer
from fer_edge.runtime.session import Session, TensorSpec
from fer_edge.runtime.streaming import StreamOptions
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import FrameResult, VideoRecognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource, open_source
from fer_edge.runtime.yunet_detector import YuNetDetector

__all__ = [
    "ENGINE_PROVIDERS",
    "LAYOUTS",
    "PROVIDERS",
    "UNKNOWN",
    "BoxXyxy",
    "BundleError",
    "CropGeometry",
    "DataError",
    "DeadlineOptions",
    "ExpressionEstimate",
    "ExpressionStream",
    "Face",
    "FaceDetector",
    "FaceFinder",
    "FerEdgeError",
    "FoundFaces",
    "FrameError",
    "FrameReader",
    "FrameResult",
    "HaarDetector",
    "Health",
    "InputError",
    "LiveOptions",
    "LiveRecognizer",
    "LiveResult",
    "MissingPackageError",
    "Network",
    "NetworkInfo",
    "OutputError",
    "PreprocessSpec",
    "Recognizer",
    "Session",
    "SessionError",
    "SourceFrame",
    "StreamOptions",
    "TensorSpec",
    "TrackerOptions",
    "VideoRecognizer",
    "VideoSource",
    "YuNetDetector",
    "convert_frame",
    "cut_face",
    "open_detector",
    "open_session",
    "open_source",
    "prepare_face",
    "prepare_stills",
    "to_grey",
]
