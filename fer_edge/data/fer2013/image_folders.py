"""FER2013 as the Kaggle image folders: ``train/<emotion>/`` and ``test/<emotion>/``.

``test`` holds both test splits. Files named ``PublicTest_N.png`` and ``PrivateTest_N.png`` are assigned to their splits
with row number N; with other names, ``test`` is one split without a role.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.types import Progress
from fer_edge.data.dataset import Dataset
from fer_edge.data.fer2013.rows import SIDE, USAGES, Rows
from fer_edge.data.image_files import class_images, folder_entries, read_stack

__all__ = ["Still", "list_stills", "read"]

_NAME: Final = re.compile(r"(Training|PublicTest|PrivateTest)_(\d+)")
_HELD: Final = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}
_NAMELESS: Final = {"train": "Training", "test": "test"}


class Still(NamedTuple):
    """An image file with its split, row number and label."""

    file: Path
    usage: str
    number: int
    label: int


def list_stills(root: Path) -> list[Still]:
    """List every image under ``train/`` and ``test/``.

    Raises:
        DataError: an unknown or empty folder, a name in the wrong folder, or a number that appears twice.
    """
    for entry in folder_entries(root):
        if entry.is_dir() and entry.name not in _HELD:
            raise DataError(f"{entry}: expected only train/ and test/; your own splits are read with folder:{root}")
    return [still for folder in _HELD if (root / folder).is_dir() for still in _folder_stills(root / folder)]


def _folder_stills(folder: Path) -> list[Still]:
    files = class_images(folder)
    named = [_NAME.fullmatch(file.stem) for file, _ in files]
    if not any(named):
        usage = _NAMELESS[folder.name]
        return [Still(file, usage, number, label) for number, (file, label) in enumerate(files)]
    found: dict[str, Still] = {}
    for match, (file, label) in zip(named, files, strict=True):
        if match is None or match[1] not in _HELD[folder.name]:
            raise DataError(f"{file}: expected a name such as {_HELD[folder.name][0]}_123.png, as its neighbours have")
        if twin := found.get(match[0]):
            raise DataError(f"{file}: got {match[0]} twice, also as {twin.file}")
        found[match[0]] = Still(file, match[1], int(match[2]), label)
    return list(found.values())


def read(stills: Sequence[Still], progress: Progress) -> Dataset:
    """Read the images.

    Raises:
        DataError: a file is not a 48x48 image.
    """
    files = [still.file for still in stills]
    cure = "Faces of another size are read with folder:PATH."
    return Rows(
        images=read_stack(files, side=SIDE, cure=cure, progress=progress),
        labels=np.array([still.label for still in stills], np.int64),
        numbers=np.array([still.number for still in stills], np.int64),
        usages=np.array([USAGES.index(still.usage) for still in stills], np.int64),
    ).dataset("folders", where=str(files[0].parent))
