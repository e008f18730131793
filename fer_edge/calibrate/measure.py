"""Logits of a bundle's variants on the rows of the gate, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_edge.calibrate.gate import GateReport, check_gate
from fer_edge.calibrate.recipe import GateLimits
from fer_edge.calibrate.sample import RowSample
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.metrics import AccuracyReport, PairedReport, accuracy_report, fit_temperature, paired_report, softmax
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data.report import leaked_rows
from fer_edge.data.stills import Dataset, StillSet
from fer_edge.runtime.evaluate import evaluate_windows
from fer_edge.runtime.inference import Network

__all__ = ["GateRows", "LogitDifference", "VariantLogits", "compare", "logit_difference", "run_variant"]

Logits = Float32


@dataclass(frozen=True, kw_only=True, eq=False)
class GateRows:
    """The rows that the gate looks at.

    Attributes:
        dataset: the data set's name.
        choose: the choosing split's name.
        images: uint8 (N, H, W) of that split.
        labels: int64 (N,).
        leaked: bool (N,), True where the pixels also stand in the training split.
        outside: training rows outside the calibration sample.
    """

    dataset: str
    choose: str
    images: Uint8
    labels: Int64
    leaked: NDArray[np.bool_]
    outside: RowSample

    @property
    def kept(self) -> StillSet:
        """The choosing split without leaked rows; `rows` are positions in it."""
        index = np.flatnonzero(~self.leaked).astype(np.int64)
        return StillSet(name=self.choose, images=self.images[index], labels=self.labels[index], rows=index)

    @classmethod
    def of(cls, dataset: Dataset, outside: RowSample) -> GateRows:
        """The choosing split of `dataset` beside `outside`.

        Raises:
            InputError: there is no such split, or every row of it is leaked.
        """
        split = dataset.split("choose")
        leaked = leaked_rows(dataset, split)
        if leaked.all():
            raise InputError(
                f"{dataset.source}: {int(leaked.sum()):,} of the {len(split):,} rows of {split.name} also stand in the "
                "training split, so none is left to choose on"
            )
        return cls(
            dataset=dataset.name,
            choose=split.name,
            images=split.images,
            labels=split.labels,
            leaked=leaked,
            outside=outside,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantLogits:
    """One variant on the gate's rows, before temperature.

    Attributes:
        by_window: window T -> float32 (N, C) on the choosing split, each still repeated T times.
        outside: float32 (M, C) at T = 1 on the training rows outside the sample.
        temperature: fitted at T = 1 on the choosing split without leaked rows.
        accuracy: on the choosing split at T = 1, with that temperature.
    """

    by_window: Mapping[int, Logits]
    outside: Logits
    temperature: float
    accuracy: AccuracyReport

    @property
    def every_logit(self) -> Logits:
        """All logits in a row, float32 (R, C)."""
        return np.concatenate([*self.by_window.values(), self.outside])


@dataclass(frozen=True, kw_only=True)
class LogitDifference:
    """How far two variants' logits lie apart, before temperature.

    Attributes:
        against: the variant compared with.
        max_abs_logit_diff: largest absolute difference.
        mean_abs_logit_diff: mean absolute difference.
        rows: rows of logits compared.
    """

    against: str
    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    rows: int


def run_variant(
    bundle: Bundle,
    variant: str,
    rows: GateRows,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> VariantLogits:
    """Run a variant on the gate's rows, in ONNX Runtime on the CPU.

    A single still never feeds an LSTM its own output back, so the choosing split is run at the full window as well.

    Raises:
        InputError: images that the bundle's preprocessing refuses.
        SessionError: the engine refuses a graph or failed.
    """
    spec = bundle.manifest.preprocess

    def outputs(images: Uint8, windows: list[int], what: str) -> Mapping[int, Logits]:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(f"{variant} on {what}", done, total)

        return evaluate_windows(network, images, spec, windows=windows, progress=report).by_window

    with Network.open(bundle, variant=variant, provider="cpu", threads=threads) as network:
        by_window = outputs(rows.images, sorted({1, network.window}), rows.choose)
        outside = outputs(rows.outside.stills.images, [1], f"{rows.outside.stills.name} outside the sample")[1]
    temperature = fit_temperature(by_window[1][~rows.leaked], rows.labels[~rows.leaked])
    return VariantLogits(
        by_window=by_window,
        outside=outside,
        temperature=temperature,
        accuracy=accuracy_report(
            softmax(by_window[1], temperature=temperature),
            rows.labels,
            dataset=rows.dataset,
            split=rows.choose,
            leaked=rows.leaked,
            classes=bundle.manifest.labels,
        ),
    )


def compare(reference: VariantLogits, other: VariantLogits, rows: GateRows, limits: GateLimits) -> GateReport:
    """Hold one form against its parent."""
    kept = ~rows.leaked

    def paired(first: Logits, second: Logits, labels: Int64) -> PairedReport:
        return paired_report(
            softmax(first, temperature=reference.temperature), softmax(second, temperature=other.temperature), labels
        )

    choosing = {
        f"{_where(rows.choose, window)}, without leaked rows": paired(
            logits[kept], other.by_window[window][kept], rows.labels[kept]
        )
        for window, logits in reference.by_window.items()
    }
    train = rows.outside.stills
    outside = {
        f"{len(train):,} rows of {train.name} outside the sample, T = 1": paired(
            reference.outside, other.outside, train.labels
        )
    }
    return check_gate(choosing, outside, limits)


def logit_difference(reference: VariantLogits, other: VariantLogits, *, against: str) -> LogitDifference:
    """How far all logits of the gate's rows lie apart; `against` is the reference's name."""
    difference = np.abs(reference.every_logit.astype(np.float64) - other.every_logit)
    return LogitDifference(
        against=against,
        max_abs_logit_diff=float(difference.max()),
        mean_abs_logit_diff=float(difference.mean()),
        rows=len(difference),
    )


def _where(split: str, window: int) -> str:
    return f"{split}, T = {window}"
