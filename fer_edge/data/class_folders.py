"""Class folders, the user's own faces: one folder per expression, flat or in ``train/``, ``val/`` and ``test/``.

Folder names are expressions or their synonyms (`fer_edge.core.labels.canonical_expression`); the images are cropped
faces. This is the shortest reader: copy it to add a data set, then register the copy in `fer_edge.data.specs.READERS`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.dataset import ROLES, Dataset, Role, StillSet
from fer_edge.data.image_files import class_images, folder_entries, read_stack

__all__ = ["FLAT", "plan"]

FLAT: Final = "all"
"""The name of a flat set's only split."""

_VERSION = 1
_FOLDERS: Final[dict[Role, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "choose": ("val", "valid", "validation"),
    "report": ("test", "testing"),
}
_CURE: Final = "Crop the faces to one size, or add ?size=N to the spec to resize them to NxN."


def plan(path: Path, *, size: int | None = None) -> ReadPlan:
    """Inspect class folders and plan how to read them.

    Args:
        path: the folder that holds ``train/``, ``val/``, ``test/`` (any of them), or the expressions' folders.
        size: resize every face to size x size pixels; without it all images must have one size.

    Raises:
        DataError: the folder is missing, empty, or holds something else.
    """
    roles = _split_folders(path)
    images = {name: class_images(path / name) for name in roles.values()} if roles else {FLAT: class_images(path)}
    return ReadPlan(
        name="folder",
        root=path,
        files=[file for listed in images.values() for file, _ in listed],
        version=_VERSION,
        options=f"size={size}" if size else "",
        read=partial(_read, roles, images, size),
    )


def _split_folders(path: Path) -> dict[Role, str]:
    """Return role -> folder name; empty for a flat set."""
    entries = [entry for entry in folder_entries(path) if entry.is_dir()]
    roles: dict[Role, str] = {}
    for role, words in _FOLDERS.items():
        named = [entry.name for entry in entries if entry.name.lower() in words]
        if len(named) > 1:
            raise DataError(f"{path} holds both {named[0]}/ and {named[1]}/, which have the same role; keep one")
        if named:
            roles[role] = named[0]
    others = [entry for entry in entries if entry.name not in roles.values()]
    if roles and others:
        raise DataError(f"{others[0]}: expected only train/, val/ and test/ beside {next(iter(roles.values()))}/")
    return roles


def _read(
    roles: dict[Role, str], images: dict[str, list[tuple[Path, int]]], size: int | None, progress: Progress
) -> Dataset:
    files = [file for listed in images.values() for file, _ in listed]
    stack = read_stack(files, cure=_CURE, progress=progress, resize=size)
    splits, start = {}, 0
    for name, listed in images.items():
        faces = stack[start : start + len(listed)]
        labels = np.array([label for _, label in listed], np.int64)
        splits[name] = StillSet(name=name, images=faces, labels=labels, rows=np.arange(len(listed)))
        start += len(listed)
    note = "A flat set is only reported on; for the other roles put the folders into train/, val/ and test/."
    if roles:
        missing = [f"{_FOLDERS[role][0]}/" for role in ROLES if role not in roles]
        note = f"There is no {' and no '.join(missing)} folder." if missing else ""
    return Dataset(name="folder", layout="class per folder", splits=splits, roles=roles or {"report": FLAT}, note=note)
