"""Samples of the training split: seeded, hashed, stratified by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.json import expect
from fer_edge.core.types import Int64
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["RowSample", "SampleChoice", "SampleRecipe", "draw_sample"]

SampleChoice: TypeAlias = Literal["stratified", "balanced"]


@dataclass(frozen=True, kw_only=True)
class SampleRecipe:
    """The calibration sample: rows of the training split.

    Attributes:
        choice: ``"stratified"`` keeps the class frequencies, ``"balanced"`` gives all classes the same number as far as
            they have rows.
    """

    size: int = 512
    seed: int = 2013
    choice: SampleChoice = "stratified"

    def __post_init__(self) -> None:
        expect(self.size >= 1, "size", self.size, "1 or more")
        expect(self.seed >= 0, "seed", self.seed, "0 or more")

    def draw(self, dataset: Dataset) -> RowSample:
        """Draw the sample, as `draw_sample`."""
        return draw_sample(dataset, size=self.size, seed=self.seed, choice=self.choice)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSample:
    """Some rows of the training split.

    Attributes:
        dataset_sha256: hash of the data set.
        stills: the rows, in the order of the split.
    """

    dataset: str
    dataset_sha256: str
    seed: int
    stills: StillSet

    def summary(self) -> dict[str, Any]:
        """Return the origin of the rows, without the rows."""
        return {
            "dataset": self.dataset,
            "dataset_sha256": self.dataset_sha256,
            "split": self.stills.name,
            "size": len(self.stills),
            "seed": self.seed,
            "sha256": self.stills.sha256,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the row numbers with the SHA-256 over their images, labels and numbers."""
        return {**self.summary(), "rows": self.stills.rows.tolist()}


def draw_sample(dataset: Dataset, *, size: int, seed: int, choice: SampleChoice = "stratified") -> RowSample:
    """Draw training rows without replacement.

    Args:
        dataset: a data set with a training split.
        choice: as in `SampleRecipe`.

    Raises:
        DataError: no training split, or too few rows.
    """
    train = dataset.split("train")
    if size > len(train):
        raise DataError(
            f"{dataset.source}: the split {train.name} holds {len(train):,} rows, fewer than the {size:,} of the "
            f"calibration sample; give --set sample.size={max(1, len(train) // 4)}"
        )
    random = np.random.default_rng(seed)
    counts = np.bincount(train.labels)
    given = _even(counts, size) if choice == "balanced" else _shares(counts, size)
    index = _by_class(train, given, random)
    rows = train.subset(np.sort(index))
    return RowSample(dataset=dataset.name, dataset_sha256=dataset.sha256, seed=seed, stills=rows)


def _by_class(train: StillSet, counts: Sequence[int], random: np.random.Generator) -> Int64:
    chosen = [
        random.choice(np.flatnonzero(train.labels == label), count, replace=False)
        for label, count in enumerate(counts)
        if count
    ]
    return np.sort(np.concatenate(chosen))


def _even(counts: Int64, size: int) -> list[int]:
    """Distribute `size` over the classes evenly, as far as each has rows."""
    given = [0] * len(counts)
    while sum(given) < size:
        open_classes = [label for label, count in enumerate(counts) if given[label] < count]
        for label in open_classes[: size - sum(given)]:
            given[label] += 1
    return given


def _shares(counts: Int64, size: int) -> list[int]:
    """Distribute `size` by class frequency; the largest remainders get the rest."""
    exact = counts * size / counts.sum()
    whole = np.floor(exact).astype(int)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: size - whole.sum()]] += 1
    return [int(share) for share in whole]
