"""The rows a benchmark evaluates on, and its accuracy: measured now, or recorded in the manifest."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.private_log import PRIVATE_SPLIT
from fer_edge.bench.report import BenchReport, DataRead, StatedAccuracy
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import DataError, InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.manifest import Variant
from fer_edge.core.metrics import accuracy_report, softmax
from fer_edge.core.types import Float32, Int64, Uint8
from fer_edge.data import Dataset, leaked_rows
from fer_edge.data.dataset import Role
from fer_edge.data.faces import synthetic_stills

__all__ = [
    "EvaluationRows",
    "labelled_rows",
    "measured_accuracy",
    "record_accuracies",
    "recorded_accuracy",
    "synthetic_rows",
]

_FER2013_SPLITS: Final[Mapping[Role, str]] = {"choose": "PublicTest", "report": PRIVATE_SPLIT}


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationRows:
    """Faces that every variant of a run is evaluated on.

    Attributes:
        images: uint8 (N, H, W) grey.
        labels: int64 (N,); None where an accuracy has no meaning.
        leaked: bool (N,), True where the pixels are also in the training split; None where that is unknown.
        read: source and hashes, for the report; None for drawn faces.
        expressions: the name of each label.
    """

    images: Uint8
    labels: Int64 | None
    leaked: NDArray[np.bool_] | None
    dataset: str
    split: str
    read: DataRead | None
    description: str
    expressions: tuple[str, ...] = EXPRESSIONS


def labelled_rows(dataset: Dataset, role: Role) -> EvaluationRows:
    """Select one split of a data set.

    Raises:
        InputError: the data set has no split for the role.
        DataError: the split is empty.
    """
    split = dataset.split(role)
    if len(split) == 0:
        raise DataError(f"{dataset.source}: got no image in the split {split.name}, expected at least one")
    return EvaluationRows(
        images=split.images,
        labels=split.labels,
        leaked=leaked_rows(dataset, split) if "train" in dataset.roles else None,
        dataset=dataset.name,
        split=split.name,
        read=DataRead(
            source=dataset.source,
            sha256=dataset.sha256,
            split=split.name,
            split_sha256=split.sha256,
            n=len(split),
        ),
        description=f"{dataset.name} {split.name}, {len(split)} images",
        expressions=dataset.expressions,
    )


@functools.cache
def synthetic_rows(count: int = 28) -> EvaluationRows:
    """Draw faces: enough to compare logits between variants, not to measure an accuracy."""
    images, _ = synthetic_stills(count, seed=0)
    images.flags.writeable = False
    return EvaluationRows(
        images=images,
        labels=None,
        leaked=None,
        dataset="synthetic",
        split="synthetic",
        read=None,
        description=f"{count} synthetic faces",
    )


def measured_accuracy(logits: Float32, rows: EvaluationRows, *, temperature: float) -> StatedAccuracy | None:
    """Measure the accuracy of logits float32 (N, 7) on labelled rows; None on rows without labels."""
    if rows.labels is None:
        return None
    report = accuracy_report(
        softmax(logits, temperature=temperature),
        rows.labels,
        dataset=rows.dataset,
        split=rows.split,
        leaked=rows.leaked,
        classes=rows.expressions,
    )
    return StatedAccuracy(report=report, recorded=False)


def recorded_accuracy(variant: Variant, role: Role) -> StatedAccuracy | None:
    """Return the manifest's accuracy on the FER2013 split that serves `role`; None where it has none."""
    report = variant.metrics.get(_FER2013_SPLITS.get(role, ""))
    return None if report is None else StatedAccuracy(report=report, recorded=True)


def record_accuracies(bundle: Bundle, report: BenchReport) -> Bundle:
    """Write the accuracies that `report` measured of this bundle into its manifest, by split.

    Where a variant ran on several providers, the first one's accuracy is recorded.

    Raises:
        InputError: the report measured nothing of this bundle.
        BundleError: the bundle changed since it was opened.
        OutputError: it cannot be written.
    """
    manifest = bundle.manifest
    for variant in manifest.variants:
        measured = [
            result.accuracy.report
            for result in report.variants
            if result.sha256 == bundle.sha256 and result.name == variant.name
            if result.accuracy is not None and not result.accuracy.recorded
        ]
        if measured:
            metrics = {**variant.metrics, measured[0].split: measured[0]}
            manifest = manifest.with_variant(dataclasses.replace(variant, metrics=metrics))
    if manifest is bundle.manifest:
        raise InputError(f"{bundle.path}: got no measured accuracy to record, expected at least one; give --data")
    return bundle.updated(manifest)
