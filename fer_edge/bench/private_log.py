"""The log of every look at PrivateTest: it is for reporting, so each look is on record."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import InputError
from fer_edge.core.files import writing

__all__ = ["LOG_NAME", "PRIVATE_SPLIT", "append_private", "find_private_log", "writable_log"]

PRIVATE_SPLIT: Final = "PrivateTest"
"""The split that is never used to choose anything."""

LOG_NAME: Final = "private_test.jsonl"

_WORKBENCH: Final = Path("bench") / "results"


def find_private_log(start: Path | None = None) -> Path:
    """The repository's log, ``bench/results/private_test.jsonl``, seen from `start` (the current folder) upwards.

    Raises:
        InputError: `start` is not inside the repository.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / _WORKBENCH).is_dir() and (folder / "fer_edge").is_dir():
            return folder / _WORKBENCH / LOG_NAME
    raise InputError(
        f"every look at {PRIVATE_SPLIT} goes on record, and {here} is not inside the fer-edge repository; "
        "say where the record is kept with --private-log FILE"
    )


def writable_log(path: Path | None) -> Path:
    """The log, tried before anything is evaluated: no look may go unrecorded.

    Args:
        path: where it is kept; the repository's own by default.

    Raises:
        InputError: as `find_private_log`.
        OutputError: it cannot be written.
    """
    log = path or find_private_log()
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
    return log


def append_private(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one line of JSON, on disk before the call returns.

    Raises:
        OutputError: the log cannot be written.
    """
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as handle:
            handle.write(line.encode())
            handle.flush()
            os.fsync(handle.fileno())
