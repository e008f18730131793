"""Several processes or GPUs under torchrun; one process without it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Processes", "all_reduce_sum", "processes"]


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among its peers.

    Attributes:
        rank: number of this process; process 0 writes and prints.
        world: number of processes.
        device: where this process computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """This process's rows of a global batch; sizes differ by one at most."""
        return slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the process group that torchrun describes in the environment, if any.

    Args:
        device: ``"auto"`` takes CUDA where there is one, else the CPU; or a torch device string.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    use_cuda = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if use_cuda else torch.device("cpu")
    if device not in ("auto", "cuda"):
        place = torch.device(device)
    if world == 1:
        yield Processes(rank=0, world=1, device=place)
        return
    torch.distributed.init_process_group("nccl" if use_cuda else "gloo")
    try:
        yield Processes(rank=rank, world=world, device=place)
    finally:
        torch.distributed.destroy_process_group()


def all_reduce_sum(value: Tensor) -> None:
    """Sum `value` over all processes, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
