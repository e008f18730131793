"""Files that are either whole or not there: atomic writes, hashes, a folder that appears at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fer_edge.core.errors import InputError, OutputError

__all__ = [
    "claimed",
    "default_cache_folder",
    "output_folder",
    "read_json",
    "scratch_file",
    "sha256_bytes",
    "sha256_file",
    "write_atomic",
    "write_json",
    "writing",
]


def default_cache_folder() -> Path:
    """``FER_EDGE_CACHE``, else ``$XDG_CACHE_HOME/fer-edge``, else ``~/.cache/fer-edge``."""
    if own := os.environ.get("FER_EDGE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fer-edge"


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(handle)


def _digest(handle: Any) -> str:
    digest = hashlib.sha256()
    while chunk := handle.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write under `path` into an `OutputError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {path}: {reason}. Free space, choose another folder, or mend its permissions; "
            "whatever stood there before is untouched."
        ) from error


@contextlib.contextmanager
def scratch_file(path: Path, *, suffix: str | None = None) -> Iterator[Path]:
    """An empty file beside `path` that becomes `path` when the block ends well, and is removed when it does not.

    So `path` is whole or not there, however many pieces it is written in.

    Args:
        path: where the file is to stand.
        suffix: the scratch file's ending, for what tells a format by it; that of `path` by default.

    Raises:
        OutputError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    scratch = _scratch_path(path, path.suffix if suffix is None else suffix)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield scratch
        with writing(path):
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(scratch, path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Raises:
        OutputError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    with scratch_file(path, suffix=".part") as scratch, writing(path):
        scratch.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        OutputError: as `write_atomic`.
    """
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


@contextlib.contextmanager
def claimed(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone holds `folder` while the block runs.

    The folder itself is the lock, so no file stays behind, and a process that ends, however it ends, lets go of it.

    Args:
        folder: one that exists.
        wait: until nobody else holds it, instead of saying that somebody does.

    Raises:
        OutputError: the folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock
        yield True
        return
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            ours = True
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(handle)


@contextlib.contextmanager
def output_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A scratch folder beside `path` that becomes `path` when the block ends well, and is removed when it does not.

    Args:
        path: where the folder is to stand.
        overwrite: replace an existing, non-empty folder; without it such a folder is an error.

    Raises:
        OutputError: the folder exists and is not empty, or cannot be written.
    """
    with writing(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file, expected a folder to write; choose another path or remove the file")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise OutputError(f"{path} already holds files; choose another folder or pass --overwrite")
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = _scratch_path(path, ".part")
        scratch.mkdir()
    try:
        with writing(path):
            yield scratch
            _replace_folder(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace_folder(scratch: Path, path: Path) -> None:
    if not path.exists():
        os.rename(scratch, path)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    os.rename(path, retired / "old")
    try:
        os.rename(scratch, path)
    except BaseException:
        os.rename(retired / "old", path)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def _scratch_path(path: Path, suffix: str) -> Path:
    """A name of its own beside `path`; what is made under it has the rights that the umask says, unlike mkstemp's."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}{suffix}"
