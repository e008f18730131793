"""What the paper study says as a whole: the JSON that its tables and drawings are made from.

Rates are fractions; a difference is the system minus what it is compared with; a spread runs over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fer_edge.core.comparison import BootstrapReport, Spread
from fer_edge.core.json import expect
from fer_edge.core.json_report import JsonReport
from fer_edge.paper.ckplus_table import CkPlusReport
from fer_edge.paper.preprocessing_study import PreprocessingReport
from fer_edge.paper.published import PaperFigure

__all__ = [
    "STUDY_SCHEMA",
    "NotRun",
    "PairSummary",
    "Protocol",
    "RankSummary",
    "SplitSummary",
    "StudyReport",
    "SystemSummary",
]

STUDY_SCHEMA: Final = 1
"""The one schema of a study's JSON that this version writes and reads."""


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One system on one split.

    Attributes:
        dataset: the data set's name.
        split: the split's name.
        n: rows.
        n_without_leaked: rows whose pixels do not stand in the training split too.
        top1: accuracy on all rows.
        top1_without_leaked: accuracy on the rest.
        macro_precision: mean over expressions.
        macro_recall: mean over expressions.
        macro_f1: mean over expressions.
        ece: expected calibration error.
        per_expression: recognition rate (recall) of each expression.
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
        name: of the system.
        title: as a table prints it.
        group: the part of the study it belongs to.
        tables: the paper's tables that hold it.
        seeds: trained and counted here.
        planned_seeds: that the study asks for.
        epochs: each was trained for.
        parameters: of what predicts; the mean over seeds where it depends on them (support vectors).
        macs: multiply-accumulates for one face; None where they were not counted.
        seconds: of one training.
        choose: on the split that everything is chosen on.
        report: on the split for reporting only; None where it was not looked at.
        paper: the paper's own figures for it.
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
    """A row that the study asks for and that has not one finished training: why, and what the paper says."""

    name: str
    title: str
    group: str
    tables: tuple[int, ...]
    why: str
    paper: tuple[PaperFigure, ...]


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """Two systems on the same images of one split, by the seeds that both have.

    Attributes:
        family: the pairs that Holm's correction runs over.
        system: the one in question.
        against: what it is compared with.
        split: whose images.
        seeds: averaged, image by image.
        report: the difference of top-1, system minus against, with its interval and p by resampling images.
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
    """Friedman's test over methods x stratified parts of one split, seeds averaged, and Nemenyi's difference.

    Attributes:
        split: whose images.
        parts: blocks of the test.
        seeds: averaged, the same for every method; empty where no seed is common to all, and each counts with its own.
        systems: the methods, best first.
        mean_ranks: in that order, 1 is best.
        statistic: Friedman's chi-squared, corrected for ties.
        p: of the statistic.
        alpha: level of the critical difference.
        critical_difference: mean ranks further apart differ.
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
class Protocol:
    """What all rows share.

    Attributes:
        recipe: the study's whole recipe, as JSON.
        recipe_name: where it came from: a shipped recipe's name or a file's.
        epochs: of every system, but where a row says otherwise.
        input_size: side of the face, pixels.
        seeds: of the systems of Tables 1 to 3.
        extra_seeds: of the rest.
        choose: name of the split that things are chosen on.
        report: name of the split for reporting; None where there is none.
        data: what was read: source, layout, hash, and each split's rows and hash.
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
        command: what was run; None where the library was called.
        device: machine, packages and load at the start.
        protocol: what all rows share.
        systems: rows with at least one finished training, in the order of the tables.
        not_run: rows without.
        ckplus: the rows on CK+, for each set of labels; where nobody had the data, one that says so.
        pairs: comparisons by paired bootstrap.
        ranks: the rank test over the systems of Tables 1 to 3; None while fewer than two of them are there.
        preprocessing: median filter and normalisation under noise and poor light; None where it was not measured.
    """

    schema: int = STUDY_SCHEMA
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
        expect(self.schema == STUDY_SCHEMA, "schema", self.schema, str(STUDY_SCHEMA))
