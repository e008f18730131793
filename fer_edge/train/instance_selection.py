"""Which rows an epoch works on: easy ones may be left out, and count the more when they are not.

InfoBatch (Qin et al. 2024, arXiv 2303.04947): a row whose last loss lies below the mean is left out of an epoch with
some chance, and weighs one over the chance of staying otherwise, so that the expected gradient is that of all rows.
The last eighth of the epochs works on every row.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from fer_edge.train.distributed import all_reduce_sum

__all__ = ["RowChoice", "takes_all"]

ANNEALED: Final = 0.125
"""Share of the epochs, at the end, that leave no row out."""


def takes_all(skip: float, epoch: int, epochs: int) -> bool:
    """Whether an epoch, counted from 0, works on every row: nothing is left out, or nothing yet, or no more.

    Args:
        skip: the chance that an easy row is left out.
        epoch: which.
        epochs: of the training.
    """
    return not skip or epoch == 0 or epoch / epochs >= 1 - ANNEALED


class RowChoice:
    """The rows' last losses, and the rows that an epoch takes.

    Attributes:
        losses: float32 (N,), the last loss of every row; infinite where it has none yet.
    """

    def __init__(self, count: int, *, skip: float, device: torch.device) -> None:
        self.skip = skip
        self.losses = torch.full((count,), torch.inf, device=device)
        self._seen = torch.full_like(self.losses, torch.inf)

    def epoch(self, progress: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The rows of one epoch, shuffled.

        Args:
            progress: share of the training that is done.
            generator: on the rows' device.

        Returns:
            int64 (n,), the rows; and float32 (N,), what each of all rows weighs.
        """
        device = self.losses.device
        order = torch.randperm(len(self.losses), generator=generator, device=device)
        weights = torch.ones_like(self.losses)
        if not self.skip or progress >= 1 - ANNEALED:
            return order, weights
        known = self.losses[self.losses.isfinite()]
        easy = self.losses < known.mean() if len(known) else torch.zeros_like(self.losses, dtype=torch.bool)
        left_out = easy & (torch.rand(len(easy), generator=generator, device=device) < self.skip)
        weights[easy] = 1 / (1 - self.skip)
        return order[~left_out[order]], weights

    def note(self, rows: Tensor, losses: Tensor) -> None:
        """Remember the losses of rows: int64 (B,), float (B,)."""
        self._seen[rows] = losses.detach().float()

    def share(self) -> None:
        """Take over what this process noted and what every other one did; at an epoch's end, by every process."""
        fresh = self._seen.isfinite()
        total, count = torch.where(fresh, self._seen, 0.0), fresh.float()
        all_reduce_sum(total)
        all_reduce_sum(count)
        self.losses = torch.where(count > 0, total / count.clamp(min=1), self.losses)
        self._seen.fill_(torch.inf)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, after `share`."""
        return {"losses": self.losses}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.losses = tensors["losses"].to(self.losses.device)
