"""Atomic writes and output checks: an output is complete or absent. `disk` holds what the runtime needs of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fer_edge.core.disk import default_cache_folder, read_json, sha256_bytes, user_path, writing
from fer_edge.core.errors import OutputError

if sys.platform != "win32":  # which has no flock: nothing is locked or swept there
    import fcntl

__all__ = [
    "claimed",
    "default_cache_folder",
    "expect_new",
    "output_folder",
    "read_json",
    "scratch_file",
    "sha256_bytes",
    "sha256_file",
    "user_path",
    "write_atomic",
    "write_json",
    "writing",
]

_MARK = ".fer-edge-"  # part of every scratch name: `.<output's name>.fer-edge-<random><suffix>`


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def expect_new(
    path: str | os.PathLike[str], *, overwrite: bool = False, folder: bool = False, inputs: Iterable[Any] = ()
) -> Path:
    """Check, before any work, that an output may be written; the one check of every command.

    Args:
        path: the output; ``~`` is expanded.
        overwrite: accept a file that exists, or a folder that holds files.
        folder: the output is a folder, which may exist as long as it is empty.
        inputs: what the command reads (paths, or other sources, which are ignored): never overwritten.

    Returns:
        The path with ``~`` expanded.

    Raises:
        OutputError: the output exists, is an input, or is a file where a folder is expected or the reverse.
    """
    path = user_path(path)
    with writing(path):
        if not os.path.lexists(path):
            return path
        if path.is_dir() != folder:
            kinds = ("a folder", "a file") if path.is_dir() else ("a file", "a folder")
            raise OutputError(f"{path}: got {kinds[0]}, expected {kinds[1]} to write; choose another name")
        if not folder and not path.is_file():
            raise OutputError(f"{path}: got a device or a broken link, expected a file to write; choose another name")
        if any(os.path.exists(each) and path.samefile(each) for each in inputs if isinstance(each, str | os.PathLike)):
            raise OutputError(f"{path} is an input of this command; choose another name")
        if not overwrite and (not folder or any(path.iterdir())):
            state = "already holds files" if folder else "exists"
            raise OutputError(f"{path} {state}; choose another name or pass --overwrite")
    return path


@contextlib.contextmanager
def scratch_file(path: Path, *, suffix: str | None = None) -> Iterator[Path]:
    """Give a scratch file beside `path` that becomes `path` when the block ends without an error.

    The scratch file has mode 0600, and those that killed runs left of the same output are removed.

    Args:
        path: the final file.
        suffix: the scratch file's ending, for libraries that choose a format by it; that of `path` by default.

    Raises:
        OutputError: the folder cannot be written or the disk is full; `path` is unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        scratch, handle, mode = _new_scratch(path, path.suffix if suffix is None else suffix)
    try:
        yield scratch
        with writing(path), scratch.open("rb") as file:
            os.fsync(file.fileno())
            os.chmod(scratch, mode)
            os.replace(scratch, path)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one.

    Raises:
        OutputError: the folder cannot be written or the disk is full; `path` is unchanged.
    """
    with scratch_file(path, suffix=".part") as scratch, writing(path):
        scratch.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        OutputError: as `write_atomic`.
    """
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def output_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a scratch folder beside `path` that becomes `path` when the block ends without an error.

    Args:
        path: the final folder.
        overwrite: replace a folder that holds files.

    Raises:
        OutputError: the folder holds files, also of another process that was faster, or cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        expect_new(path, overwrite=overwrite, folder=True)
        scratch, handle, mode = _new_scratch(path, ".part", folder=True)
    try:
        with writing(path):
            yield scratch
            os.chmod(scratch, mode)
            if overwrite:
                _replace_folder(scratch, path)
            else:
                _place_folder(scratch, path)
    finally:
        os.close(handle)
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock `folder` against other processes while the block runs; the lock ends with the process and leaves no file.

    Yields:
        True if this process holds the lock, False if another one does.

    Raises:
        OutputError: the folder cannot be opened.
    """
    with writing(folder):
        handle = _open_for_lock(folder)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _open_for_lock(path: Path) -> int:
    return os.open(os.devnull if sys.platform == "win32" else path, os.O_RDONLY)


def _lock(handle: int, *, wait: bool = False) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _new_scratch(path: Path, suffix: str, *, folder: bool = False) -> tuple[Path, int, int]:
    """Create a private, locked file or folder; return it, the handle of its lock, and the mode that the umask gives."""
    while True:
        scratch = path.parent / f".{path.name}{_MARK}{secrets.token_hex(8)}{suffix}"
        if folder:
            scratch.mkdir()
        else:
            scratch.touch(exist_ok=False)
        try:
            mode = scratch.stat().st_mode & 0o777
            scratch.chmod(0o700 if folder else 0o600)
            handle = _open_for_lock(scratch)
        except FileNotFoundError:  # swept by another process before it was locked
            continue
        if _lock(handle, wait=True) and scratch.exists():
            return scratch, handle, mode
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed runs left of the output `path`; the scratch of a process that still runs is locked."""
    if sys.platform == "win32":
        return
    for left in path.parent.iterdir():
        if not left.name.startswith(f".{path.name}{_MARK}") or left.is_symlink():
            continue
        with contextlib.suppress(OSError, OutputError), claimed(left) as ours:
            if not ours:
                continue
            if left.suffix == ".old" and not path.exists():  # killed while it replaced a folder: the old one is whole
                os.rename(left, path)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _place_folder(scratch: Path, path: Path) -> None:
    """Move a folder to a place that was free when it was begun; of several processes one wins."""
    if sys.platform == "win32" and path.exists():  # which replaces no empty folder
        with contextlib.suppress(OSError):
            path.rmdir()
    try:
        os.rename(scratch, path)
    except OSError as error:
        if not os.path.lexists(path):
            raise
        raise OutputError(
            f"{path}: got an output of another process, written meanwhile, expected none; choose another name or pass "
            "--overwrite"
        ) from error


def _replace_folder(scratch: Path, path: Path) -> None:
    if not path.exists():
        os.rename(scratch, path)
        return
    retired = scratch.with_suffix(".old")
    with claimed(path):  # the lock moves with the folder, so that no other process takes it for left over
        os.rename(path, retired)
        try:
            os.rename(scratch, path)
        except BaseException:
            os.rename(retired, path)
            raise
        shutil.rmtree(retired, ignore_errors=True)
