"""Ten folds by subject: whoever is tested on was never trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.types import Array, Int64
from fer_edge.data.dataset import Dataset

__all__ = ["FOLDS", "split_by_subject", "subject_folds"]

FOLDS: Final = 10
"""Folds of CK+'s usual protocol."""


def subject_folds(subjects: NDArray[np.str_], *, folds: int = FOLDS) -> Int64:
    """The fold of every row, by its subject.

    Subjects in the order of their ids are dealt out to the folds in turn, as is usual for CK+ (Liu et al. 2014, "Facial
    expression recognition via a boosted deep belief network"): every fold holds as many subjects as any other, give or
    take one.

    Args:
        subjects: str (N,).
        folds: how many.

    Returns:
        int64 (N,), 0 to folds - 1.

    Raises:
        InputError: fewer subjects than folds, or fewer than three folds.
    """
    known, place = np.unique(subjects, return_inverse=True)
    if not 3 <= folds <= len(known):
        raise InputError(f"{folds} folds: expected 3 to {len(known)} folds, as there are subjects")
    return np.asarray(place % folds, np.int64)


def fold_roles(subjects: NDArray[np.str_], *, fold: int, folds: int = FOLDS) -> dict[str, NDArray[np.bool_]]:
    """Rows to train, to choose and to report on, bool (N,) each: `fold` is ``test``, the next one ``val``, the others
    ``train``.

    Raises:
        InputError: as `subject_folds`, or a fold that is not one of them.
    """
    if not 0 <= fold < folds:
        raise InputError(f"fold {fold} of {folds}: expected 0 to {folds - 1}")
    turn = (subject_folds(subjects, folds=folds) - fold) % folds
    return {"train": turn > 1, "val": turn == 1, "test": turn == 0}


def split_by_subject(dataset: Dataset, *, fold: int, folds: int = FOLDS) -> Dataset:
    """Part a data set of one split into train, val and test without sharing a subject between them (`subject_folds`).

    `fold` becomes ``test``, the next one ``val``, the others ``train``.

    Raises:
        InputError: no subjects in the data, fewer than folds, or a fold that is not one of them.
    """
    (whole,) = dataset.splits.values()
    if whole.groups is None:
        raise InputError(f"{dataset.source} does not name its subjects, so it cannot be parted by them")
    masks: dict[str, Array] = dict(fold_roles(whole.groups, fold=fold, folds=folds))
    return replace(
        dataset,
        splits={name: replace(whole.subset(mask), name=name) for name, mask in masks.items()},
        roles={"train": "train", "choose": "val", "report": "test"},
        note=f"Fold {fold} of {folds} by subject.",
        cache=None,
    )
