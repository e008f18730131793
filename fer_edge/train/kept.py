"""What costs minutes to compute from a network and a data set, kept in the cache folder under a key of all it hangs on.

A cache that cannot be read or written costs time, not the result: a warning is logged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fer_edge.core.errors import InputError, OutputError
from fer_edge.core.files import sha256_bytes, writing
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["cache_key", "keep", "kept", "weights_sha256"]

_log = logging.getLogger(__name__)


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
