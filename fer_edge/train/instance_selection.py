"""Instance selection by InfoBatch (Qin et al. 2024, arXiv 2303.04947): epochs skip some of the easy rows.

A row whose last loss is below the mean is skipped with probability `skip` and otherwise weighs 1 / (1 - skip), so that
the expected gradient is that of all rows. The last eighth of the epochs uses every row.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from fer_edge.train.distributed import all_reduce_sum

__all__ = ["InstanceSelection", "uses_all_rows"]

ANNEALED: Final = 0.125
"""Share of the epochs, at the end, that skip no row."""


def uses_all_rows(skip: float, epoch: int, epochs: int) -> bool:
    """Whether an epoch, counted from 0, uses every row."""
    return not skip or epoch == 0 or epoch / epochs >= 1 - ANNEALED


class InstanceSelection:
    """The last loss of every row, and the rows that an epoch uses.

    Attributes:
        losses: float32 (N,), the last loss of every row; -1 for rows without one.
    """

    def __init__(self, count: int, *, skip: float, device: torch.device) -> None:
        self.skip = skip
        self.losses = torch.full((count,), -1.0, device=device)
        self._seen = self.losses.clone()

    def epoch(self, epoch: int, epochs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the rows of one epoch.

        Args:
            epoch: from 0.
            epochs: in total.
            generator: on the rows' device.

        Returns:
            int64 (n,), the rows, shuffled; and float32 (N,), the weight of each of all rows.
        """
        order = torch.randperm(len(self.losses), generator=generator, device=self.losses.device)
        weights = torch.ones_like(self.losses)
        known = self.losses >= 0
        if uses_all_rows(self.skip, epoch, epochs) or not known.any():
            return order, weights
        easy = known & (self.losses < self.losses[known].mean())
        skipped = easy & (torch.rand(len(easy), generator=generator, device=easy.device) < self.skip)
        weights[easy] = 1 / (1 - self.skip)
        return order[~skipped[order]], weights

    def note(self, rows: Tensor, losses: Tensor) -> None:
        """Record the losses of rows: int64 (B,), float (B,)."""
        self._seen[rows] = losses.detach().float()

    def share(self) -> None:
        """Exchange the noted losses among all processes; called by each of them at the end of an epoch."""
        fresh = self._seen >= 0
        total, count = torch.where(fresh, self._seen, 0.0), fresh.float()
        all_reduce_sum(total)
        all_reduce_sum(count)
        self.losses = torch.where(count > 0, total / count.clamp(min=1), self.losses)
        self._seen.fill_(-1.0)
