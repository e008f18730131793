"""A data set's splits on the training device, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.data import Dataset, StillSet, leaked_rows
from fer_edge.train.losses import soft_targets
from fer_edge.train.recipe import LossSpec, TrainRecipe

__all__ = ["DeviceFaces", "DeviceSplits", "batches", "in_batches", "seeded"]


def seeded(device: torch.device, *key: int) -> torch.Generator:
    """Return a generator that depends on the key alone, so that a resumed epoch draws the same numbers."""
    entropy = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(entropy[0]) << 31 ^ int(entropy[1]))


@dataclass(frozen=True, kw_only=True)
class DeviceFaces:
    """All faces of a split in device memory.

    Attributes:
        images: uint8 (N, S, S), resized; median filtered for evaluation, in training only after augmentation.
        labels: int64 (N,).
        targets: float32 (N, classes), the distributions to train toward; zeros for rows without a label.
        crowd: float32 (N, classes + 1), shares of the FER+ votes, zeros for rows without a vote that counts; None where
            no probe learns them.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    crowd: Tensor | None = None

    @classmethod
    def load(
        cls, stills: StillSet, spec: PreprocessSpec, loss: LossSpec, device: torch.device, *, classes: int
    ) -> DeviceFaces:
        """Prepare a split and move it to the device."""
        labels = torch.from_numpy(np.array(stills.labels, np.int64))
        votes = None if stills.votes is None else torch.from_numpy(np.array(stills.votes))
        return cls(
            images=torch.from_numpy(np.array(prepare_stills(np.asarray(stills.images), spec))).to(device),
            labels=labels.to(device),
            targets=soft_targets(labels, votes, loss, classes).to(device),
        )

    @classmethod
    def of(cls, stills: StillSet, recipe: TrainRecipe, device: torch.device) -> DeviceFaces:
        """Prepare a split by a recipe, median filter included, and move it to the device."""
        return cls.load(stills, recipe.preprocess, recipe.loss, device, classes=recipe.model.classes)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class DeviceSplits:
    """The splits that a training uses.

    Attributes:
        train: faces without the median filter, which follows augmentation.
        choose: faces that epochs are chosen on.
        unleaked: bool (N,), rows of `choose` that are not in the training split too.
        choose_set: the split that `choose` was loaded from.
    """

    train: DeviceFaces
    choose: DeviceFaces
    unleaked: Tensor
    choose_set: StillSet

    @classmethod
    def load(
        cls, dataset: Dataset, recipe: TrainRecipe, device: torch.device, *, train: StillSet | None = None
    ) -> DeviceSplits:
        """Load both splits; `train` replaces the training split by some of its rows."""
        choose = dataset.split("choose")
        unfiltered = replace(recipe, preprocess=replace(recipe.preprocess, median=0))
        return cls(
            train=DeviceFaces.of(train or dataset.split("train"), unfiltered, device),
            choose=DeviceFaces.of(choose, recipe, device),
            unleaked=torch.from_numpy(~leaked_rows(dataset, choose)).to(device),
            choose_set=choose,
        )


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Iterate over the index batches of one shuffled epoch of `count` rows, as `in_batches` does."""
    yield from in_batches(torch.randperm(count, generator=generator, device=generator.device), size)


def in_batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Iterate over batches of the rows; the incomplete last one is dropped, unless it is the only one."""
    size = min(size, len(rows))
    for start in range(0, len(rows) - size + 1, size):
        yield rows[start : start + size]
