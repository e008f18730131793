"""FER2013 as the Kaggle image folders: ``train/<emotion>/`` and ``test/<emotion>/``.

``test`` holds both test splits. Where the files are named ``PublicTest_N.png`` and ``PrivateTest_N.png`` they are told
apart and keep N as their row number; where the names say nothing, ``test`` is one split that serves no role.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.fer2013.rows import ROLES_BY_USAGE, SIDE, missing_note
from fer_edge.data.image_files import class_images, folder_entries, read_stack

__all__ = ["list_files", "read"]

_NAME: Final = re.compile(r"(Training|PublicTest|PrivateTest)_(\d+)")
_HELD: Final = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}
_NAMELESS: Final = {"train": "Training", "test": "test"}
_NOTE: Final = (
    "The file names in test/ do not say PublicTest or PrivateTest, so the two stand as one split that may neither be "
    "chosen on nor reported; use fer2013.csv, the parquet files, or folders with the original file names."
)

_Still = tuple[int, Path, int]  # row number, file, label


def list_files(root: Path) -> list[Path]:
    """Every image under ``train/`` and ``test/``.

    Raises:
        InputError: as `read`, as far as names go.
    """
    return [file for stills in _splits(root).values() for _, file, _ in stills]


def read(root: Path, progress: Progress) -> Dataset:
    """Read the folders.

    Raises:
        InputError: an unknown folder, an empty one, a file that is no 48x48 image, a name in the wrong folder, or a
            number that stands twice.
    """
    found = _splits(root)
    total, done = sum(map(len, found.values())), 0
    splits: dict[str, StillSet] = {}
    for name, stills in found.items():
        images = read_stack(
            [file for _, file, _ in stills],
            side=SIDE,
            cure="Faces of another size are read with folder:PATH.",
            progress=partial(_tell, progress, done, total),
        )
        labels = np.array([label for _, _, label in stills], np.int64)
        rows = np.array([number for number, _, _ in stills], np.int64)
        splits[name] = StillSet(name=name, images=images, labels=labels, rows=rows)
        done += len(stills)
    roles = {role: usage for usage, role in ROLES_BY_USAGE.items() if usage in splits}
    note = _NOTE if "test" in splits else missing_note(splits)
    return Dataset(name="fer2013", source=f"fer2013:{root}", layout="folders", splits=splits, roles=roles, note=note)


def _tell(progress: Progress, before: int, total: int, what: str, done: int, _: int) -> None:
    progress(what, before + done, total)


def _splits(root: Path) -> dict[str, list[_Still]]:
    """Split name -> stills ordered by row number."""
    for entry in folder_entries(root):
        if entry.is_dir() and entry.name not in _HELD:
            raise InputError(f"{entry}: expected only train/ and test/; your own splits are read with folder:{root}")
    found: dict[str, list[_Still]] = {}
    for folder in _HELD:
        if (root / folder).is_dir():
            found |= _parted(root / folder)
    return found


def _parted(folder: Path) -> dict[str, list[_Still]]:
    files = class_images(folder)
    named = [_NAME.fullmatch(file.stem) for file, _ in files]
    if not any(named):
        return {_NAMELESS[folder.name]: [(number, file, label) for number, (file, label) in enumerate(files)]}
    parts: dict[str, dict[int, _Still]] = {usage: {} for usage in _HELD[folder.name]}
    for match, (file, label) in zip(named, files, strict=True):
        if match is None or match[1] not in parts:
            raise InputError(f"{file}: expected a name such as {_HELD[folder.name][0]}_123.png, as its neighbours have")
        part, number = parts[match[1]], int(match[2])
        if number in part:
            raise InputError(f"{file}: {match[0]} stands there twice, also as {part[number][1]}")
        part[number] = (number, file, label)
    return {usage: [part[number] for number in sorted(part)] for usage, part in parts.items() if part}
