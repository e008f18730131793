"""Driver-expression recognition from training to the vehicle: train, compress, export, run, measure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.32 writes a device id under the home folder as soon as it is imported, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from fer_edge.core.bundle import Bundle as Bundle
    from fer_edge.runtime import Recognizer as Recognizer

__version__ = "0.1.0"
__all__ = ["Bundle", "Recognizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Bundle":
        from fer_edge.core.bundle import Bundle

        return Bundle
    if name == "Recognizer":
        from fer_edge.runtime import Recognizer

        return Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
