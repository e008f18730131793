"""What the runtime needs of the file system: bounded reads, hashes, the cache's folder, and one error for writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fer_edge.core.errors import FerEdgeError, InputError, OutputError

__all__ = ["default_cache_folder", "read_json", "read_regular", "sha256_bytes", "user_path", "writing"]

# A named pipe in place of a file must not block the reader.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave, with ``~`` expanded.

    Raises:
        InputError: no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"path: got {os.fspath(path)!r}, expected a user with a home folder after ~") from error


def default_cache_folder() -> Path:
    """Return ``FER_EDGE_CACHE``, else ``$XDG_CACHE_HOME/fer-edge``, else ``~/.cache/fer-edge``."""
    if own := os.environ.get("FER_EDGE_CACHE"):
        return user_path(own)
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fer-edge"


def sha256_bytes(data: bytes) -> str:
    """Return the hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def read_regular(path: Path, *, limit_bytes: int, error: type[FerEdgeError] = InputError) -> bytes:
    """Read a regular file whose size is checked before any memory is allocated for it.

    Args:
        path: the file; a named pipe in its place blocks nothing.
        limit_bytes: largest size.
        error: the class of the error.

    Raises:
        FerEdgeError: it is missing, no regular file, or larger.
    """
    try:
        with open(os.open(path, _READ_FLAGS), "rb") as handle:
            found = os.fstat(handle.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise error(f"{path}: got a device, pipe or folder, expected a regular file")
            if found.st_size > limit_bytes:
                raise error(f"{path}: got {found.st_size} bytes, expected at most {limit_bytes}")
            return handle.read(found.st_size)
    except OSError as fault:
        raise error(f"cannot read {path}: {fault.strerror or fault}") from fault


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # deeply nested brackets exceed the stack
        raise InputError(f"{path} is not valid JSON: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Free space, choose another folder, or change its "
            "permissions; an earlier output is unchanged."
        ) from error
