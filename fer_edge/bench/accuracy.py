"""The rows a benchmark evaluates on, and its accuracy: measured now, or recorded in the manifest."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.private_log import PRIVATE_SPLIT
from fer_edge.bench.report import BenchReport, DataRead, StatedAccuracy
from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.bundle import Bundle
from fer_edge.core.bundle_writer import update_bundle
from fer_edge.core.crowd import crowd_accuracy, first_choice
from fer_edge.core.errors import DataError, InputError
from fer_edge.core.evaluate import evaluate
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.manifest import Variant
from fer_edge.core.metrics import accuracy_report, softmax
from fer_edge.core.types import Float32, Int64, Uint8
from fer_edge.data import Dataset, leaked_rows
from fer_edge.data.dataset import Role
from fer_edge.data.faces import synthetic_stills
from fer_edge.data.negatives import NEGATIVES, UNTRAINED_NEGATIVES, make_negatives
from fer_edge.runtime.inference import Network

__all__ = [
    "EvaluationRows",
    "labelled_rows",
    "measured_accuracy",
    "measured_crowd",
    "record_accuracies",
    "recorded_accuracy",
    "synthetic_rows",
]

_NEGATIVES_EACH: Final = 100
_NEGATIVES_SEED: Final = 2_013  # another than any training's
_FER2013_SPLITS: Final[Mapping[Role, str]] = {"choose": "PublicTest", "report": PRIVATE_SPLIT}


Count: TypeAlias = Callable[[int, int], None]
"""A callback: (done, total)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationRows:
    """Faces that every variant of a run is evaluated on.

    Attributes:
        images: uint8 (N, H, W) grey.
        labels: int64 (N,); None where an accuracy has no meaning.
        leaked: bool (N,), True where the pixels are also in the training split; None where that is unknown.
        read: source and hashes, for the report; None for drawn faces.
        expressions: the name of each label.
        votes: uint8 (N, 10), FER+ votes; None where the data has none.
    """

    images: Uint8
    labels: Int64 | None
    leaked: NDArray[np.bool_] | None
    dataset: str
    split: str
    read: DataRead | None
    description: str
    expressions: tuple[str, ...] = EXPRESSIONS
    votes: Uint8 | None = None


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
        votes=split.votes,
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


def measured_crowd(network: Network, rows: EvaluationRows, *, progress: Count | None = None) -> CrowdAccuracy | None:
    """Measure the head `crowd` on rows with votes, and on made negatives.

    Args:
        network: opened with the reading ``"crowd"``.
        rows: the faces.
        progress: called with (stills done, N).

    Returns:
        None where the rows have no votes, or none whose first choice is an expression.
    """
    crowd = network.variant.crowd
    if rows.votes is None or crowd is None or not (first_choice(rows.votes) >= 0).any():
        return None
    spec = network.manifest.preprocess

    def probabilities(images: Uint8) -> Float32:
        logits = evaluate(network, images, spec, progress=progress).by_window[1]
        return np.asarray(softmax(logits, temperature=crowd.temperature))

    faces = np.asarray(rows.images)
    made = {kind: make_negatives(kind, _NEGATIVES_EACH, faces=faces, seed=_NEGATIVES_SEED) for kind in NEGATIVES}
    return crowd_accuracy(
        probabilities(rows.images),
        rows.votes,
        threshold=crowd.not_judgeable_threshold,
        negatives={kind: probabilities(images) for kind, images in made.items()},
        untrained=UNTRAINED_NEGATIVES,
    )


def recorded_accuracy(variant: Variant, role: Role) -> StatedAccuracy | None:
    """Return the manifest's accuracy on the FER2013 split that serves `role`; None where it has none."""
    split = _FER2013_SPLITS.get(role, "")
    report = variant.metrics.get(split)
    crowd = None if variant.crowd is None else variant.crowd.metrics.get(split)
    return None if report is None else StatedAccuracy(report=report, recorded=True, crowd=crowd)


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
            result.accuracy
            for result in report.variants
            if result.sha256 == bundle.sha256 and result.name == variant.name
            if result.accuracy is not None and not result.accuracy.recorded
        ]
        if measured:
            report_now, crowd_now, head = measured[0].report, measured[0].crowd, variant.crowd
            if head is not None and crowd_now is not None:
                figures = {**head.metrics, report_now.split: crowd_now}
                variant = dataclasses.replace(variant, crowd=dataclasses.replace(head, metrics=figures))
            metrics = {**variant.metrics, report_now.split: report_now}
            manifest = manifest.with_variant(dataclasses.replace(variant, metrics=metrics))
    if manifest is bundle.manifest:
        raise InputError(f"{bundle.path}: got no measured accuracy to record, expected at least one; give --data")
    return update_bundle(bundle, manifest)
