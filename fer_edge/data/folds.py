"""Folds of the training split, so that a network can be asked about faces that it has not seen."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Int64
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.statistics import fingerprints

__all__ = ["fold_dataset", "fold_numbers"]


def fold_numbers(stills: StillSet, folds: int) -> Int64:
    """Assign every image to a fold by a hash of its pixels, so that identical images share a fold.

    Args:
        stills: N images.
        folds: number of folds, 2 or more.

    Returns:
        int64 (N,), 0 to `folds` - 1; independent of the order of the images.

    Raises:
        InputError: fewer than two folds.
    """
    if folds < 2:
        raise InputError(f"folds: got {folds}, expected 2 or more")
    return np.array([int(mark[:8], 16) % folds for mark in fingerprints(stills)], np.int64)


def fold_dataset(dataset: Dataset, folds: int, fold: int) -> Dataset:
    """Return the training split as a data set of its own: one fold to choose on, the others to train on.

    Args:
        dataset: has a training split.
        folds: number of folds.
        fold: the fold that is held out, 0 to `folds` - 1.

    Raises:
        InputError: fewer than two folds, or no such fold.
        DataError: the data set has no training split.

    Example:
        >>> from fer_edge.data import load_dataset
        >>> parts = fold_dataset(load_dataset("synthetic:70?size=32"), folds=4, fold=0)
        >>> sorted(parts.roles)
        ['choose', 'train']
    """
    if not 0 <= fold < folds:
        raise InputError(f"fold: got {fold}, expected 0 to {folds - 1}")
    train = dataset.split("train")
    held_out = fold_numbers(train, folds) == fold
    name = f"{train.name}-fold-{fold}-of-{folds}"
    splits = {
        train.name: train.subset(~held_out),
        name: dataclasses.replace(train.subset(held_out), name=name),
    }
    return dataclasses.replace(
        dataset, splits=splits, roles={"train": train.name, "choose": name}, note="One fold of the training split."
    )
