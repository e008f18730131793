"""Plan, read, cache: decoded arrays are kept as .npy files and memory-mapped from the second opening on.

The folder of a source records its files (path, size, time), the reader's version and the hash of every array. A folder
that does not match, or whose arrays are damaged, is decoded again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_edge.core.errors import DataError, FerEdgeError
from fer_edge.core.files import output_folder, read_json, sha256_bytes, sha256_file, write_json
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset, StillSet

__all__ = ["ReadPlan", "cached"]

_SCHEMA = 1
_ARRAYS = ("images", "labels", "rows", "votes", "groups")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadPlan:
    """A source that was inspected and not yet decoded.

    Attributes:
        root: the file or folder of the source.
        files: every file that decides the result.
        version: the reader's version; raise it when the reader's result changes.
        options: reader options that change the result, as text.
        read: decodes the source.
        select: applied to the decoded or cached data set, for example to split it into folds.
    """

    name: str
    root: Path
    files: Sequence[Path]
    version: int
    options: str = ""
    read: Callable[[Progress], Dataset]
    select: Callable[[Dataset], Dataset] | None = None


def cached(plan: ReadPlan, *, folder: Path, progress: Progress) -> Dataset:
    """Open the data set of `plan` from the cache under `folder`, or decode and cache it.

    If the cache cannot be written, the arrays stay in memory and a warning is logged.

    Raises:
        DataError: the source cannot be read.
    """
    identity = _identity(plan)
    key = sha256_bytes(f"{identity['root']} {plan.options}".encode())[:16]
    place = folder / f"{plan.name}-{key}"
    try:
        dataset = _open(place, identity)
    except FerEdgeError as error:
        _log.info("decoding %s: %s", plan.root, error)
        dataset = dataclasses.replace(plan.read(progress), source=str(plan.root))
        try:
            _store(dataset, place, identity)
            dataset = _open(place, identity)
        except (FerEdgeError, OSError) as refused:
            _log.warning("%s was decoded but not cached: %s", plan.root, refused)
    return plan.select(dataset) if plan.select else dataset


def _identity(plan: ReadPlan) -> dict[str, Any]:
    lines = []
    for path in plan.files:
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns}\n")
    return {
        "schema": _SCHEMA,
        "root": str(plan.root),
        "files": len(lines),
        "files_sha256": sha256_bytes("".join(lines).encode()),
        "reader": f"{plan.name}/{plan.version}",
        "options": plan.options,
    }


def _store(dataset: Dataset, place: Path, identity: Mapping[str, Any]) -> None:
    with output_folder(place, overwrite=True) as scratch:
        splits: dict[str, dict[str, str]] = {}
        for number, (name, split) in enumerate(dataset.splits.items()):
            arrays = splits[name] = {}
            for kind in _ARRAYS:
                if (array := getattr(split, kind)) is not None:
                    file = scratch / f"{number}-{kind}.npy"
                    np.save(file, array, allow_pickle=False)
                    arrays[kind] = sha256_file(file)
        about = {"name": dataset.name, "layout": dataset.layout, "roles": dict(dataset.roles), "note": dataset.note}
        index = {"identity": identity, "dataset": about, "expressions": dataset.expressions, "splits": splits}
        write_json(scratch / "index.json", index)


def _open(place: Path, identity: Mapping[str, Any]) -> Dataset:
    index = read_json(place / "index.json")
    try:
        if index["identity"] != identity:
            raise DataError(f"{place}: got the cache of other files or of another reader")
        splits, expressions = {}, tuple(index.get("expressions", EXPRESSIONS))
        for number, (name, hashes) in enumerate(index["splits"].items()):
            arrays = {kind: _load(place / f"{number}-{kind}.npy", sha256) for kind, sha256 in hashes.items()}
            splits[name] = StillSet(name=name, expressions=expressions, **arrays)
        return Dataset(**index["dataset"], source=identity["root"], splits=splits, cache=place)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{place} is damaged: {error}") from error


def _load(path: Path, sha256: str) -> Any:
    if sha256_file(path) != sha256:
        raise DataError(f"{path} is damaged: its content does not match the recorded hash")
    return np.load(path, mmap_mode="r" if path.name.endswith("-images.npy") else None, allow_pickle=False)
