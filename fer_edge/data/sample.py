"""A sample of the training split: seeded, stratified, hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_edge.data.stills import Dataset, StillSet
from fer_edge.decode import expect
from fer_edge.errors import InputError

__all__ = ["RowSample", "SampleRecipe", "draw_sample"]


@dataclass(frozen=True, kw_only=True)
class SampleRecipe:
    """The calibration sample: training rows, each class by its share.

    Attributes:
        size: rows.
        seed: of the draw.
    """

    size: int = 512
    seed: int = 2013

    def __post_init__(self) -> None:
        expect(self.size >= 1, "size", self.size, "1 or more")
        expect(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSample:
    """Some rows of the training split.

    Attributes:
        dataset: the data set's name.
        dataset_sha256: of the data set as read.
        seed: of the draw.
        stills: the rows, in the order of the split.
    """

    dataset: str
    dataset_sha256: str
    seed: int
    stills: StillSet

    def summary(self) -> dict[str, Any]:
        """Where the rows come from, without the rows."""
        return {
            "dataset": self.dataset,
            "dataset_sha256": self.dataset_sha256,
            "split": self.stills.name,
            "size": len(self.stills),
            "seed": self.seed,
            "sha256": self.stills.sha256,
        }

    def to_json(self) -> dict[str, Any]:
        """The row numbers, with the SHA-256 over their images, labels and numbers; no image."""
        return {**self.summary(), "rows": self.stills.rows.tolist()}


def draw_sample(dataset: Dataset, *, size: int, seed: int) -> RowSample:
    """Draw training rows without replacement, every class by its share of the split.

    Raises:
        InputError: the data set has no training split, or it holds fewer rows.
    """
    train = dataset.split("train")
    if size > len(train):
        raise InputError(
            f"{dataset.source}: the split {train.name} holds {len(train):,} rows, fewer than the {size:,} of the "
            f"calibration sample; give --set sample.size={max(1, len(train) // 4)}"
        )
    random = np.random.default_rng(seed)
    chosen = [
        random.choice(np.flatnonzero(train.labels == label), count, replace=False)
        for label, count in enumerate(_shares(np.bincount(train.labels), size))
        if count
    ]
    rows = train.subset(np.sort(np.concatenate(chosen)))
    return RowSample(dataset=dataset.name, dataset_sha256=dataset.sha256, seed=seed, stills=rows)


def _shares(counts: NDArray[np.int64], size: int) -> list[int]:
    """`size` split by the classes' shares; what rounding leaves goes to the largest remainders."""
    exact = counts * size / counts.sum()
    whole = np.floor(exact).astype(int)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: size - whole.sum()]] += 1
    return [int(share) for share in whole]
