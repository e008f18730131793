"""Quantization calibration: a hashed sample of the training split, post-training quantization, the accuracy gate."""

from __future__ import annotations

from fer_edge.core.errors import require
from fer_edge.core.telemetry import without_telemetry

__all__ = ["require_packages"]


def require_packages(*, needed_by: str) -> None:
    """Import what calibration stands on, with nobody's telemetry, or say what installs it.

    Raises:
        MissingPackageError: naming the package and the command.
    """
    with without_telemetry():
        require("nncf", needed_by=needed_by, extra="calibrate")
        require("onnxslim", needed_by=needed_by, extra="calibrate")
        require("onnxruntime", needed_by=needed_by, extra="cpu")
        require("cv2", needed_by=needed_by, extra="cpu")
