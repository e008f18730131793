"""Generated faces as a data set: what demo, tests and docs run on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Int64, Progress, Uint8
from fer_edge.data.cache import ReadPlan
from fer_edge.data.dataset import Dataset, Role, StillSet

__all__ = ["DEFAULT_COUNT", "plan"]

DEFAULT_COUNT: Final = 700
_VERSION = 1
# Drawn in parts, each from a seed of its own, so that progress shows: at most _CHUNKS parts of _CHUNK faces a split.
_CHUNK: Final = 10 * len(EXPRESSIONS)
_CHUNKS: Final = 1 << 16
_SPLITS: Final[dict[str, Role]] = {"train": "train", "val": "choose", "test": "report"}


def plan(count: int = DEFAULT_COUNT, *, seed: int = 0, size: int = 48) -> ReadPlan:
    """Plan `count` faces to train on, and a quarter as many (at least seven) to choose on and to report.

    Args:
        count: faces in ``train``; a longer set begins with the shorter one.
        seed: the same seed gives the same faces; no face stands in two splits.
        size: width and height in pixels.
    """
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
    fewer = max(len(EXPRESSIONS), count // 4)
    counts = {"train": count, "val": fewer, "test": fewer}
    total, done = sum(counts.values()), 0
    splits = {}
    for place, (name, wanted) in enumerate(counts.items()):
        drawn = []
        for chunk, start in enumerate(range(0, wanted, _CHUNK)):
            progress("drawing faces", done, total)
            drawn.append(_draw(min(_CHUNK, wanted - start), (len(counts) * seed + place) * _CHUNKS + chunk, size))
            done += len(drawn[-1][0])
        images, labels = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        splits[name] = StillSet(name=name, images=images, labels=labels, rows=np.arange(wanted))
    progress("drawing faces", total, total)
    return Dataset(
        name="synthetic",
        source=f"synthetic:{count}@{seed}",
        layout="generated",
        splits=splits,
        roles={role: name for name, role in _SPLITS.items()},
        note="Drawn by a program: figures on it say nothing about real faces.",
    )


def _draw(count: int, seed: int, size: int) -> tuple[Uint8, Int64]:
    from fer_edge.data.faces import synthetic_stills

    return synthetic_stills(count, seed=seed, size=size)
