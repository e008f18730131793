"""The study's report: `study.json`, from which tables, plots and page are drawn.

Rates are fractions; a difference is the system minus its reference; a spread is over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from fer_edge.core.bootstrap import BootstrapReport
from fer_edge.core.json import expect
from fer_edge.core.json_report import JsonReport
from fer_edge.paper.preprocessing_study import PreprocessingReport
from fer_edge.paper.statistics import Spread
from fer_edge.paper.systems import PaperFigure

__all__ = [
    "CkPlusReport",
    "CkPlusRow",
    "NotRun",
    "PairSummary",
    "Protocol",
    "RankSummary",
    "SplitSummary",
    "Start",
    "StudyReport",
    "SystemSummary",
]

Start: TypeAlias = Literal["scratch", "fer2013"]
"""Initial weights of a training on CK+."""

_STUDY_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One system on one split.

    Attributes:
        n_without_leaked: rows whose pixels are not in the training split; `top1_without_leaked` is on them.
        macro_precision, macro_recall, macro_f1: means over the expressions.
        ece: expected calibration error.
        per_expression: recall of each expression.
        confusion: counts summed over the seeds; the row is the label, the column the prediction.
    """

    dataset: str
    split: str
    n: int
    n_without_leaked: int
    top1: Spread
    top1_without_leaked: Spread
    macro_precision: Spread
    macro_recall: Spread
    macro_f1: Spread
    ece: Spread
    per_expression: Mapping[str, Spread]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SystemSummary:
    """One row: a system trained with some seeds.

    Attributes:
        group: its part of the study; `tables` are the paper's tables that contain it.
        seeds: that are finished, of `planned_seeds`.
        parameters: of the layers that predict; the mean over seeds where it depends on them (support vectors).
        macs: multiply-accumulates for one face; None where unknown.
        choose: on the split for choosing.
        report: on the split for reporting; None where there is none.
    """

    name: str
    title: str
    group: str
    tables: tuple[int, ...]
    seeds: tuple[int, ...]
    planned_seeds: tuple[int, ...]
    epochs: int
    parameters: int
    macs: int | None
    seconds: Spread
    choose: SplitSummary
    report: SplitSummary | None
    paper: tuple[PaperFigure, ...]

    @property
    def best_split(self) -> SplitSummary:
        """The split to print: the one for reporting, or else the other."""
        return self.report or self.choose


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """A row without a finished training: why, and the figures that the paper gives."""

    name: str
    title: str
    group: str
    tables: tuple[int, ...]
    why: str
    paper: tuple[PaperFigure, ...]


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """Two systems on the same images of one split, by the seeds that both have, averaged image by image.

    Attributes:
        family: the pairs that Holm's correction covers.
        report: difference of top-1, `system` minus `against`, with interval and p by resampling images.
        p_holm: corrected over the family.
    """

    family: str
    system: str
    against: str
    split: str
    seeds: tuple[int, ...]
    report: BootstrapReport
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class RankSummary:
    """Friedman's test over methods x stratified parts of one split, and Nemenyi's critical difference.

    Attributes:
        parts: blocks of the test.
        seeds: averaged, the same for every method; empty where no seed is common, and each method has its own.
        systems: the methods, best first; `mean_ranks` in that order, 1 is best.
        statistic: Friedman's chi-squared, corrected for ties, with its `p`.
        critical_difference: methods whose mean ranks are further apart differ at level `alpha`.
    """

    split: str
    parts: int
    seeds: tuple[int, ...]
    systems: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    statistic: float
    p: float
    alpha: float
    critical_difference: float


@dataclass(frozen=True, kw_only=True)
class CkPlusRow:
    """One system from one start on CK+, over all folds; every figure is None where nothing was run.

    Attributes:
        inputs: what one prediction is made from.
        folds: that are finished; `n` predictions together, each subject is reported on once.
        top1, macro_precision, macro_recall, macro_f1: over these predictions; `recalls` by expression.
        fold_top1_std: standard deviation of the top-1 over the folds.
        missing: why there is no figure; None where there is one.
        paper: the figures that the paper gives for CK+, whose protocol it does not state.
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
    """CK+ in the study, one row per system and start.

    Attributes:
        status: ``"run"``, ``"partly run"``, or why nothing was run.
        folds: by subject.
        labels, data_sha256: classes and hash of the stills; None where nothing was run.
    """

    status: str
    folds: int
    labels: tuple[str, ...] | None
    data_sha256: str | None
    rows: tuple[CkPlusRow, ...]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all rows share.

    Attributes:
        recipe: the study's recipe, as JSON; `recipe_name` is a shipped recipe's name or a path.
        epochs, input_size: of every system, except where a row says otherwise; pixels.
        seeds, extra_seeds: of the systems of Tables 1 to 3, and of the others.
        choose, report: names of the splits; None where there is none for reporting.
        data: source, layout, hash, and each split's rows and hash.
    """

    recipe: Mapping[str, Any]
    recipe_name: str
    epochs: int
    input_size: int
    seeds: tuple[int, ...]
    extra_seeds: tuple[int, ...]
    choose: str
    report: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudyReport(JsonReport):
    """A whole study, finished or not.

    Attributes:
        created: ISO 8601 time.
        systems: rows with a finished training, in the order of the tables.
        not_run: rows without one.
        ckplus: one report for each set of labels.
        pairs: comparisons by paired bootstrap.
        ranks: rank test over the systems of Tables 1 to 3; None for fewer than three.
        preprocessing: None where it was not measured.
    """

    schema: int = _STUDY_SCHEMA
    created: str
    command: str | None
    device: Mapping[str, Any]
    protocol: Protocol
    systems: tuple[SystemSummary, ...]
    not_run: tuple[NotRun, ...]
    ckplus: tuple[CkPlusReport, ...]
    pairs: tuple[PairSummary, ...]
    ranks: RankSummary | None
    preprocessing: PreprocessingReport | None = None

    def __post_init__(self) -> None:
        expect(self.schema == _STUDY_SCHEMA, "schema", self.schema, str(_STUDY_SCHEMA))
