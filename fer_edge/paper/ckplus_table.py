"""The rows of CK+ in the paper's tables; where the data were not at hand, they say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, write_json
from fer_edge.core.json import decode, encode
from fer_edge.core.metrics import accuracy_report
from fer_edge.core.tables import Table
from fer_edge.data.ckplus import FOLDS
from fer_edge.paper.published import PaperFigure, published
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.systems import SYSTEMS

__all__ = [
    "CKPLUS_SYSTEMS",
    "NOT_RUN",
    "STARTS",
    "CkPlusReport",
    "CkPlusRow",
    "CkPlusRun",
    "Start",
    "ckplus_not_run",
    "ckplus_report",
    "ckplus_table",
    "read_ckplus",
    "write_ckplus",
]

Start: TypeAlias = Literal["scratch", "fer2013"]
STARTS: Final[tuple[Start, ...]] = ("scratch", "fer2013")
NOT_RUN: Final = "not run: data not at hand"
"""Why there is no figure where nobody gave CK+."""

CKPLUS_SYSTEMS: Final = tuple(name for name, system in SYSTEMS.items() if {1, 2} & set(system.tables))
"""The systems of the paper's Tables 1 and 2, by name."""

_NAMES: Final = ("ckplus.json", "ckplus-official.json")
_UNFINISHED: Final = "not run yet"
_NOT_WHOLE: Final = "not run: CK+48 holds peaks alone"

_SEQUENCES: Final[Mapping[str, tuple[str, str]]] = {
    "complete-peak-mean": ("Proposed (complete)", "last three frames, averaged"),
    "complete-sequence": ("Proposed (complete)", "neutral to peak"),
}
_STILLS: Final = "stills"
_STARTS: Final = {"scratch": "random weights", "fer2013": "FER2013 weights"}


@dataclass(frozen=True, kw_only=True)
class CkPlusRun:
    """One result: a system, or the complete system on sequences, from one start, on one fold."""

    system: str
    start: Start
    fold: int

    @property
    def name(self) -> str:
        """As progress calls it."""
        return f"{self.system} {self.start} fold {self.fold}"


