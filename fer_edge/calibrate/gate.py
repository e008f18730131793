"""The accuracy gate: its rows, its limits checked, its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_edge.calibrate.recipe import GateLimits
from fer_edge.core.errors import DataError, GateError
from fer_edge.core.json import encode
from fer_edge.core.metrics import PairedReport
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.sampling import RowSample
from fer_edge.data.statistics import leaked_rows

__all__ = ["GateCheck", "GateReport", "GateRows", "check_gate", "draw_agreement_rows", "require_gates"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GateRows:
    """The rows that the gate compares on.

    Attributes:
        dataset: the data set's name.
        choose: the choosing split's name.
        images: uint8 (N, H, W) of that split.
        labels: int64 (N,).
        leaked: bool (N,), True where the training split holds the same pixels.
        outside: training rows outside the calibration sample.
        votes: uint8 (N, 10), FER+ votes of the choosing split; None where the data has none.
    """

    dataset: str
    choose: str
    images: Uint8
    labels: Int64
    leaked: NDArray[np.bool_]
    outside: RowSample
    votes: Uint8 | None = None

    @property
    def kept(self) -> StillSet:
        """The choosing split without leaked rows; `rows` are positions in it."""
        index = np.flatnonzero(~self.leaked).astype(np.int64)
        return StillSet(name=self.choose, images=self.images[index], labels=self.labels[index], rows=index)

    @classmethod
    def of(cls, dataset: Dataset, outside: RowSample) -> GateRows:
        """Join the choosing split of `dataset` and `outside`.

        Raises:
            DataError: there is no such split, or every row of it is leaked.
        """
        split = dataset.split("choose")
        leaked = leaked_rows(dataset, split)
        if leaked.all():
            raise DataError(
                f"{dataset.source}: got {len(split):,} rows of {split.name}, all of them in the training split too, "
                "expected rows to choose on; give another split"
            )
        return cls(
            dataset=dataset.name,
            choose=split.name,
            images=split.images,
            labels=split.labels,
            leaked=leaked,
            outside=outside,
            votes=split.votes,
        )


def draw_agreement_rows(dataset: Dataset, *samples: RowSample, size: int, seed: int) -> RowSample:
    """Draw training rows whose pixels are in no sample.

    Raises:
        DataError: fewer such rows are left.
    """
    train = dataset.split("train")
    known = {image.tobytes() for sample in samples for image in sample.stills.images}
    outside = np.flatnonzero([image.tobytes() not in known for image in train.images])
    if not len(outside):
        smaller = max(len(sample.stills) for sample in samples) // 2
        cure = f"give --set sample.size={smaller}" if len(known) > 1 else "all rows are one image: add others"
        raise DataError(
            f"{dataset.source}: got a calibration sample of every distinct image of {train.name}, expected {size:,} "
            f"rows outside it to compare labels on; {cure}"
        )
    if size > len(outside):
        raise DataError(
            f"{dataset.source}: got {len(outside):,} rows of {train.name} outside the calibration sample, expected "
            f"{size:,} to compare labels on; give --set gate.agreement_rows={len(outside)}"
        )
    random = np.random.default_rng(seed)
    rows = train.subset(np.sort(random.choice(outside, size, replace=False)))
    return RowSample(dataset=dataset.name, dataset_sha256=dataset.sha256, seed=seed, stills=rows)


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One figure and its limit.

    Attributes:
        name: the limit's name in the recipe.
        on: rows and window of the measurement.
        measured: the figure.
        limit: the limit.
        passed: whether the figure keeps it.
    """

    name: str
    on: str
    measured: float
    limit: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """Every check of one form.

    Attributes:
        checks: in order.
        paired: the paired comparisons, by their rows; the choosing split at T = 1 first, the training rows last.
    """

    checks: tuple[GateCheck, ...]
    paired: Mapping[str, PairedReport]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Verdict, checks and comparisons."""
        return {"passed": self.passed, **encode(self)}


def check_gate(
    choosing: Mapping[str, PairedReport], agreement: Mapping[str, PairedReport], limits: GateLimits
) -> GateReport:
    """Check the comparisons with the parent.

    Args:
        choosing: on the choosing split without leaked rows, by rows, window and head.
        agreement: on training rows outside the calibration sample, by head.
        limits: the recipe's limits.
    """
    found = [
        (name, on, measured, limit, measured <= limit)
        for on, paired in choosing.items()
        for name, measured, limit in (
            ("max_top1_drop", -paired.top1_delta, limits.max_top1_drop),
            ("max_flip_rate", paired.flip_rate, limits.max_flip_rate),
            ("max_ece_rise", paired.ece_delta, limits.max_ece_rise),
        )
    ]
    least = limits.min_agreement
    found += [("min_agreement", on, each.agreement, least, each.agreement >= least) for on, each in agreement.items()]
    checks = [GateCheck(name=name, on=on, measured=got, limit=limit, passed=ok) for name, on, got, limit, ok in found]
    return GateReport(checks=tuple(checks), paired={**choosing, **agreement})


def require_gates(reports: Iterable[tuple[str, GateReport]]) -> None:
    """Refuse forms that fail the gate.

    Raises:
        GateError: names each form and failed check, with its figure and its limit.
    """
    failures = [
        f"{form}: {check.name} {check.measured:.4f}, limit {check.limit:.4f}, on {check.on}"
        for form, report in reports
        for check in report.checks
        if not check.passed
    ]
    if failures:
        raise GateError(
            "INT8 lost more accuracy than the recipe allows, so nothing was written:\n  "
            + "\n  ".join(failures)
            + "\nTry another ptq.activation_range, a larger sample, ptq.float_nodes (fer-edge sensitivity shows what "
            "each layer costs), or train for INT8 (fer-edge qat)"
        )
