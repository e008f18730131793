"""The user's own faces: one folder an expression, in ``train/``, ``val/`` and ``test/`` or in one flat set.

Folder names may be any word that `fer_edge.core.labels.canonical_expression` knows (``anger``, ``Happiness``); the
images are faces that are already cropped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import PreprocessSpec, prepare_face
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.dataset import ROLES, Dataset, Role, StillSet
from fer_edge.data.image_files import class_images, counted, folder_entries, read_grey, read_stack

__all__ = ["FLAT", "plan"]

FLAT: Final = "all"
"""The name of the one split of a set that has none."""

_VERSION = 1
_FOLDERS: Final[dict[Role, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "choose": ("val", "valid", "validation"),
    "report": ("test", "testing"),
}
_CURE: Final = "Crop the faces to one size, or add ?size=N to the spec to have them resized to NxN."

_Images = list[tuple[Path, int]]


def plan(path: Path, *, size: int | None = None) -> ReadPlan:
    """Look at a class-per-folder set and plan how to read it.

    Args:
        path: the folder that holds ``train/``, ``val/``, ``test/`` (any of them), or the expressions' folders.
        size: resize every face to size x size pixels; without it all images must have one size, which is kept.

    Raises:
        InputError: no such folder, an unknown or an empty one, or a file that is no image.
    """
    roles = _split_folders(path)
    images = {folder: class_images(path / folder) for folder in roles.values()} if roles else {FLAT: class_images(path)}
    return ReadPlan(
        name="folder",
        root=path,
        files=[file for found in images.values() for file, _ in found],
        version=_VERSION,
        options=f"size={size}" if size else "",
        read=partial(_read, path, roles, images, size),
    )


def _split_folders(path: Path) -> dict[Role, str]:
    """Role -> name of the folder that serves it; empty for a flat set."""
    entries = [entry for entry in folder_entries(path) if entry.is_dir()]
    roles: dict[Role, str] = {}
    for role, words in _FOLDERS.items():
        named = [entry.name for entry in entries if entry.name.lower() in words]
        if len(named) > 1:
            raise InputError(f"{path} holds both {named[0]}/ and {named[1]}/, which serve the same purpose; keep one")
        if named:
            roles[role] = named[0]
    others = [entry.name for entry in entries if entry.name not in roles.values()]
    if roles and others:
        raise InputError(
            f"{path / others[0]}: expected only train/, val/ and test/ beside {next(iter(roles.values()))}/"
        )
    return roles


def _read(path: Path, roles: dict[Role, str], images: dict[str, _Images], size: int | None, tell: Progress) -> Dataset:
    found = [(file, label, split) for split, listed in images.items() for file, label in listed]
    files = [file for file, _, _ in found]
    if size:
        spec = PreprocessSpec(size=size)
        stack = np.stack([prepare_face(read_grey(file), spec) for file in counted(files, tell)])
    else:
        stack = read_stack(files, cure=_CURE, progress=tell)
    splits, start = {}, 0
    for split, listed in images.items():
        stop = start + len(listed)
        labels = np.array([label for _, label in listed], np.int64)
        splits[split] = StillSet(name=split, images=stack[start:stop], labels=labels, rows=np.arange(len(listed)))
        start = stop
    return Dataset(
        name="folder",
        source=f"folder:{path}",
        layout="class per folder",
        splits=splits,
        roles=roles or {"report": FLAT},
        note=_note(roles),
    )


def _note(roles: dict[Role, str]) -> str:
    if not roles:
        return "A flat set is only reported on; put the expressions' folders into train/, val/ and test/ for the rest."
    missing = [f"{_FOLDERS[role][0]}/" for role in ROLES if role not in roles]
    return f"There is no {' and no '.join(missing)} folder." if missing else ""
