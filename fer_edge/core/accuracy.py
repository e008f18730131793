"""The accuracy figures that a manifest records, and the softmax: the part of `metrics` that the runtime needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.types import Array

__all__ = ["AccuracyReport", "expect_fraction", "softmax"]


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """How one variant did on one split; every rate is a fraction in [0, 1].

    `per_class` holds the recall of each class that occurs among the labels, and the macro averages run over these
    classes. The `*_without_leaked` pair leaves out rows whose pixels also stand in the training split; both are None
    where that was not asked.
    """

    dataset: str
    split: str
    n: int
    top1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    per_class: Mapping[str, float]
    ece: float
    top1_without_leaked: float | None = None
    n_without_leaked: int | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"an accuracy report needs at least one row, got n = {self.n}")
        rates = {
            "top1": self.top1,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            **{f"per_class.{label}": recall for label, recall in self.per_class.items()},
        }
        if self.top1_without_leaked is not None:
            rates["top1_without_leaked"] = self.top1_without_leaked
        for name, rate in rates.items():
            expect_fraction(name, rate)
        if (self.top1_without_leaked is None) != (self.n_without_leaked is None):
            raise InputError("top1_without_leaked and n_without_leaked are given together or not at all")

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return dict(encode(self))

    @classmethod
    def from_json(cls, value: Any) -> AccuracyReport:
        """Inverse of `to_json`.

        Raises:
            InputError: a key is missing or unknown, or a value is out of range.
        """
        return decode(cls, value)


def softmax(logits: ArrayLike, *, temperature: float = 1.0) -> Array:
    """Softmax over the last axis, in the logits' own float type.

    Args:
        logits: float (..., C).
        temperature: logits are divided by it first.

    Raises:
        InputError: the temperature is not a positive number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature must be a positive number, got {temperature}")
    values = np.asarray(logits)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    scaled = values / values.dtype.type(temperature)
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def expect_fraction(name: str, value: float) -> None:
    expect(0.0 <= value <= 1.0, name, value, "a fraction in [0, 1]")
