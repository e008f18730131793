"""Everything a run needs to go on, in one safetensors file: no pickle is ever written or loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fer_edge.core.errors import InputError
from fer_edge.core.files import write_atomic

__all__ = ["join", "load_checkpoint", "optimiser_tensors", "restore_optimiser", "save_checkpoint", "split"]

_KEY = "fer_edge"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts to one file, atomically.

    Raises:
        OutputError: the folder cannot be written or the disk is full; an older file is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain, metadata={_KEY: json.dumps(facts, allow_nan=False)}))


def load_checkpoint(path: Path, *, unbounded: Collection[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and facts.

    Args:
        path: the file.
        unbounded: tensors that may hold infinities: where one means "not known yet".

    Raises:
        InputError: the file is missing, truncated, not ours, or holds a NaN or an infinity.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as handle:
            facts = (handle.metadata() or {}).get(_KEY)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"cannot read the weights {path}: {error}; expected a safetensors file of a training run"
        ) from error
    if facts is None:
        raise InputError(f"{path} was not written by fer-edge: its metadata lacks {_KEY!r}")
    for name, tensor in tensors.items():
        sound = tensor.isnan().logical_not() if name in unbounded else tensor.isfinite()
        if tensor.is_floating_point() and not sound.all():
            raise InputError(
                f"{path}: the tensor {name!r} holds NaN or infinity; the training diverged or the file is damaged"
            )
    return tensors, json.loads(facts)


def join(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """``{"ema": {"a": t}}`` -> ``{"ema/a": t}``."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def split(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part, as `join` named them."""
    prefix = f"{part}/"
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}/{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took.

    A fused optimiser walks a parameter and its moments side by side through memory, so these take its layout again: a
    checkpoint keeps values, not strides.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
