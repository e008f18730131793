"""Checks of the arguments that callers pass to the public classes, all with one form of message."""

from __future__ import annotations

import math
import numbers
import reprlib
from typing import Any

import numpy as np

from fer_edge.core.errors import FerEdgeError, InputError

__all__ = ["check_type", "listed", "number", "whole_number"]


def number(name: str, value: Any, *, positive: bool = True, error: type[FerEdgeError] = InputError) -> float:
    """Return a finite number as a float.

    Raises:
        InputError: another type, NaN, infinity, out of a float's range, or not above 0 where `positive`.
    """
    try:
        got = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    except OverflowError:
        got = math.inf
    if not math.isfinite(got) or (positive and got <= 0):
        raise error(f"{name}: got {reprlib.repr(value)}, expected a {'positive' if positive else 'finite'} number")
    return got


def whole_number(name: str, value: Any, *, least: int, most: int = 2**31 - 1) -> int:
    """Return a whole number as an int.

    Raises:
        InputError: another type, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not least <= int(value) <= most:
        raise InputError(f"{name}: got {reprlib.repr(value)}, expected a whole number from {least} to {most}")
    return int(value)


def check_type(name: str, value: Any, kinds: type | tuple[type, ...], expected: str) -> None:
    """Refuse a value of another type.

    Raises:
        InputError: naming the type that was got.
    """
    if not isinstance(value, kinds):
        raise InputError(f"{name}: got {type(value).__name__} {reprlib.repr(value)}, expected {expected}")


def listed(name: str, values: Any) -> list[Any]:
    """Return the items of a list, a tuple or an array.

    Raises:
        InputError: another type, or an array without dimensions.
    """
    check_type(name, values, (list, tuple, np.ndarray), "a list, a tuple or an array")
    if isinstance(values, np.ndarray) and not values.ndim:
        raise InputError(f"{name}: got a single number, expected a list, a tuple or an array")
    return list(values)
