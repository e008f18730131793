"""The accuracy figures that a manifest records, and the softmax: the part of `metrics` that the runtime needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.types import Array

__all__ = ["AccuracyReport", "CrowdAccuracy", "Rejections", "expect_fraction", "softmax"]


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


@dataclass(frozen=True, kw_only=True)
class Rejections:
    """Faces and other pictures that a head `crowd` takes for not judgeable; every rate is a fraction in [0, 1].

    Attributes:
        threshold: a probability of `not judgeable` above it rejects a picture.
        faces: rate among the rows whose first choice is an expression; these are wrongly rejected.
        unclear: rate among the rows whose first choice is unknown or not-a-face; None where there are none.
        n_unclear: number of these rows.
        negatives: rate among made negatives, by kind.
        n_negatives: pictures of each kind.
        untrained: the kinds that no training uses.
    """

    threshold: float
    faces: float
    unclear: float | None
    n_unclear: int
    negatives: Mapping[str, float] = field(default_factory=dict)
    n_negatives: int = 0
    untrained: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rates = {"threshold": self.threshold, "faces": self.faces, "unclear": self.unclear, **self.negatives}
        for name, rate in rates.items():
            expect_fraction(name, 0.0 if rate is None else rate)
        expect((self.unclear is None) == (self.n_unclear == 0), "unclear", self.unclear, "a rate where there are rows")


@dataclass(frozen=True, kw_only=True)
class CrowdAccuracy:
    """Agreement of a head `crowd` with the FER+ votes of one split; every rate is a fraction in [0, 1].

    The prediction is the most probable of the seven expressions. A row counts where the first choice of its votes (the
    column with the most; of equal ones the first in `FERPLUS_VOTES`) is an expression.

    Attributes:
        first_choice_top1: agreement with the first choice.
        majority_top1: the same over rows whose first choice has more than half of all votes; None where there are none.
        n_first_choice: rows of the first.
        n_majority: rows of the second.
        cross_entropy_bits: mean cross-entropy of all eight outputs against the shares of the votes, in bits, over the
            rows with a vote that is not contempt.
        ece: mean gap, by confidence, between the probability of the predicted expression among the seven and its share
            of the votes for the seven.
        per_class: recall by first choice.
        not_judgeable: what is rejected.
        eight_class_top1: agreement by the protocol of Barsoum et al. 2016 (arXiv 1608.01041; mode "majority"), which
            other people's FER+ figures follow: single votes are struck, then rows count whose first choice has more
            than half of the votes left and is one of eight classes. The eighth, contempt, is no output of ours, so its
            rows count as wrong. None where no row counts.
        n_eight_class: rows of it.
    """

    first_choice_top1: float
    majority_top1: float | None
    n_first_choice: int
    n_majority: int
    cross_entropy_bits: float
    ece: float
    per_class: Mapping[str, float]
    not_judgeable: Rejections
    eight_class_top1: float | None = None
    n_eight_class: int = 0

    def __post_init__(self) -> None:
        expect(self.n_first_choice > 0, "n_first_choice", self.n_first_choice, "1 or more")
        given = (self.majority_top1 is None) == (self.n_majority == 0)
        expect(given, "majority_top1", self.majority_top1, "a rate where there are rows")
        bits = self.cross_entropy_bits
        expect(math.isfinite(bits) and bits >= 0, "cross_entropy_bits", bits, "0 or more")
        for name, rate in {
            "first_choice_top1": self.first_choice_top1,
            "majority_top1": self.majority_top1 or 0.0,
            "eight_class_top1": self.eight_class_top1 or 0.0,
            "ece": self.ece,
            **{f"per_class.{label}": recall for label, recall in self.per_class.items()},
        }.items():
            expect_fraction(name, rate)

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return dict(encode(self))

    @classmethod
    def from_json(cls, value: Any) -> CrowdAccuracy:
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
