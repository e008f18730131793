"""Safetensors files with JSON facts: checkpoints, final weights and cached tensors. No pickle is written or loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, OutputError
from fer_edge.core.files import sha256_bytes, write_atomic, writing

__all__ = [
    "cache_key",
    "join",
    "load_cached",
    "load_checkpoint",
    "optimiser_tensors",
    "restore_optimiser",
    "save_cached",
    "save_checkpoint",
    "split",
    "weights_sha256",
]

_KEY = "fer_edge"
_log = logging.getLogger(__name__)


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts to one file, atomically.

    Raises:
        OutputError: the folder cannot be written or the disk is full; an older file is untouched.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(plain, metadata={_KEY: json.dumps(facts, allow_nan=False)}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and facts.

    Raises:
        InputError: the file is missing, truncated, not written by fer-edge, or holds a NaN or an infinity.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as handle:
            facts = (handle.metadata() or {}).get(_KEY)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a safetensors file of a training run") from error
    if facts is None:
        raise InputError(f"{path}: got metadata without {_KEY!r}, expected a file written by fer-edge")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{path}: tensor {name!r} holds NaN or infinity; the training diverged or it is damaged")
    return tensors, json.loads(facts)


def join(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Flatten named groups of tensors: ``{"ema": {"a": t}}`` -> ``{"ema/a": t}``."""
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def split(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of one group, as `join` named them."""
    prefix = f"{part}/"
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as named tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}/{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimiser_tensors` returned.

    A fused optimiser expects parameters and moments with the same strides, which a checkpoint does not keep.
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


def cache_key(facts: Mapping[str, Any]) -> str:
    """Cache key over plain JSON values."""
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:16]


def weights_sha256(module: nn.Module) -> str:
    """Hash of a module's tensors and their names."""
    parts: list[bytes] = []
    for name, tensor in module.state_dict().items():
        parts += [name.encode(), tensor.detach().cpu().contiguous().numpy().tobytes()]
    return sha256_bytes(b"".join(parts))


def load_cached(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read what `save_cached` wrote; None where there is no readable file. A damaged file is logged."""
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except InputError as error:
        _log.warning("cache: %s; it is computed again", error)
        return None


def save_cached(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a cache file, atomically; a failure is logged and costs only time."""
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, tensors, facts)
    except OutputError as error:
        _log.warning("cache: %s is not kept: %s", path.name, error)