@dataclass(frozen=True, kw_only=True)
class CkPlusRow:
    """One system from one start, over all folds; every figure is None where nothing was run.

    Attributes:
        system: its name in the study.
        title: as the tables print it.
        inputs: what one prediction is made from.
        start: the weights the training began with.
        folds: folds that are finished.
        n: predictions of these folds together; each subject is reported on once.
        top1, macro_precision, macro_recall, macro_f1: over the predictions of all finished folds, as fractions; the
            macro averages run over the expressions that occur.
        fold_top1_std: standard deviation of the top-1 over the folds.
        recalls: by expression.
        missing: why there is no figure; None where there is one.
        paper: the paper's own figures on CK+, whose protocol it does not state.
    """

    system: str
    title: str
    inputs: str
    start: Start
    folds: int = 0
    n: int = 0
    top1: float | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    macro_f1: float | None = None
    fold_top1_std: float | None = None
    recalls: Mapping[str, float] | None = None
    missing: str | None = None
    paper: tuple[PaperFigure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CkPlusReport:
    """CK+ in the study.

    Attributes:
        status: ``"run"``; ``"partly run"``, where a row has fewer folds or none; or why nothing was run.
        folds: by subject.
        labels: what was told apart; None where nothing was run.
        data_sha256: of the stills; None where nothing was run.
        rows: one a system and start.
    """

    status: str
    folds: int
    labels: tuple[str, ...] | None
    data_sha256: str | None
    rows: tuple[CkPlusRow, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(encode(self))


def ckplus_report(
    results: Mapping[CkPlusRun, RunResult], *, folds: int, systems: Sequence[str], whole: bool = True
) -> CkPlusReport:
    """Gather the folds.

    Args:
        results: the finished runs; none where the data are not at hand.
        folds: of the protocol.
        systems: the rows, in order, without the two on sequences, which follow them.
        whole: the data hold whole sequences; CK+48 does not.
    """
    rows = []
    nothing = NOT_RUN if not results else _UNFINISHED
    for name in (*systems, *_SEQUENCES):
        title, inputs = _SEQUENCES.get(name) or (SYSTEMS[name].title, _STILLS)
        for start in STARTS:
            found = [result for run, result in results.items() if (run.system, run.start) == (name, start)]
            known = [each.report for each in found if each.report is not None]
            absent = nothing if whole or name not in _SEQUENCES else _NOT_WHOLE
            figures = _figures(known) if known else {"missing": absent}
            paper = published(name, dataset="ckplus")
            rows.append(
                CkPlusRow(
                    system=name, title=title, inputs=inputs, start=start, folds=len(known), paper=paper, **figures
                )
            )
    first = next(iter(results.values()), None)
    complete = all(row.folds == folds or row.missing == _NOT_WHOLE for row in rows)
    return CkPlusReport(
        status=NOT_RUN if first is None else "run" if complete else "partly run",
        folds=folds,
        labels=None if first is None else first.choose.classes,
        data_sha256=None if first is None else first.settings["ckplus"]["data_sha256"],
        rows=tuple(rows),
    )


def ckplus_table(report: CkPlusReport) -> Table:
    """The report as one table."""
    columns = (
        "system",
        "made from",
        "start",
        "top-1 %",
        "± over folds",
        "precision %",
        "recall %",
        "F1 %",
        "folds",
        "paper, Table 1",
    )
    rows = []
    for row in report.rows:
        figures: list[str | None] = [row.missing, None, None, None, None, None]
        if row.top1 is not None:
            rates = (row.top1, row.fold_top1_std, row.macro_precision, row.macro_recall, row.macro_f1)
            figures = [*(f"{100 * (rate or 0.0):.2f}" for rate in rates), f"{row.folds} of {report.folds}"]
        theirs = next((f"{100 * figure.accuracy:.2f}" for figure in row.paper), None)
        rows.append((row.title, row.inputs, _STARTS[row.start], *figures, theirs))
    told = "" if report.labels is None else f" Labels: {', '.join(report.labels)}."
    caption = (
        f"CK+, {report.folds} folds by subject: one reported on, the next held out, the others trained on; the "
        "predictions of all folds are counted together, and macro averages run over the expressions that occur. "
        f"Stills: the last three frames of every sequence, and its first where neutral is told apart.{told}"
    )
    return Table(columns=columns, rows=rows, caption=caption)


def ckplus_not_run(*, folds: int = FOLDS) -> CkPlusReport:
    """The rows of a study that nobody gave the data to."""
    return ckplus_report({}, folds=folds, systems=CKPLUS_SYSTEMS)


def write_ckplus(report: CkPlusReport, folder: Path) -> None:
    """Keep a report in a study's folder, one for each set of labels, where `read_ckplus` finds it.

    Raises:
        OutputError: it cannot be written.
    """
    assert report.labels is not None  # nothing is kept of what was not run
    write_json(folder / _NAMES["contempt" in report.labels], report.to_json())


def read_ckplus(folder: Path) -> tuple[CkPlusReport, ...]:
    """What a study's folder holds on CK+; nothing where it was not run.

    Raises:
        InputError: a damaged file, named.
    """
    found = []
    for path in (folder / name for name in _NAMES):
        if path.exists():
            try:
                found.append(decode(CkPlusReport, read_json(path)))
            except InputError as error:
                raise InputError(f"{path}: {error}; remove it, and the study writes it again") from error
    return tuple(found)


def _figures(folds: Sequence[SplitPredictions]) -> dict[str, Any]:
    probabilities = np.concatenate([each.probabilities for each in folds])
    labels = np.concatenate([each.labels for each in folds])
    pooled = accuracy_report(probabilities, labels, dataset=folds[0].dataset, split="test", classes=folds[0].classes)
    return {
        "n": pooled.n,
        "top1": pooled.top1,
        "macro_precision": pooled.macro_precision,
        "macro_recall": pooled.macro_recall,
        "macro_f1": pooled.macro_f1,
        "fold_top1_std": float(np.std([each.right.mean() for each in folds])),
        "recalls": pooled.per_class,
    }
