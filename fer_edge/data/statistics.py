"""What a data set holds: class counts, repeated images, contradicting labels, rows that leak between splits."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.json import encode
from fer_edge.data.dataset import Dataset, Role, StillSet

__all__ = ["DatasetReport", "SplitReport", "describe", "leaked_rows"]


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split, counted.

    Attributes:
        role: what the split serves, or None.
        n: images.
        classes: expression -> images.
        repeated: images that stand earlier in the same split, pixel for pixel.
        contradictory: groups of identical images within the split that do not agree on the label.
        leaked: images that also stand in the training split; None for that split itself and where there is none.
        subjects: different people, where the source names them.
        with_votes: whether FER+ votes came with the images.
    """

    name: str
    role: Role | None
    n: int
    sha256: str
    classes: Mapping[str, int]
    repeated: int
    contradictory: int
    leaked: int | None
    subjects: int | None
    with_votes: bool


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """A data set, counted.

    Attributes:
        image_size: width and height in pixels.
        contradictory: groups of identical images, over all splits, that do not agree on the label.
        cache: the folder the arrays are mapped from; None where they were decoded into memory.
    """

    name: str
    source: str
    layout: str
    sha256: str
    image_size: tuple[int, int]
    splits: tuple[SplitReport, ...]
    contradictory: int
    note: str
    cache: str | None

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this report."""
        return dict(encode(self))


def leaked_rows(dataset: Dataset, split: StillSet) -> NDArray[np.bool_]:
    """Which images of `split` also stand in the training split, pixel for pixel.

    Returns:
        bool (N,).

    Raises:
        InputError: the data set has no training split (``"train" in dataset.roles`` tells beforehand).
    """
    known = set(_fingerprints(dataset.split("train")))
    return np.array([mark in known for mark in _fingerprints(split)], np.bool_)


def describe(dataset: Dataset) -> DatasetReport:
    """Count what `dataset` holds."""
    served: dict[str, Role] = {name: role for role, name in dataset.roles.items()}
    splits = list(dataset.splits.values())
    marks = [_fingerprints(split) for split in splits]
    trained = {
        mark for split, found in zip(splits, marks, strict=True) if served.get(split.name) == "train" for mark in found
    }
    height, width = splits[0].images.shape[1:]
    return DatasetReport(
        name=dataset.name,
        source=dataset.source,
        layout=dataset.layout,
        sha256=dataset.sha256,
        image_size=(width, height),
        splits=tuple(
            _split_report(split, served.get(split.name), found, trained)
            for split, found in zip(splits, marks, strict=True)
        ),
        contradictory=_contradictory(itertools.chain(*marks), itertools.chain(*(split.labels for split in splits))),
        note=dataset.note,
        cache=str(dataset.cache) if dataset.cache else None,
    )


def _split_report(split: StillSet, role: Role | None, marks: Sequence[bytes], trained: set[bytes]) -> SplitReport:
    counts = np.bincount(split.labels, minlength=len(split.expressions))
    return SplitReport(
        name=split.name,
        role=role,
        n=len(split),
        sha256=split.sha256,
        classes={name: int(count) for name, count in zip(split.expressions, counts, strict=True)},
        repeated=len(marks) - len(set(marks)),
        contradictory=_contradictory(marks, split.labels),
        leaked=sum(mark in trained for mark in marks) if trained and role != "train" else None,
        subjects=None if split.groups is None else len(np.unique(split.groups)),
        with_votes=split.votes is not None,
    )


def _fingerprints(split: StillSet) -> list[bytes]:
    """The same bytes for the same pixels; far smaller than the images."""
    images = np.ascontiguousarray(split.images)
    return [hashlib.blake2b(image, digest_size=16).digest() for image in images]


def _contradictory(marks: Iterable[bytes], labels: Iterable[int]) -> int:
    """Groups of identical images that do not agree on the label."""
    meanings: dict[bytes, set[int]] = {}
    for mark, label in zip(marks, labels, strict=True):
        meanings.setdefault(mark, set()).add(int(label))
    return sum(len(found) > 1 for found in meanings.values())
