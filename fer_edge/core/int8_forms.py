"""The two INT8 forms and their quantizer settings, for calibration, training and export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = ["FORMS", "HALF_RANGE_WEIGHTS", "QAT_SUFFIX", "ActivationRange", "Form"]

Form: TypeAlias = Literal["int8", "int8-trt"]
FORMS: Final[tuple[Form, ...]] = ("int8", "int8-trt")
"""``"int8"``: uint8 activations, for ONNX Runtime and OpenVINO. ``"int8-trt"``: signed ones, for TensorRT."""

ActivationRange: TypeAlias = Literal["histogram", "mean", "max"]
"""The estimator of a range: least error on a histogram, or the mean or the extremes of the batches' ranges."""

HALF_RANGE_WEIGHTS: Final[Mapping[Form, bool]] = {"int8": True, "int8-trt": False}
"""Whether weights use half of the 8-bit range: x86 processors without VNNI add two 8-bit products in 16 bits, which
saturate; TensorRT's tensor cores add in 32 bits."""

QAT_SUFFIX: Final = "-qat"
"""Suffix of a form's name for graphs from quantization-aware training that no gate has measured."""
