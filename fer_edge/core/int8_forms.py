"""The two INT8 forms, and what each asks of a quantizer: told once, for calibration, training and export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = ["FORMS", "HALF_RANGE_WEIGHTS", "QAT_SUFFIX", "ActivationRange", "Form"]

Form: TypeAlias = Literal["int8", "int8-trt"]
FORMS: Final[tuple[Form, ...]] = ("int8", "int8-trt")
"""``"int8"``: uint8 activations, for ONNX Runtime and OpenVINO. ``"int8-trt"``: signed ones, for TensorRT."""

ActivationRange: TypeAlias = Literal["histogram", "mean", "max"]
"""How a range is found: least error on a histogram of values, or the mean or the extremes of the batches' ranges."""

HALF_RANGE_WEIGHTS: Final[Mapping[Form, bool]] = {"int8": True, "int8-trt": False}
"""Whether weights keep to half of the 8-bit range. x86 processors without VNNI add two 8-bit products in 16 bits and
saturate there; TensorRT's tensor cores add in 32 bits."""

QAT_SUFFIX: Final = "-qat"
"""What export adds to a form's name for graphs that were trained with their quantizers and that no gate has seen."""
