"""From finished trainings to the study's report: spreads over seeds, paired comparisons, ranks."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.comparison import (
    PARTS,
    Spread,
    compare_pairs,
    friedman_over_parts,
    nemenyi_critical_difference,
)
from fer_edge.core.errors import InputError
from fer_edge.core.metrics import AccuracyReport, accuracy_report, confusion_matrix
from fer_edge.paper.ckplus_table import CkPlusReport, ckplus_not_run
from fer_edge.paper.preprocessing_study import PreprocessingReport
from fer_edge.paper.published import published
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.summary import (
    NotRun,
    PairSummary,
    Protocol,
    RankSummary,
    SplitSummary,
    StudyReport,
    SystemSummary,
)
from fer_edge.paper.systems import SYSTEMS, System

__all__ = ["ALPHA", "COMPLETE", "FAMILIES", "summarise_study"]

ALPHA: Final = 0.05
"""Level of the critical difference; intervals hold 1 - ALPHA."""

COMPLETE: Final = "complete"
"""The system that all others are compared with."""

FAMILIES: Final[Mapping[str, str]] = {
    "tables": "Tables 1 to 3",
    "beyond": "beyond the paper",
    "lstm": "LSTM parameters",
    "size": "the paper's input size",
}
"""Pairs of one part of the study are corrected together."""

_NOT_YET: Final = "not run yet"


def summarise_study(
    runs: Iterable[RunResult],
    *,
    protocol: Protocol,
    device: Mapping[str, Any],
    created: str,
    command: str | None = None,
    systems: Sequence[System] = tuple(SYSTEMS.values()),
    why_not: Mapping[str, str] | None = None,
    preprocessing: PreprocessingReport | None = None,
    ckplus: Sequence[CkPlusReport] = (),
) -> StudyReport:
    """Sum up what there is, however much that is.

    Systems are compared on the split for reporting, all rows, by the seeds that both have; on the split for choosing
    where a run has no other.

    Args:
        runs: finished trainings, of any system and seed, in any order.
        protocol: what they share.
        device: the machine, as `machine_report` gives it.
        created: ISO 8601 time.
        command: what was run.
        systems: the rows that the study asks for.
        why_not: by system, why it has no training yet; ``"not run yet"`` by default.
        preprocessing: as measured on the finished networks.
        ckplus: what was run on CK+; none says that it was not at hand.

    Raises:
        InputError: two runs of one system and seed, a run of an unknown system, or runs on different rows.
    """
    found = _by_system(runs, systems)
    _check_rows(found)
    present = [system for system in systems if system.name in found]
    absent = [system for system in systems if system.name not in found]
    return StudyReport(
        created=created,
        command=command,
        device=device,
        protocol=protocol,
        systems=tuple(_summary(system, found[system.name], protocol) for system in present),
        not_run=tuple(_not_run(system, why_not or {}) for system in absent),
        ckplus=tuple(ckplus) or (ckplus_not_run(),),
        pairs=_pairs(found, present),
        ranks=_ranks(found, [system for system in present if system.group == "tables"]),
        preprocessing=preprocessing,
    )


_Runs = Mapping[str, Mapping[int, RunResult]]


def _by_system(runs: Iterable[RunResult], systems: Sequence[System]) -> dict[str, dict[int, RunResult]]:
    known = {system.name for system in systems}
    found: dict[str, dict[int, RunResult]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        if run.system not in known:
            raise InputError(f"a run of the system {run.system!r}, expected one of {', '.join(sorted(known))}")
        if run.seed in found.setdefault(run.system, {}):
            raise InputError(f"two runs of {run.system} with seed {run.seed}; keep one")
        found[run.system][run.seed] = run
    return found


def _reported(run: RunResult) -> SplitPredictions:
    return run.report or run.choose


def _check_rows(found: _Runs) -> None:
    splits = [(run, _reported(run)) for runs in found.values() for run in runs.values()]
    for run, split in splits[1:]:
        first_run, first = splits[0]
        if split.split != first.split or not np.array_equal(split.labels, first.labels):
            raise InputError(
                f"{run.system} (seed {run.seed}) was evaluated on {split.split} ({split.labels.size:,} rows), "
                f"{first_run.system} (seed {first_run.seed}) on {first.split} ({first.labels.size:,} rows): "
                "systems are compared on the same images only; train the odd one again"
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
        choose=_split([run.choose for run in held]),
        report=_split(reports) if len(reports) == len(held) else None,
        paper=published(system.name),
    )


def _split(seeds: Sequence[SplitPredictions]) -> SplitSummary:
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

    def spread(name: str) -> Spread:
        return Spread.of([getattr(report, name) for report in reports])

    return SplitSummary(
        dataset=first.dataset,
        split=first.split,
        n=reports[0].n,
        n_without_leaked=int(np.count_nonzero(~first.leaked)),
        top1=spread("top1"),
        top1_without_leaked=spread("top1_without_leaked"),
        macro_precision=spread("macro_precision"),
        macro_recall=spread("macro_recall"),
        macro_f1=spread("macro_f1"),
        ece=spread("ece"),
        per_expression=_per_expression(reports),
        confusion=tuple(tuple(int(count) for count in row) for row in np.asarray(confusion)),
    )


def _per_expression(reports: Sequence[AccuracyReport]) -> dict[str, Spread]:
    return {label: Spread.of([report.per_class[label] for report in reports]) for label in reports[0].per_class}


def _pairs(found: _Runs, present: Sequence[System]) -> tuple[PairSummary, ...]:
    """Every system against the complete one, family by family."""
    pairs: list[PairSummary] = []
    for family in FAMILIES:
        by_seeds: dict[str, tuple[int, ...]] = {}
        for system in present:
            if system.group == family and system.name != COMPLETE:
                seeds = tuple(seed for seed in found.get(COMPLETE, {}) if seed in found[system.name])
                if seeds:
                    by_seeds[system.name] = seeds
        if by_seeds:
            pairs += _family(family, by_seeds, found)
    return tuple(pairs)


def _family(family: str, by_seeds: Mapping[str, tuple[int, ...]], found: _Runs) -> list[PairSummary]:
    scores: dict[str, NDArray[np.bool_]] = {}
    asked: list[tuple[str, str]] = []
    for name, seeds in by_seeds.items():
        # The complete system by the seeds of this pair: its name says which.
        against = f"{COMPLETE} {seeds}"
        scores[name], scores[against] = _right(found[name], seeds), _right(found[COMPLETE], seeds)
        asked.append((name, against))
    split = _reported(next(iter(found[COMPLETE].values()))).split
    return [
        PairSummary(
            family=family,
            system=pair.system,
            against=COMPLETE,
            split=split,
            seeds=by_seeds[pair.system],
            report=pair.report,
            p_holm=pair.p_holm,
        )
        for pair in compare_pairs(scores, asked, level=1 - ALPHA)
    ]


def _right(runs: Mapping[int, RunResult], seeds: Iterable[int]) -> NDArray[np.bool_]:
    """bool (seeds, N)."""
    return np.stack([_reported(runs[seed]).right for seed in seeds])


def _ranks(found: _Runs, methods: Sequence[System]) -> RankSummary | None:
    if len(methods) < 2:
        return None
    split = _reported(next(iter(found[methods[0].name].values())))
    # An average over more seeds ranks better by that alone, so every method counts with the same ones where it can.
    common = [seed for seed in found[methods[0].name] if all(seed in found[system.name] for system in methods)]
    scores = {system.name: _right(found[system.name], common or found[system.name]) for system in methods}
    test = friedman_over_parts(scores, split.labels)
    order = sorted(range(len(methods)), key=lambda index: test.mean_ranks[index])
    return RankSummary(
        split=split.split,
        parts=PARTS,
        seeds=tuple(common),
        systems=tuple(methods[index].name for index in order),
        mean_ranks=tuple(test.mean_ranks[index] for index in order),
        statistic=test.statistic,
        p=test.p,
        alpha=ALPHA,
        critical_difference=nemenyi_critical_difference(len(methods), PARTS, alpha=ALPHA),
    )


def _not_run(system: System, why_not: Mapping[str, str]) -> NotRun:
    return NotRun(
        name=system.name,
        title=system.title,
        group=system.group,
        tables=system.tables,
        why=why_not.get(system.name, _NOT_YET),
        paper=published(system.name),
    )
