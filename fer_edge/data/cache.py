"""Decoded arrays kept as .npy files, memory-mapped from the second opening on.

One folder a source; it states which files (path, size, time) it was made from, with which reader, and the hash of
every array. A folder that says anything else, or whose arrays do not hash to what it says, is decoded anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer_edge.core.errors import FerEdgeError, InputError
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
    """A source that was looked at and not yet decoded.

    Attributes:
        name: the data set's name.
        root: the file or folder that the user named.
        files: every file whose content decides what is read.
        version: raised whenever the reader makes something else of the same files.
        options: reader options that change the result, as text.
        read: decodes the source.
    """

    name: str
    root: Path
    files: Sequence[Path]
    version: int
    options: str = ""
    read: Callable[[Progress], Dataset]


def cached(plan: ReadPlan, *, folder: Path, progress: Progress) -> Dataset:
    """The data set of `plan`: from the cache under `folder` if it is there and whole, else decoded and kept.

    A cache that cannot be written costs time, not the result: the arrays then stay in memory and a warning is logged.

    Raises:
        InputError: the source cannot be read as it is.
    """
    identity = _identity(plan)
    key = sha256_bytes(f"{identity['root']} {plan.options}".encode())[:16]
    place = folder / f"{plan.name}-{key}"
    try:
        return _open(place, identity)
    except InputError as error:
        _log.info("decoding %s: %s", plan.root, error)
    dataset = plan.read(progress)
    try:
        _store(dataset, place, identity)
        return _open(place, identity)
    except (FerEdgeError, OSError) as error:
        _log.warning("%s was decoded but not kept for the next time: %s", plan.root, error)
        return dataset


def _identity(plan: ReadPlan) -> dict[str, Any]:
    lines = []
    for path in plan.files:
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
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
            raise InputError(f"{place} was made from other files or by another reader")
        splits, expressions = {}, tuple(index.get("expressions", EXPRESSIONS))
        for number, (name, hashes) in enumerate(index["splits"].items()):
            arrays = {kind: _load(place / f"{number}-{kind}.npy", sha256) for kind, sha256 in hashes.items()}
            splits[name] = StillSet(name=name, expressions=expressions, **arrays)
        return Dataset(**index["dataset"], source=identity["root"], splits=splits, cache=place)
    except FerEdgeError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{place} is damaged: {error}") from error


def _load(path: Path, sha256: str) -> Any:
    if sha256_file(path) != sha256:
        raise InputError(f"{path} is damaged: its content does not have the recorded hash")
    return np.load(path, mmap_mode="r" if path.name.endswith("-images.npy") else None, allow_pickle=False)
