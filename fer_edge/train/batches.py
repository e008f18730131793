"""A split on the training device, and the batches drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.data import StillSet
from fer_edge.train.losses import soft_targets
from fer_edge.train.recipe import LossSpec

__all__ = ["DeviceFaces", "batches", "in_batches", "seeded"]


def seeded(device: torch.device, *key: int) -> torch.Generator:
    """A generator that depends on the key alone, so that a resumed epoch draws what the unbroken one drew."""
    entropy = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(entropy[0]) << 31 ^ int(entropy[1]))


@dataclass(frozen=True, kw_only=True)
class DeviceFaces:
    """All faces of a split in device memory.

    Attributes:
        images: uint8 (N, S, S), resized; median filtered for evaluation, but in training only after augmentation.
        labels: int64 (N,).
        targets: float32 (N, classes), what the rows are trained toward.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor

    @classmethod
    def load(
        cls, stills: StillSet, spec: PreprocessSpec, loss: LossSpec, device: torch.device, *, classes: int
    ) -> DeviceFaces:
        """Move a split to the device."""
        labels = torch.from_numpy(np.array(stills.labels, np.int64))
        votes = None if stills.votes is None else torch.from_numpy(np.array(stills.votes))
        return cls(
            images=torch.from_numpy(np.array(prepare_stills(np.asarray(stills.images), spec))).to(device),
            labels=labels.to(device),
            targets=soft_targets(labels, votes, loss, classes).to(device),
        )

    def __len__(self) -> int:
        return len(self.labels)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches of one shuffled epoch over `count` rows, as `in_batches` makes them."""
    yield from in_batches(torch.randperm(count, generator=generator, device=generator.device), size)


def in_batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Index batches of given rows; the incomplete last one is left out, unless it is the only one."""
    size = min(size, len(rows))
    for start in range(0, len(rows) - size + 1, size):
        yield rows[start : start + size]
