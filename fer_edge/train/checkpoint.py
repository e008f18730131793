"""Everything a run needs to go on, in one safetensors file: no pickle is ever written or loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
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
    "keep",
    "kept",
    "load_checkpoint",
    "optimiser_tensors",
    "restore_optimiser",
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


def cache_key(facts: Mapping[str, Any]) -> str:
    """A folder's name that changes with any of the facts (plain JSON values)."""
    return sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:16]


def weights_sha256(module: nn.Module) -> str:
    """Hash of a module's tensors and their names."""
    return sha256_bytes(b"".join(_bytes(module)))


def _bytes(module: nn.Module) -> Iterator[bytes]:
    for name, tensor in module.state_dict().items():
        yield name.encode()
        yield tensor.detach().cpu().contiguous().numpy().tobytes()


def kept(path: Path, *, what: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts that `keep` wrote, or None where there are none, or none that can be read.

    Args:
        path: the file.
        what: what is in it, for the warning.
    """
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except InputError as error:
        _log.warning("%s are computed anew: %s", what, error)
        return None


def keep(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, what: str) -> None:
    """Write tensors and facts for the next time, atomically."""
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, tensors, facts)
    except OutputError as error:
        _log.warning("%s are not kept for the next time: %s", what, error)
