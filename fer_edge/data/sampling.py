"""A sample of the training split: seeded, hashed, stratified unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.json import expect
from fer_edge.core.types import Int64
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["RowSample", "SampleChoice", "SampleRecipe", "draw_sample"]

SampleChoice: TypeAlias = Literal["stratified", "random", "balanced", "hardest"]

_POOL: Final = 4  # stratified rows looked at for every hard one taken


@dataclass(frozen=True, kw_only=True)
class SampleRecipe:
    """The calibration sample: rows of the training split.

    Attributes:
        size: rows.
        seed: of the draw.
        choice: ``"stratified"`` gives each class its share of the split, ``"balanced"`` all classes the same, as far as
            they reach; ``"random"`` looks at no class; ``"hardest"`` takes, of four times as many stratified rows,
            those for which the float network's two best labels lie closest together.
    """

    size: int = 512
    seed: int = 2013
    choice: SampleChoice = "stratified"

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


def draw_sample(
    dataset: Dataset,
    *,
    size: int,
    seed: int,
    choice: SampleChoice = "stratified",
    margins: Callable[[StillSet], NDArray[np.floating[Any]]] | None = None,
) -> RowSample:
    """Draw training rows without replacement.

    Args:
        dataset: with a training split.
        size: rows.
        seed: of the draw.
        choice: how, as in `SampleRecipe`.
        margins: float (N,) of some stills, how far apart the network's two best labels lie; for ``"hardest"``.

    Raises:
        InputError: the data set has no training split, or it holds fewer rows; ``"hardest"`` without `margins`.
    """
    train = dataset.split("train")
    if size > len(train):
        raise InputError(
            f"{dataset.source}: the split {train.name} holds {len(train):,} rows, fewer than the {size:,} of the "
            f"calibration sample; give --set sample.size={max(1, len(train) // 4)}"
        )
    random = np.random.default_rng(seed)
    counts = np.bincount(train.labels)
    if choice == "random":
        index = random.choice(len(train), size, replace=False)
    elif choice == "balanced":
        index = _by_class(train, _even(counts, size), random)
    elif choice == "stratified":
        index = _by_class(train, _shares(counts, size), random)
    else:
        if margins is None:
            raise InputError('sample.choice: "hardest" needs a network to say which rows are hard')
        pool = _by_class(train, _shares(counts, min(len(train), _POOL * size)), random)
        index = pool[np.argsort(margins(train.subset(pool)), kind="stable")[:size]]
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
    """`size` dealt out to the classes one by one, as long as each has rows left."""
    given = [0] * len(counts)
    while sum(given) < size:
        open_classes = [label for label, count in enumerate(counts) if given[label] < count]
        for label in open_classes[: size - sum(given)]:
            given[label] += 1
    return given


def _shares(counts: Int64, size: int) -> list[int]:
    """`size` split by the classes' shares; what rounding leaves goes to the largest remainders."""
    exact = counts * size / counts.sum()
    whole = np.floor(exact).astype(int)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: size - whole.sum()]] += 1
    return [int(share) for share in whole]
