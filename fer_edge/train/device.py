"""The device and the precision to train in."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import torch

from fer_edge.core.errors import InputError, RecipeError
from fer_edge.train.recipe import Precision

__all__ = ["CPU", "autocast", "compute_device"]

CPU: Final = torch.device("cpu")


def compute_device(name: str) -> torch.device:
    """Return the device called `name`; ``"auto"`` is CUDA where there is a GPU, else the CPU.

    Raises:
        InputError: no such device, or none here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise InputError(f"device: got {name!r}, expected auto, cpu or cuda")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if int(number or 0) >= count:
        raise InputError(f"device: got {name!r}, expected one of the {count} CUDA GPUs of torch; use auto or cpu")
    return CPU if kind == "cpu" else torch.device("cuda", int(number or 0))


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context that computes in bf16 where `precision` allows it and the device has it natively; else FP32.

    Raises:
        RecipeError: bf16 is required and the device has no native bf16.
    """
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if precision == "bf16" and not native:
        raise RecipeError(f"precision: got 'bf16', but {device} has no native bf16; use 'auto' or 'fp32'")
    if precision == "fp32" or not native:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
