"""Drawn faces as a data set (``synthetic:COUNT@SEED``), for demo, tests and documentation."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.dataset import Dataset, Role, StillSet

__all__ = ["plan"]

_VERSION = 1
_DEFAULT_COUNT: Final = 700
_COUNTS: Final = range(1, 1_000_001)
# Each chunk has its own seed, so that progress is visible: at most _CHUNKS chunks of _CHUNK faces per split.
_CHUNK: Final = 10 * len(EXPRESSIONS)
_CHUNKS: Final = 1 << 16
_ROLES: Final[dict[str, Role]] = {"train": "train", "val": "choose", "test": "report"}


def plan(where: str, *, size: int = 48) -> ReadPlan:
    """Plan the drawing of ``COUNT@SEED`` faces for training, and a quarter as many (at least 7) per other split.

    A longer training split begins with the shorter one; no face is in two splits.

    Args:
        where: ``COUNT``, ``COUNT@SEED`` or an empty text (700, seed 0).
        size: width and height in pixels.

    Raises:
        DataError: `where` has another form, or the count is out of range.
    """
    numbers = re.fullmatch(r"([0-9]{0,9})(?:@([0-9]{1,9}))?", where)
    count = int(numbers[1] or _DEFAULT_COUNT) if numbers else 0
    if numbers is None or count not in _COUNTS:
        expected = f"synthetic:COUNT@SEED, as in synthetic:700@3, with a count of 1 to {_COUNTS[-1]:,}"
        raise DataError(f"data spec: got synthetic:{where}, expected {expected}")
    seed = int(numbers[2] or 0)
    from fer_edge.data import faces

    package = Path(faces.__file__).parent
    return ReadPlan(
        name="synthetic",
        root=package,
        files=sorted(package.glob("*.py")),
        version=_VERSION,
        options=f"{count}@{seed} size={size}",
        read=partial(_read, count, seed, size),
    )


def _read(count: int, seed: int, size: int, progress: Progress) -> Dataset:
    from fer_edge.data.faces import synthetic_stills

    fewer = max(len(EXPRESSIONS), count // 4)
    counts = {"train": count, "val": fewer, "test": fewer}
    total, done = sum(counts.values()), 0
    splits = {}
    for place, (name, wanted) in enumerate(counts.items()):
        drawn = []
        for chunk, start in enumerate(range(0, wanted, _CHUNK)):
            progress("drawing faces", done, total)
            chunk_seed = (len(counts) * seed + place) * _CHUNKS + chunk
            drawn.append(synthetic_stills(min(_CHUNK, wanted - start), seed=chunk_seed, size=size))
            done += len(drawn[-1][0])
        images, labels = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        splits[name] = StillSet(name=name, images=images, labels=labels, rows=np.arange(wanted))
    progress("drawing faces", total, total)
    note = "Drawn by a program: results on it are no evidence about real faces."
    roles = {role: name for name, role in _ROLES.items()}
    return Dataset(name="synthetic", layout="generated", splits=splits, roles=roles, note=note)
