"""Accuracy, calibration error and paired comparison: the one implementation of each, on numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer_edge.core.accuracy import AccuracyReport, expect_fraction, softmax
from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Array, Int64

__all__ = [
    "ECE_BINS",
    "AccuracyReport",
    "PairedReport",
    "accuracy_report",
    "calibration_gap",
    "confusion_matrix",
    "expected_calibration_error",
    "fit_temperature",
    "mcnemar_p",
    "paired_report",
    "softmax",
]

ECE_BINS: Final = 15
"""Equal-width confidence bins of the expected calibration error (Guo et al. 2017, arXiv 1706.04599)."""

_TEMPERATURE_RANGE: Final = (0.05, 20.0)


@dataclass(frozen=True, kw_only=True)
class PairedReport:
    """The difference between a reference and another variant on the same rows.

    `flip_rate` is the share of rows with another predicted label, `agreement` the rest. Deltas are other minus
    reference, as fractions. `mcnemar_p` is exact and two-sided.
    """

    n: int
    flip_rate: float
    agreement: float
    only_reference_right: int
    only_other_right: int
    mcnemar_p: float
    top1_delta: float
    ece_delta: float

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"a paired report needs at least one row, got n = {self.n}")
        for name in ("flip_rate", "agreement", "mcnemar_p"):
            expect_fraction(name, getattr(self, name))


def accuracy_report(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    dataset: str,
    split: str,
    leaked: ArrayLike | None = None,
    classes: Sequence[str] = EXPRESSIONS,
) -> AccuracyReport:
    """Measure one variant on one split.

    Args:
        probabilities: float (N, C), rows sum to 1.
        labels: int (N,), index into `classes`.
        dataset: the data set's name, for example ``"fer2013"``.
        split: the split's name, for example ``"PublicTest"``.
        leaked: bool (N,), True for images that are also in the training split.
        classes: class names in output order.

    Raises:
        InputError: shapes differ, there is no row, or the rows are not probabilities.
    """
    scores, truth = _check_rows(probabilities, labels, classes=len(classes))
    predicted = scores.argmax(axis=1)
    right = predicted == truth
    matrix = confusion_matrix(predicted, truth, classes=len(classes))
    precision, recall, f1 = _per_class_rates(matrix)
    present = matrix.sum(axis=1) > 0
    kept = None
    if leaked is not None:
        mask = np.asarray(leaked)
        if mask.shape != truth.shape or mask.dtype != np.bool_:
            raise InputError(f"leaked must be bool {truth.shape}, got {mask.dtype} {mask.shape}")
        kept = right[~mask]
        if kept.size == 0:
            raise InputError(f"leaked: got all {truth.size} rows of {split}, expected some that are not")
    return AccuracyReport(
        dataset=dataset,
        split=split,
        n=int(truth.size),
        top1=float(right.mean()),
        macro_precision=float(precision[present].mean()),
        macro_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        per_class={name: float(recall[i]) for i, name in enumerate(classes) if present[i]},
        ece=expected_calibration_error(scores, truth),
        top1_without_leaked=None if kept is None else float(kept.mean()),
        n_without_leaked=None if kept is None else int(kept.size),
    )


def paired_report(
    reference_probabilities: ArrayLike, other_probabilities: ArrayLike, labels: ArrayLike
) -> PairedReport:
    """Compare two variants row by row.

    Args:
        reference_probabilities: float (N, C) of the reference.
        other_probabilities: float (N, C) of the other variant.
        labels: int (N,).

    Raises:
        InputError: shapes differ, there is no row, or the rows are not probabilities.
    """
    reference, truth = _check_rows(reference_probabilities, labels)
    other, _ = _check_rows(other_probabilities, labels)
    if reference.shape != other.shape:
        raise InputError(f"both sides must have one shape, got {reference.shape} and {other.shape}")
    reference_label, other_label = reference.argmax(axis=1), other.argmax(axis=1)
    reference_right, other_right = reference_label == truth, other_label == truth
    flips = int(np.count_nonzero(reference_label != other_label))
    only_reference = int(np.count_nonzero(reference_right & ~other_right))
    only_other = int(np.count_nonzero(other_right & ~reference_right))
    rows = int(truth.size)
    return PairedReport(
        n=rows,
        flip_rate=flips / rows,
        agreement=(rows - flips) / rows,
        only_reference_right=only_reference,
        only_other_right=only_other,
        mcnemar_p=mcnemar_p(only_reference, only_other),
        top1_delta=(only_other - only_reference) / rows,
        ece_delta=expected_calibration_error(other, truth) - expected_calibration_error(reference, truth),
    )


def confusion_matrix(predicted: ArrayLike, labels: ArrayLike, *, classes: int = len(EXPRESSIONS)) -> Int64:
    """Count rows by label (row) and prediction (column): int64 (C, C).

    Raises:
        InputError: shapes differ or an index is outside the classes.
    """
    guess, truth = np.asarray(predicted), np.asarray(labels)
    if guess.shape != truth.shape or guess.ndim != 1:
        raise InputError(f"predictions and labels must be (N,), got {guess.shape} and {truth.shape}")
    for name, values in (("predictions", guess), ("labels", truth)):
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"{name} must be integers, got {values.dtype}")
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise InputError(f"{name} must lie in 0..{classes - 1}, got {values.min()}..{values.max()}")
    flat = truth.astype(np.int64) * classes + guess.astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = ECE_BINS) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins, weighted by their rows.

    Guo et al. 2017, arXiv 1706.04599, equation 3.

    Args:
        probabilities: float (N, C), rows sum to 1.
        labels: int (N,).
        bins: number of bins (low, high].

    Raises:
        InputError: shapes differ, there is no row, or the rows are not probabilities.
    """
    scores, truth = _check_rows(probabilities, labels)
    return calibration_gap(scores.max(axis=1), scores.argmax(axis=1) == truth, bins=bins)


