"""Folds of the training split."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.data import load_dataset
from fer_edge.data.folds import fold_dataset, fold_numbers


def test_identical_images_share_a_fold_whatever_their_order() -> None:
    train = load_dataset("synthetic:140?size=32").split("train")
    twice = dataclasses.replace(
        train,
        images=np.concatenate((train.images, train.images[::-1])),
        labels=np.concatenate((train.labels, train.labels[::-1])),
        rows=np.arange(2 * len(train)),
    )

    numbers = fold_numbers(twice, 4)

    assert np.array_equal(numbers[: len(train)], numbers[len(train) :][::-1])
    assert np.array_equal(numbers[: len(train)], fold_numbers(train, 4))
    assert set(numbers) == {0, 1, 2, 3}


def test_every_row_is_held_out_once() -> None:
    dataset = load_dataset("synthetic:140?size=32")

    parts = [fold_dataset(dataset, 3, fold) for fold in range(3)]

    held_out = np.concatenate([part.split("choose").rows for part in parts])
    assert sorted(held_out) == sorted(dataset.split("train").rows)
    for part in parts:
        assert not set(part.split("choose").rows) & set(part.split("train").rows)
        assert "report" not in part.roles


@pytest.mark.parametrize(("folds", "fold"), [(1, 0), (4, 4), (4, -1)])
def test_a_fold_that_is_not_there_is_refused(folds: int, fold: int) -> None:
    with pytest.raises(InputError, match="fold"):
        fold_dataset(load_dataset("synthetic:14?size=32"), folds, fold)
