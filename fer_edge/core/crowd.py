"""FER+ votes: their shares, first choice and majority, and the accuracy of a head `crowd` against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fer_edge.core.accuracy import CrowdAccuracy, Rejections
from fer_edge.core.errors import InputError
from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.labels import CROWD_LABELS, EXPRESSIONS
from fer_edge.core.metrics import calibration_gap
from fer_edge.core.types import Int64

__all__ = ["class_shares", "crowd_accuracy", "first_choice", "has_majority", "rejection_threshold", "vote_shares"]

FACES_REJECTED: Final = 0.01
"""Share of the faces with an expression that a head may reject as not judgeable."""

_SEVEN: Final = [FERPLUS_VOTES.index(name) for name in EXPRESSIONS]
_NOT_JUDGED: Final = [FERPLUS_VOTES.index(name) for name in ("unknown", "not-a-face")]


def vote_shares(votes: ArrayLike) -> NDArray[np.float64]:
    """Return the shares of the votes for the outputs of a head `crowd`.

    Votes for unknown and not-a-face are those for `not judgeable`; contempt is left out.

    Args:
        votes: integers (N, 10) in `FERPLUS_VOTES` order.

    Returns:
        float64 (N, 8) in `CROWD_LABELS` order; rows sum to 1, or to 0 where no vote counts.

    Raises:
        InputError: another shape.
    """
    counts = _checked(votes)
    judged = np.concatenate([counts[:, _SEVEN], counts[:, _NOT_JUDGED].sum(axis=1, keepdims=True)], axis=1)
    return np.asarray(judged / np.maximum(judged.sum(axis=1, keepdims=True), 1))


def first_choice(votes: ArrayLike) -> Int64:
    """Return each row's column with the most votes as an index into `EXPRESSIONS`: int64 (N,).

    -1 where that is contempt, unknown or not-a-face, or where the row has no vote. Of equal columns the first in
    `FERPLUS_VOTES` counts.

    Raises:
        InputError: another shape.
    """
    counts = _checked(votes)
    index = np.full(len(FERPLUS_VOTES), -1, np.int64)
    index[_SEVEN] = np.arange(len(EXPRESSIONS))
    return np.where(counts.any(axis=1), index[counts.argmax(axis=1)], -1)


def has_majority(votes: ArrayLike) -> NDArray[np.bool_]:
    """Return whether one expression has more than half of all votes, contempt and unknown included: bool (N,)."""
    counts = _checked(votes)
    return np.asarray((first_choice(counts) >= 0) & (2 * counts.max(axis=1) > counts.sum(axis=1)))


def class_shares(votes: ArrayLike) -> dict[str, float]:
    """Return each expression's mean share of the votes for the seven, by name."""
    seven = vote_shares(votes)[:, : len(EXPRESSIONS)]
    mean = seven.sum(axis=0) / max(seven.sum(), 1e-12)
    return {name: float(share) for name, share in zip(EXPRESSIONS, mean, strict=True)}


def rejection_threshold(not_judgeable: ArrayLike, votes: ArrayLike) -> float:
    """Return the probability of `not judgeable` that 1 % of the faces with an expression exceed.

    Args:
        not_judgeable: float (N,).
        votes: integers (N, 10).

    Raises:
        InputError: no row's first choice is an expression.
    """
    faces = np.asarray(not_judgeable)[_with_expression(votes)]
    return float(np.quantile(faces, 1 - FACES_REJECTED, method="higher"))


def crowd_accuracy(
    probabilities: ArrayLike,
    votes: ArrayLike,
    *,
    threshold: float,
    negatives: Mapping[str, ArrayLike] | None = None,
    untrained: tuple[str, ...] = (),
) -> CrowdAccuracy:
    """Measure a head `crowd` against FER+ votes.

    Args:
        probabilities: float (N, 8) in `CROWD_LABELS` order, rows sum to 1.
        votes: integers (N, 10) in `FERPLUS_VOTES` order.
        threshold: a probability of `not judgeable` above it rejects a picture.
        negatives: probabilities (M, 8) of made pictures without a face to judge, by kind.
        untrained: the kinds that no training uses.

    Raises:
        InputError: shapes differ, or no row's first choice is an expression.
    """
    scores, counts = np.asarray(probabilities, dtype=np.float64), _checked(votes)
    if scores.shape != (len(counts), len(CROWD_LABELS)):
        raise InputError(f"probabilities: got {scores.shape}, expected ({len(counts)}, {len(CROWD_LABELS)})")
    chosen, shares = first_choice(counts), vote_shares(counts)
    some, majority = _with_expression(counts), has_majority(counts)
    seven = scores[:, : len(EXPRESSIONS)] / np.maximum(scores[:, : len(EXPRESSIONS)].sum(axis=1, keepdims=True), 1e-12)
    guess = seven.argmax(axis=1)
    right = guess == chosen
    judged = shares.sum(axis=1) > 0
    bits = -(shares[judged] * np.log2(np.maximum(scores[judged], 1e-12))).sum(axis=1)
    among_seven = shares[:, : len(EXPRESSIONS)] / np.maximum(
        shares[:, : len(EXPRESSIONS)].sum(axis=1, keepdims=True), 1e-12
    )
    rejected = scores[:, -1] > threshold
    unclear = np.isin(counts.argmax(axis=1), _NOT_JUDGED) & counts.any(axis=1)
    eight = _counts_in_eight_classes(counts)
    pictures = {kind: np.asarray(each)[:, -1] > threshold for kind, each in (negatives or {}).items()}
    return CrowdAccuracy(
        first_choice_top1=float(right[some].mean()),
        majority_top1=float(right[majority].mean()) if majority.any() else None,
        n_first_choice=int(some.sum()),
        n_majority=int(majority.sum()),
        cross_entropy_bits=float(bits.mean()),
        ece=calibration_gap(seven[some].max(axis=1), among_seven[some, guess[some]]),
        per_class={
            name: float(right[chosen == index].mean()) for index, name in enumerate(EXPRESSIONS) if index in chosen
        },
        eight_class_top1=float((right & (chosen >= 0))[eight].mean()) if eight.any() else None,
        n_eight_class=int(eight.sum()),
        not_judgeable=Rejections(
            threshold=threshold,
            faces=float(rejected[some].mean()),
            unclear=float(rejected[unclear].mean()) if unclear.any() else None,
            n_unclear=int(unclear.sum()),
            negatives={kind: float(each.mean()) for kind, each in pictures.items()},
            n_negatives=max(map(len, pictures.values()), default=0),
            untrained=untrained if pictures else (),
        ),
    )


def _checked(votes: ArrayLike) -> Int64:
    counts = np.asarray(votes)
    if counts.ndim != 2 or counts.shape[1] != len(FERPLUS_VOTES) or counts.dtype.kind not in "iu":
        raise InputError(f"votes: got {counts.dtype} {counts.shape}, expected integers (N, {len(FERPLUS_VOTES)})")
    return counts.astype(np.int64)


def _counts_in_eight_classes(counts: Int64) -> NDArray[np.bool_]:
    """Return the rows that the FER+ authors' majority mode keeps: bool (N,)."""
    kept = np.where(counts > 1, counts, 0)
    majority = 2 * kept.max(axis=1) > kept.sum(axis=1)
    return np.asarray(majority & ~np.isin(kept.argmax(axis=1), _NOT_JUDGED))


def _with_expression(votes: ArrayLike) -> NDArray[np.bool_]:
    some = np.asarray(first_choice(votes) >= 0)
    if not some.any():
        raise InputError("votes: got no row whose first choice is an expression, expected one or more")
    return some
