"""A file that is written piece by piece and still appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fer_edge.files import writing

__all__ = ["scratch_file"]


@contextlib.contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, with its ending, that becomes `path` when the block ends well.

    Raises:
        OutputError: the folder cannot be written; `path` is as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with writing(path):
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            scratch.chmod(0o666 & ~mask)
            scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