def calibration_gap(confidence: ArrayLike, right: ArrayLike, *, bins: int = ECE_BINS) -> float:
    """Return the mean gap between two (N,) in [0, 1] over equal-width bins of the first, weighted by their rows."""
    sure, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right).astype(np.float64)
    index = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=hits - sure, minlength=bins)
    return float(min(np.abs(gaps).sum() / sure.size, 1.0))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Find the temperature in [0.05, 20] with the lowest cross-entropy (Guo et al. 2017, arXiv 1706.04599).

    It is convex in the inverse temperature, so its slope is bisected.

    Args:
        logits: float (N, C), before any temperature.
        labels: int (N,), or distributions float (N, C) whose rows sum to 1.

    Raises:
        InputError: shapes differ, there is no row, or a logit is not finite.
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or truth.shape not in (values.shape[:1], values.shape) or truth.size == 0:
        raise InputError(f"logits must be (N, C) and labels (N,) with N >= 1, got {values.shape} and {truth.shape}")
    if not np.isfinite(values).all():
        raise InputError("logits hold NaN or infinity")
    centred = values - values.max(axis=1, keepdims=True)
    target = centred[np.arange(len(truth)), truth] if truth.ndim == 1 else (centred * truth).sum(axis=1)

    def slope(inverse: float) -> float:
        weights = softmax(centred, temperature=1.0 / inverse)
        return float(((weights * centred).sum(axis=1) - target).mean())

    low, high = 1.0 / _TEMPERATURE_RANGE[1], 1.0 / _TEMPERATURE_RANGE[0]
    if slope(low) >= 0:
        return _TEMPERATURE_RANGE[1]
    if slope(high) <= 0:
        return _TEMPERATURE_RANGE[0]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2.0 / (low + high)


def mcnemar_p(only_first_right: int, only_second_right: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Raises:
        InputError: a count is negative.
    """
    if only_first_right < 0 or only_second_right < 0:
        raise InputError(f"counts must not be negative, got {only_first_right} and {only_second_right}")
    discordant = only_first_right + only_second_right
    term = tail = 1
    for k in range(1, min(only_first_right, only_second_right) + 1):
        term = term * (discordant - k + 1) // k
        tail += term
    return float(min(1.0, 2 * tail / 2**discordant))


def _per_class_rates(matrix: Int64) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return precision, recall and F1 by class; 0 where the denominator is 0."""
    hits = np.diag(matrix).astype(np.float64)
    predicted, actual = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    return precision, recall, f1


def _check_rows(
    probabilities: ArrayLike, labels: ArrayLike, *, classes: int | None = None
) -> tuple[NDArray[np.float64], Array]:
    scores, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or truth.size == 0:
        raise InputError(f"probabilities must be (N, C), labels (N,), N >= 1; got {scores.shape} and {truth.shape}")
    if classes is not None and scores.shape[1] != classes:
        raise InputError(f"probabilities have {scores.shape[1]} columns, expected one for each of {classes} classes")
    if not (np.isfinite(scores).all() and scores.min() >= 0 and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3)):
        raise InputError(
            "rows must be probabilities (finite, not negative, summing to 1); pass logits through softmax first"
        )
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise InputError(
            f"labels must be integers in 0..{scores.shape[1] - 1}, got {truth.dtype} {truth.min()}..{truth.max()}"
        )
    return scores, truth
