"""From finished trainings to the study's report: spreads over seeds, paired comparisons, ranks, folds of CK+."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.bootstrap import paired_bootstrap
from fer_edge.core.errors import InputError
from fer_edge.core.metrics import accuracy_report, confusion_matrix
from fer_edge.data.ckplus import FOLDS
from fer_edge.paper.preprocessing_study import PreprocessingReport
from fer_edge.paper.report import (
    CkPlusReport,
    CkPlusRow,
    NotRun,
    PairSummary,
    Protocol,
    RankSummary,
    SplitSummary,
    Start,
    StudyReport,
    SystemSummary,
)
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.statistics import PARTS, Spread, friedman_over_parts, holm, nemenyi_critical_difference
from fer_edge.paper.systems import COMPLETE, PEAK_MEAN, SEQUENCE, SYSTEMS, System, published

__all__ = ["ALPHA", "CKPLUS_SYSTEMS", "NOT_RUN", "STARTS", "ckplus_report", "summarise_study"]

ALPHA: Final = 0.05
"""Level of the critical difference; intervals cover 1 - ALPHA."""

STARTS: Final[tuple[Start, ...]] = ("scratch", "fer2013")

CKPLUS_SYSTEMS: Final = tuple(name for name, system in SYSTEMS.items() if {1, 2} & set(system.tables))
"""The systems of the paper's Tables 1 and 2, by name."""

NOT_RUN: Final = "not run: data not at hand"
"""Reason for rows of CK+ where the study was given no such data."""

_UNFINISHED: Final = "not run yet"
_NO_SEQUENCES: Final = "not run: CK+48 holds peaks alone"
_FAMILIES: Final = ("tables", "beyond", "lstm", "size")  # Holm's correction covers one part of the study at a time
_ON_SEQUENCES: Final = {PEAK_MEAN: "last three frames, averaged", SEQUENCE: "neutral to peak"}

_Runs: TypeAlias = Mapping[str, Mapping[int, RunResult]]


def summarise_study(
    runs: Iterable[RunResult],
    *,
    protocol: Protocol,
    device: Mapping[str, Any],
    created: str,
    command: str | None = None,
    preprocessing: PreprocessingReport | None = None,
    ckplus: Sequence[CkPlusReport] = (),
) -> StudyReport:
    """Summarise the finished trainings, of any systems and seeds and in any order.

    Systems are compared on all rows of the split for reporting (of the split for choosing where a run has no other), by
    the seeds that both have.

    Args:
        device: the machine, as `machine_report` gives it.
        created: ISO 8601 time.
        preprocessing: as measured on the trained networks.
        ckplus: reports on CK+; empty where the data were not given.

    Raises:
        InputError: two runs of one system and seed, a run of an unknown system, or runs on different rows.
    """
    found = _by_system(runs)
    _check_rows(found)
    tables = [system for system in SYSTEMS.values() if system.name in found and system.group == "tables"]
    return StudyReport(
        created=created,
        command=command,
        device=device,
        protocol=protocol,
        systems=tuple(_summary(system, found[name], protocol) for name, system in SYSTEMS.items() if name in found),
        not_run=tuple(
            NotRun(
                name=name,
                title=system.title,
                group=system.group,
                tables=system.tables,
                why=_UNFINISHED,
                paper=published(name),
            )
            for name, system in SYSTEMS.items()
            if name not in found
        ),
        ckplus=tuple(ckplus) or (ckplus_report({}, folds=FOLDS, systems=CKPLUS_SYSTEMS),),
        pairs=tuple(pair for family in _FAMILIES for pair in _pairs(family, found)),
        ranks=_ranks(found, [system.name for system in tables]),
        preprocessing=preprocessing,
    )


