"""Driver-expression recognition from training to the vehicle: train, compress, export, run, measure.

The public names of `fer_edge.runtime` and `Bundle` are imported on first use, so that `import fer_edge` stays light.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.32 writes a device id under the home folder as soon as it is imported, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from fer_edge.core.bundle import Bundle as Bundle
    from fer_edge.runtime import (
        ENGINE_PROVIDERS as ENGINE_PROVIDERS,
    )
    from fer_edge.runtime import (
        LAYOUTS as LAYOUTS,
    )
    from fer_edge.runtime import (
        PROVIDERS as PROVIDERS,
    )
    from fer_edge.runtime import (
        UNKNOWN as UNKNOWN,
    )
    from fer_edge.runtime import (
        BoxXyxy as BoxXyxy,
    )
    from fer_edge.runtime import (
        BundleError as BundleError,
    )
    from fer_edge.runtime import (
        CropGeometry as CropGeometry,
    )
    from fer_edge.runtime import (
        DataError as DataError,
    )
    from fer_edge.runtime import (
        DeadlineOptions as DeadlineOptions,
    )
    from fer_edge.runtime import (
        ExpressionEstimate as ExpressionEstimate,
    )
    from fer_edge.runtime import (
        ExpressionStream as ExpressionStream,
    )
    from fer_edge.runtime import (
        Face as Face,
    )
    from fer_edge.runtime import (
        FaceDetector as FaceDetector,
    )
    from fer_edge.runtime import (
        FaceFinder as FaceFinder,
    )
    from fer_edge.runtime import (
        FerEdgeError as FerEdgeError,
    )
    from fer_edge.runtime import (
        FoundFaces as FoundFaces,
    )
    from fer_edge.runtime import (
        FrameError as FrameError,
    )
    from fer_edge.runtime import (
        FrameReader as FrameReader,
    )
    from fer_edge.runtime import (
        FrameResult as FrameResult,
    )
    from fer_edge.runtime import (
        HaarDetector as HaarDetector,
    )
    from fer_edge.runtime import (
        Health as Health,
    )
    from fer_edge.runtime import (
        InputError as InputError,
    )
    from fer_edge.runtime import (
        LiveOptions as LiveOptions,
    )
    from fer_edge.runtime import (
        LiveRecognizer as LiveRecognizer,
    )
    from fer_edge.runtime import (
        LiveResult as LiveResult,
    )
    from fer_edge.runtime import (
        MissingPackageError as MissingPackageError,
    )
    from fer_edge.runtime import (
        Network as Network,
    )
    from fer_edge.runtime import (
        NetworkInfo as NetworkInfo,
    )
    from fer_edge.runtime import (
        OutputError as OutputError,
    )
    from fer_edge.runtime import (
        PreprocessSpec as PreprocessSpec,
    )
    from fer_edge.runtime import (
        Recognizer as Recognizer,
    )
    from fer_edge.runtime import (
        Session as Session,
    )
    from fer_edge.runtime import (
        SessionError as SessionError,
    )
    from fer_edge.runtime import (
        SourceFrame as SourceFrame,
    )
    from fer_edge.runtime import (
        StreamOptions as StreamOptions,
    )
    from fer_edge.runtime import (
        TensorSpec as TensorSpec,
    )
    from fer_edge.runtime import (
        TrackerOptions as TrackerOptions,
    )
    from fer_edge.runtime import (
        VideoRecognizer as VideoRecognizer,
    )
    from fer_edge.runtime import (
        VideoSource as VideoSource,
    )
    from fer_edge.runtime import (
        YuNetDetector as YuNetDetector,
    )
    from fer_edge.runtime import (
        convert_frame as convert_frame,
    )
    from fer_edge.runtime import (
        cut_face as cut_face,
    )
    from fer_edge.runtime import (
        open_detector as open_detector,
    )
    from fer_edge.runtime import (
        open_session as open_session,
    )
    from fer_edge.runtime import (
        open_source as open_source,
    )
    from fer_edge.runtime import (
        prepare_face as prepare_face,
    )
    from fer_edge.runtime import (
        prepare_stills as prepare_stills,
    )
    from fer_edge.runtime import (
        to_grey as to_grey,
    )

__version__ = "0.1.0"
__all__ = [
    "ENGINE_PROVIDERS",
    "LAYOUTS",
    "PROVIDERS",
    "UNKNOWN",
    "BoxXyxy",
    "Bundle",
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
    "__version__",
    "convert_frame",
    "cut_face",
    "open_detector",
    "open_session",
    "open_source",
    "prepare_face",
    "prepare_stills",
    "to_grey",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Bundle":
        from fer_edge.core.bundle import Bundle

        return Bundle
    from fer_edge import runtime

    return getattr(runtime, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
