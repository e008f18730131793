"""Calibration: post-training quantization on a hashed sample of the training split, judged by an accuracy gate."""

from __future__ import annotations

from fer_edge.core.errors import require
from fer_edge.core.telemetry import without_telemetry

__all__ = ["require_packages"]


def require_packages(*, needed_by: str) -> None:
    """Import the packages of calibration, without telemetry.

    Raises:
        MissingPackageError: names the package and the command that installs it.
    """
    with without_telemetry():
        require("nncf", needed_by=needed_by, extra="calibrate")
        require("onnxslim", needed_by=needed_by, extra="calibrate")
        require("onnxruntime", needed_by=needed_by, extra="cpu")
        require("cv2", needed_by=needed_by, extra="cpu")
