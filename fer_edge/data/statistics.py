"""The contents of a data set: class counts, repeated images, contradicting labels, rows that leak between splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.json_report import JsonReport
from fer_edge.core.types import Int64
from fer_edge.data.dataset import Dataset, Role, StillSet

__all__ = ["DatasetReport", "SplitReport", "describe", "fingerprints", "leaked_rows"]


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The contents of one split.

    Attributes:
        role: the split's role, or None.
        n: images.
        classes: expression -> images.
        repeated: images identical to an earlier one of the split.
        contradictory: groups of identical images in the split with different labels.
        leaked: images that are also in the training split; None for that split, and without one.
        subjects: number of people, where the source names them.
        with_votes: the images have FER+ votes.
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
class DatasetReport(JsonReport):
    """The contents of a data set.

    Attributes:
        image_size: width and height in pixels.
        contradictory: groups of identical images in all splits with different labels.
        cache: the folder of the memory-mapped arrays; None if they are in memory.
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


def leaked_rows(dataset: Dataset, split: StillSet) -> NDArray[np.bool_]:
    """Find the images of `split` that are also in the training split, pixel for pixel.

    Returns:
        bool (N,).

    Raises:
        DataError: the data set has no training split (``"train" in dataset.roles``).
    """
    return np.isin(fingerprints(split), fingerprints(dataset.split("train")))


def describe(dataset: Dataset) -> DatasetReport:
    """Count the contents of `dataset`.

    Example:
        >>> from fer_edge.data import describe, load_dataset
        >>> describe(load_dataset("synthetic:14?size=32")).splits[0].n
        14
    """
    marks = {name: fingerprints(split) for name, split in dataset.splits.items()}
    height, width = next(iter(dataset.splits.values())).images.shape[1:]
    return DatasetReport(
        name=dataset.name,
        source=dataset.source,
        layout=dataset.layout,
        sha256=dataset.sha256,
        image_size=(width, height),
        splits=tuple(_split_report(dataset, split, marks) for split in dataset.splits.values()),
        contradictory=_contradictory(list(marks.values()), [split.labels for split in dataset.splits.values()]),
        note=dataset.note,
        cache=str(dataset.cache) if dataset.cache else None,
    )


def _split_report(dataset: Dataset, split: StillSet, marks: Mapping[str, NDArray[np.bytes_]]) -> SplitReport:
    own, train = marks[split.name], dataset.roles.get("train")
    counts = np.bincount(split.labels, minlength=len(split.expressions)).tolist()
    return SplitReport(
        name=split.name,
        role=next((role for role, name in dataset.roles.items() if name == split.name), None),
        n=len(split),
        sha256=split.sha256,
        classes=dict(zip(split.expressions, counts, strict=True)),
        repeated=len(own) - len(np.unique(own)),
        contradictory=_contradictory([own], [split.labels]),
        leaked=None if train in (None, split.name) else int(np.isin(own, marks[str(train)]).sum()),
        subjects=None if split.groups is None else len(np.unique(split.groups)),
        with_votes=split.votes is not None,
    )


def fingerprints(split: StillSet) -> NDArray[np.bytes_]:
    """Hash each image: bytes (N,), 32 hexadecimal digits."""
    images = np.ascontiguousarray(split.images)
    return np.array([hashlib.blake2b(image, digest_size=16).hexdigest() for image in images], "S32")


def _contradictory(marks: Sequence[NDArray[np.bytes_]], labels: Sequence[Int64]) -> int:
    """Count the groups of identical images with different labels."""
    _, image = np.unique(np.concatenate(marks), return_inverse=True)
    pairs = np.unique(np.stack([image.ravel(), np.concatenate(labels)], axis=1), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum())
