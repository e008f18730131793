"""The log of every evaluation on PrivateTest: the split is for reporting only, so each evaluation is on record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import writing
from fer_edge.core.machine import repository_commit
from fer_edge.core.manifest import timestamp

__all__ = ["PRIVATE_SPLIT", "append_private", "find_private_log", "log_bundle", "writable_log"]

PRIVATE_SPLIT: Final = "PrivateTest"
"""The split that nothing is chosen on."""

_RESULTS: Final = Path("bench") / "results"


def find_private_log(start: Path | None = None) -> Path:
    """Find the repository's log, ``bench/results/private_test.jsonl``, from `start` (the current folder) upwards.

    Raises:
        InputError: `start` is not inside the repository.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / _RESULTS).is_dir() and (folder / "fer_edge").is_dir():
            return folder / _RESULTS / "private_test.jsonl"
    raise InputError(
        f"log of {PRIVATE_SPLIT}: got {here}, expected a folder inside the fer-edge repository; "
        "name the log with --private-log FILE"
    )


def writable_log(path: Path | None) -> Path:
    """Open the log before anything is evaluated, so that no evaluation goes unrecorded.

    Args:
        path: the log; None finds the repository's.

    Raises:
        InputError: as `find_private_log`.
        OutputError: it cannot be written.
    """
    log = path or find_private_log()
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
    return log


def log_bundle(log: Path, bundle: Bundle, variant: str, **entry: Any) -> None:
    """Append an evaluation of one variant of a bundle, with its hashes.

    Raises:
        OutputError: the log cannot be written.
    """
    graphs = [file.sha256 for file in bundle.variant(variant).graphs]
    name = bundle.manifest.name
    append_private(log, bundle=name, sha256=bundle.sha256, variant=variant, graphs=graphs, **entry)


def append_private(log: Path, **entry: Any) -> None:
    """Append one line of JSON, with date and commit, and flush it to the disk.

    Raises:
        OutputError: the log cannot be written.
    """
    facts = {"date": timestamp(), "commit": repository_commit(log.parent), **entry}
    with writing(log), writable_log(log).open("ab") as handle:
        handle.write(json.dumps(facts, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
