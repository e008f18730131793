"""CK+'s folds by subject: no subject is in two splits."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import DataError
from fer_edge.core.types import Int64
from fer_edge.data.dataset import Dataset

__all__ = ["FOLDS", "fold_roles", "split_by_subject", "subject_folds"]

FOLDS: Final = 10
"""Folds of CK+'s usual protocol."""


def subject_folds(subjects: NDArray[np.str_], *, folds: int = FOLDS) -> Int64:
    """Assign rows to folds by subject.

    Subjects are dealt to the folds in the order of their ids, as usual for CK+ (Liu et al. 2014, "Facial expression
    recognition via a boosted deep belief network"); folds differ by at most one subject.

    Args:
        subjects: str (N,).
        folds: number of folds, at least 3.

    Returns:
        int64 (N,), 0 to folds - 1.

    Raises:
        DataError: fewer subjects than folds, or fewer than three folds.
    """
    known, place = np.unique(subjects, return_inverse=True)
    if not 3 <= folds <= len(known):
        raise DataError(f"folds: got {folds}, expected 3 to {len(known)} folds, one subject each at least")
    return np.asarray(place % folds, np.int64)


def fold_roles(subjects: NDArray[np.str_], *, fold: int, folds: int = FOLDS) -> dict[str, NDArray[np.bool_]]:
    """Return a mask (N,) per split: `fold` is ``test``, the next one ``val``, the others ``train``.

    Raises:
        DataError: as `subject_folds`, or `fold` is out of range.
    """
    if not 0 <= fold < folds:
        raise DataError(f"fold: got {fold}, expected 0 to {folds - 1}")
    turn = (subject_folds(subjects, folds=folds) - fold) % folds
    return {"train": turn > 1, "val": turn == 1, "test": turn == 0}


def split_by_subject(dataset: Dataset, *, fold: int, folds: int = FOLDS) -> Dataset:
    """Split a data set of one split into train, val and test by subject (`fold_roles`).

    Raises:
        DataError: the data has no subjects.
        DataError: as `fold_roles`.
    """
    (whole,) = dataset.splits.values()
    if whole.groups is None:
        raise DataError(f"{dataset.source} has no subjects to split it by")
    masks = fold_roles(whole.groups, fold=fold, folds=folds)
    return replace(
        dataset,
        splits={name: replace(whole.subset(mask), name=name) for name, mask in masks.items()},
        roles={"train": "train", "choose": "val", "report": "test"},
        note=f"Fold {fold} of {folds} by subject.",
        cache=None,
    )
