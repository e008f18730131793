"""Several processes or GPUs under torchrun; one process without it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from fer_edge.core.errors import InputError, RecipeError
from fer_edge.train.recipe import Precision

__all__ = ["ONE_PROCESS", "Processes", "all_reduce_sum", "autocast", "compute_device", "processes"]


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
        """Whether this process writes and prints: process 0."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            torch.distributed.barrier()

    def part(self, batch: int) -> slice:
        """Return this process's rows of a global batch; sizes differ by one at most."""
        return slice(self.rank * batch // self.world, (self.rank + 1) * batch // self.world)


ONE_PROCESS: Final = Processes(rank=0, world=1, device=torch.device("cpu"))
"""A single process on the CPU."""


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Join the process group that torchrun describes in the environment, if any.

    Args:
        device: as `compute_device` takes it; under torchrun each process has the GPU of its local rank.

    Raises:
        InputError: as `compute_device`.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    place = compute_device(device)
    if place == torch.device("cuda"):
        place = compute_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    if world == 1:
        yield Processes(rank=0, world=1, device=place)
        return
    torch.distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank=rank, world=world, device=place)
    finally:
        torch.distributed.destroy_process_group()


def compute_device(name: str) -> torch.device:
    """Return the device called `name`; ``"auto"`` is CUDA where there is a GPU, else the CPU.

    Raises:
        InputError: no such device, or none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise InputError(f"device: got {name!r}, expected auto, cpu or cuda")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if int(number or 0) >= count:
        raise InputError(f"device: got {name!r}, expected one of the {count} CUDA GPUs of torch; use auto or cpu")
    return torch.device(name)


def all_reduce_sum(value: Tensor) -> None:
    """Sum `value` over all processes, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context that computes in bf16 where `precision` allows it and the device has it natively; else FP32.

    Raises:
        RecipeError: bf16 is required and the device has no native bf16.
    """
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if precision == "bf16" and not native:
        raise RecipeError(f"precision: got 'bf16', but {device} has no native bf16; use 'auto' or 'fp32'")
    if precision == "fp32" or not native:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
