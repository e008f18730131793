"""From finished trainings to the study's report: spreads over seeds, paired comparisons, ranks; `study.json`.

Rates are fractions; a difference is the system minus its reference; a spread is over the seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.bootstrap import BootstrapReport, paired_bootstrap
from fer_edge.core.errors import InputError
from fer_edge.core.json import expect
from fer_edge.core.json_report import JsonReport
from fer_edge.core.metrics import accuracy_report, confusion_matrix
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.statistics import PARTS, Spread, friedman_over_parts, holm, nemenyi_critical_difference
from fer_edge.paper.systems import COMPLETE, SYSTEMS, System

__all__ = ["PairSummary", "Protocol", "RankSummary", "SplitSummary", "StudyReport", "SystemSummary", "summarise_study"]

_ALPHA: Final = 0.05
"""Level of the critical difference; intervals cover the rest."""

_SCHEMA: Final = 2
"""Reports of schema 1 also held CK+ and the preprocessing under noise."""

_RATES: Final = ("top1", "top1_without_leaked", "macro_precision", "macro_recall", "macro_f1", "ece")

_Runs: TypeAlias = Mapping[str, Mapping[int, RunResult]]


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
        seeds: that are finished, of `planned_seeds`.
        parameters: of the layers that predict; the mean over seeds where it depends on them (support vectors).
        macs: multiply-accumulates for one face; None where unknown.
        choose: on the split for choosing.
        report: on the split for reporting; None where there is none.
    """

    name: str
    seeds: tuple[int, ...]
    planned_seeds: tuple[int, ...]
    epochs: int
    parameters: int
    macs: int | None
    seconds: Spread
    choose: SplitSummary
    report: SplitSummary | None

    @property
    def best_split(self) -> SplitSummary:
        """The split to print: the one for reporting, or else the other."""
        return self.report or self.choose