def ckplus_report(
    results: Mapping[tuple[str, Start, int], RunResult], *, folds: int, systems: Sequence[str], whole: bool = True
) -> CkPlusReport:
    """Pool the folds of CK+.

    Args:
        results: finished runs by (system, start, fold).
        folds: of the protocol.
        systems: the rows, in order; the two on sequences follow them.
        whole: the data hold whole sequences; CK+48 does not.
    """
    rows = []
    for name in (*systems, *_ON_SEQUENCES):
        for start in STARTS:
            known = [
                each.report for key, each in results.items() if key[:2] == (name, start) and each.report is not None
            ]
            absent = NOT_RUN if not results else _UNFINISHED
            if not whole and name in _ON_SEQUENCES:
                absent = _NO_SEQUENCES
            rows.append(
                CkPlusRow(
                    system=name,
                    title=SYSTEMS[COMPLETE if name in _ON_SEQUENCES else name].title,
                    inputs=_ON_SEQUENCES.get(name, "stills"),
                    start=start,
                    folds=len(known),
                    paper=published(name, dataset="ckplus"),
                    **(_pooled(known) if known else {"missing": absent}),
                )
            )
    first = next(iter(results.values()), None)
    complete = all(row.folds == folds or row.missing == _NO_SEQUENCES for row in rows)
    return CkPlusReport(
        status=NOT_RUN if first is None else "run" if complete else "partly run",
        folds=folds,
        labels=None if first is None else first.choose.classes,
        data_sha256=None if first is None else first.settings["ckplus"]["data_sha256"],
        rows=tuple(rows),
    )


def _pooled(folds: Sequence[SplitPredictions]) -> dict[str, Any]:
    probabilities = np.concatenate([each.probabilities for each in folds])
    labels = np.concatenate([each.labels for each in folds])
    pooled = accuracy_report(probabilities, labels, dataset=folds[0].dataset, split="test", classes=folds[0].classes)
    names = ("n", "top1", "macro_precision", "macro_recall", "macro_f1")
    return {
        **{name: getattr(pooled, name) for name in names},
        "fold_top1_std": float(np.std([each.right.mean() for each in folds])),
        "recalls": pooled.per_class,
    }


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
        title=system.title,
        group=system.group,
        tables=system.tables,
        seeds=tuple(runs),
        planned_seeds=protocol.seeds if system.group == "tables" else protocol.extra_seeds,
        epochs=held[0].epochs,
        parameters=round(statistics.fmean(run.parameters for run in held)),
        macs=held[0].macs,
        seconds=Spread.of([run.seconds for run in held]),
        choose=_split_summary([run.choose for run in held]),
        report=_split_summary(reports) if len(reports) == len(held) else None,
        paper=published(system.name),
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
    rates = ("top1", "top1_without_leaked", "macro_precision", "macro_recall", "macro_f1", "ece")
    return SplitSummary(
        dataset=first.dataset,
        split=first.split,
        n=reports[0].n,
        n_without_leaked=int(np.count_nonzero(~first.leaked)),
        per_expression={
            label: Spread.of([report.per_class[label] for report in reports]) for label in reports[0].per_class
        },
        confusion=tuple(tuple(int(count) for count in row) for row in np.asarray(confusion)),
        **{name: Spread.of([getattr(report, name) for report in reports]) for name in rates},
    )


def _pairs(family: str, found: _Runs) -> list[PairSummary]:
    """Compare every system of a family with the complete one, by the seeds that both have."""
    pairs = []
    for name, system in SYSTEMS.items():
        seeds = tuple(seed for seed in found.get(COMPLETE, {}) if seed in found.get(name, {}))
        if system.group == family and name != COMPLETE and seeds:
            report = paired_bootstrap(_right(found[COMPLETE], seeds), _right(found[name], seeds), level=1 - ALPHA)
            split = found[name][seeds[0]].reported.split
            pairs.append(
                PairSummary(
                    family=family,
                    system=name,
                    against=COMPLETE,
                    split=split,
                    seeds=seeds,
                    report=report,
                    p_holm=report.p,
                )
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
        alpha=ALPHA,
        critical_difference=nemenyi_critical_difference(len(methods), PARTS, alpha=ALPHA),
    )