@dataclass(frozen=True, kw_only=True)
class PairSummary:
    """A system against the complete one on the same images of one split, averaged over the seeds that both have.

    Attributes:
        group: the pairs that Holm's correction covers.
        report: difference of top-1, `system` minus the complete one, with interval and p by resampling images.
        p_holm: corrected over the group.
    """

    group: str
    system: str
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
        systems: those with a finished training, in the order of the tables.
        pairs: comparisons with the complete system by paired bootstrap.
        ranks: rank test over the systems of Tables 1 to 3; None for fewer than three.
    """

    schema: int = _SCHEMA
    created: str
    command: str | None
    device: Mapping[str, Any]
    protocol: Protocol
    systems: tuple[SystemSummary, ...]
    pairs: tuple[PairSummary, ...]
    ranks: RankSummary | None

    def __post_init__(self) -> None:
        expect(self.schema == _SCHEMA, "schema", self.schema, str(_SCHEMA))


def summarise_study(
    runs: Iterable[RunResult],
    *,
    protocol: Protocol,
    device: Mapping[str, Any],
    created: str,
    command: str | None = None,
) -> StudyReport:
    """Summarise the finished trainings, of any systems and seeds and in any order.

    Systems are compared on all rows of the split for reporting (of the split for choosing where a run has no other), by
    the seeds that both have.

    Args:
        device: the machine, as `machine_report` gives it.
        created: ISO 8601 time.

    Raises:
        InputError: two runs of one system and seed, a run of an unknown system, or runs on different rows.
    """
    found = _by_system(runs)
    _check_rows(found)
    return StudyReport(
        created=created,
        command=command,
        device=device,
        protocol=protocol,
        systems=tuple(_summary(system, found[name], protocol) for name, system in SYSTEMS.items() if name in found),
        pairs=tuple(
            pair
            for group in dict.fromkeys(system.group for system in SYSTEMS.values())
            for pair in _pairs(group, found)
        ),
        ranks=_ranks(found, [name for name, system in SYSTEMS.items() if name in found and system.group == "tables"]),
    )


def _by_system(runs: Iterable[RunResult]) -> dict[str, dict[int, RunResult]]:
    found: dict[str, dict[int, RunResult]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        if run.system not in SYSTEMS:
            raise InputError(f"system: got a run of {run.system!r}, expected one of {', '.join(SYSTEMS)}")
        if run.seed in found.setdefault(run.system, {}):
            raise InputError(f"runs: got two of {run.system} with seed {run.seed}, expected one; remove the other")
        found[run.system][run.seed] = run
    return found


def _check_rows(found: _Runs) -> None:
    runs = [run for seeds in found.values() for run in seeds.values()]
    for run in runs[1:]:
        one, other = run.reported, runs[0].reported
        if one.split != other.split or not np.array_equal(one.labels, other.labels):
            raise InputError(
                f"rows: got {one.split} ({one.labels.size:,}) of {run.system} seed {run.seed}, expected those of "
                f"{runs[0].system} seed {runs[0].seed}, {other.split} ({other.labels.size:,}); train it again"
            )


def _summary(system: System, runs: Mapping[int, RunResult], protocol: Protocol) -> SystemSummary:
    held = list(runs.values())
    reports = [run.report for run in held if run.report is not None]
    return SystemSummary(
        name=system.name,
        seeds=tuple(runs),
        planned_seeds=protocol.seeds if system.group == "tables" else protocol.extra_seeds,
        epochs=held[0].epochs,
        parameters=round(statistics.fmean(run.parameters for run in held)),
        macs=held[0].macs,
        seconds=Spread.of([run.seconds for run in held]),
        choose=_split_summary([run.choose for run in held]),
        report=_split_summary(reports) if len(reports) == len(held) else None,
    )


def _split_summary(seeds: Sequence[SplitPredictions]) -> SplitSummary:
    first = seeds[0]
    reports = [
        accuracy_report(
            each.probabilities,
            each.labels,
            dataset=each.dataset,
            split=each.split,
            leaked=each.leaked,
            classes=each.classes,
        )
        for each in seeds
    ]
    confusion = sum(confusion_matrix(each.predicted, each.labels, classes=len(each.classes)) for each in seeds)
    return SplitSummary(
        dataset=first.dataset,
        split=first.split,
        n=reports[0].n,
        n_without_leaked=int(np.count_nonzero(~first.leaked)),
        per_expression={
            label: Spread.of([report.per_class[label] for report in reports]) for label in reports[0].per_class
        },
        confusion=tuple(tuple(int(count) for count in row) for row in np.asarray(confusion)),
        **{name: Spread.of([getattr(report, name) for report in reports]) for name in _RATES},
    )


def _pairs(group: str, found: _Runs) -> list[PairSummary]:
    """Compare every system of a group with the complete one, by the seeds that both have."""
    pairs = []
    for name, system in SYSTEMS.items():
        seeds = tuple(seed for seed in found.get(COMPLETE, {}) if seed in found.get(name, {}))
        if system.group == group and name != COMPLETE and seeds:
            report = paired_bootstrap(_right(found[COMPLETE], seeds), _right(found[name], seeds), level=1 - _ALPHA)
            split = found[name][seeds[0]].reported.split
            pairs.append(
                PairSummary(group=group, system=name, split=split, seeds=seeds, report=report, p_holm=report.p)
            )
    corrected = holm([pair.report.p for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def _right(runs: Mapping[int, RunResult], seeds: Iterable[int]) -> NDArray[np.bool_]:
    """Return bool (seeds, N)."""
    return np.stack([runs[seed].reported.right for seed in seeds])


def _ranks(found: _Runs, methods: Sequence[str]) -> RankSummary | None:
    if len(methods) < 3:
        return None
    split = next(iter(found[methods[0]].values())).reported
    # An average over more seeds has a better rank, so every method counts with the same seeds where possible.
    common = [seed for seed in found[methods[0]] if all(seed in found[name] for name in methods)]
    test = friedman_over_parts({name: _right(found[name], common or found[name]) for name in methods}, split.labels)
    order = sorted(range(len(methods)), key=lambda index: test.mean_ranks[index])
    return RankSummary(
        split=split.split,
        parts=PARTS,
        seeds=tuple(common),
        systems=tuple(methods[index] for index in order),
        mean_ranks=tuple(test.mean_ranks[index] for index in order),
        statistic=test.statistic,
        p=test.p,
        alpha=_ALPHA,
        critical_difference=nemenyi_critical_difference(len(methods), PARTS, alpha=_ALPHA),
    )
