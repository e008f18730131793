"""The study's tables: every row with its seeds and split, the paper's figures in columns of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from fer_edge.core.bootstrap import BootstrapReport
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.tables import Cell, Column, Table, percent, points
from fer_edge.paper.preprocessing_study import CONDITIONS, MEASURED, PreprocessingReport
from fer_edge.paper.report import CkPlusReport, CkPlusRow, NotRun, StudyReport, SystemSummary
from fer_edge.paper.statistics import Spread
from fer_edge.paper.systems import COMPLETE

__all__ = [
    "ablation_table",
    "change",
    "ckplus_table",
    "comparison_table",
    "cost_table",
    "expression_table",
    "gain_table",
    "lstm_table",
    "probability",
    "rank_table",
    "robustness_table",
    "size_table",
    "spread",
]

_Row: TypeAlias = "SystemSummary | NotRun"
_Columns: TypeAlias = Mapping["str | Column", Callable[["_Row"], Cell]]

_COMPARED: Final = (
    "Δ: top-1 minus the complete system's, points, by the seeds that both have, with the 95 % interval by paired "
    "bootstrap over the images; p: of the same, Holm's correction over this part of the study (Tables 1 to 3 are one)."
)
_STARTS: Final = {"scratch": "random weights", "fer2013": "FER2013 weights"}


def spread(value: Spread | None, *, digits: int = 2) -> str | None:
    """Format as ``67.12 ± 0.31`` in per cent; the mean alone for one seed."""
    if value is None:
        return None
    mean = percent(value.mean, digits=digits)
    return mean if value.sd is None else f"{mean} ± {percent(value.sd, digits=digits)}"


def change(report: BootstrapReport) -> str:
    """Format as ``-1.23 [-2.04, -0.41]`` in points."""
    return f"{points(report.difference)} [{points(report.low)}, {points(report.high)}]"


def probability(p: float) -> str:
    """Format a p-value with two digits; below 0.001 as a bound, because resampling cannot resolve it."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def ablation_table(report: StudyReport, *, group: str) -> Table:
    """Build Table 1 (group ``"tables"``) or the ablations beyond the paper (``"beyond"``), the complete system last."""
    rows = [row for row in _rows(report) if row.group == group and (group == "beyond" or 1 in row.tables)]
    rows = [row for row in rows if row.name != COMPLETE] + _complete(report)
    paper = _paper(1) if group == "tables" else {}
    columns = {**_WHO, **_accuracy(report), **_against(report), **paper}
    return Table.of(rows, columns, caption=f"{_measured(report)}\n{_COMPARED}")


def comparison_table(report: StudyReport) -> Table:
    """Build Tables 2 and 3: the baselines and the complete system, with their cost."""
    rows = [row for row in _rows(report) if {2, 3} & set(row.tables) and row.name != COMPLETE] + _complete(report)
    columns = {
        **_WHO,
        "accuracy": _if_run(lambda row: spread(row.best_split.top1)),
        "precision": _if_run(lambda row: spread(row.best_split.macro_precision)),
        "recall": _if_run(lambda row: spread(row.best_split.macro_recall)),
        **_F1,
        "without leaked": _if_run(lambda row: spread(row.best_split.top1_without_leaked)),
        **_against(report),
        **_COST,
        **_paper(2),
        **_paper(3),
    }
    caption = (
        "Mean ± sample sd over the seeds, per cent; precision, recall and F1 are means over the expressions. "
        f"without leaked: accuracy without the rows whose pixels are in Training too.\n{_COMPARED}\n"
        "The paper's columns: accuracy / precision / recall / F1, per cent. parameters and MACs (multiply-accumulates "
        "for one face, millions) of the layers that predict; s: wall time of one training."
    )
    return Table.of(rows, columns, caption=caption)


def lstm_table(report: StudyReport) -> Table:
    """Build the study of LSTM parameters: the complete system, then one change at a time."""
    return _variants(report, "lstm", f"{_measured(report)} F1: mean over the expressions.\n{_COMPARED}")


def size_table(report: StudyReport) -> Table:
    """Build the complete system at the study's input size and at the paper's."""
    return _variants(report, "size", f"{_measured(report)}\n{_COMPARED}")


def expression_table(report: StudyReport) -> Table:
    """Build the recall of every expression for the systems of Tables 1 to 3."""

    def recall(label: str) -> Callable[[_Row], Cell]:
        return _if_run(lambda row: spread(row.best_split.per_expression.get(label), digits=1))

    rows = [row for row in _rows(report) if row.group == "tables"]
    recalls: _Columns = {label: recall(label) for label in EXPRESSIONS}
    return Table.of(
        rows, {**_WHO, **recalls}, caption="Recall of each expression, mean ± sample sd over the seeds, per cent."
    )


def rank_table(report: StudyReport) -> Table | None:
    """Build the mean ranks over the parts, best first; None where there are none."""
    ranks = report.ranks
    if ranks is None:
        return None
    titles = {row.name: row.title for row in report.systems}
    seeds = {row.name: row.seeds for row in report.systems}
    rows = [
        (titles[name], ", ".join(map(str, ranks.seeds or seeds[name])), f"{rank:.2f}")
        for name, rank in zip(ranks.systems, ranks.mean_ranks, strict=True)
    ]
    caption = (
        f"Ranks of accuracy within each of {ranks.parts} fixed stratified parts of {ranks.split}, seeds averaged; 1 is "
        f"best. Friedman's chi-squared {ranks.statistic:.1f}, p {probability(ranks.p)}. Mean ranks further apart than "
        f"{ranks.critical_difference:.2f} differ at {ranks.alpha:g} (Nemenyi)."
    )
    return Table(columns=("system", "seeds", "mean rank"), rows=rows, caption=caption)


def robustness_table(report: PreprocessingReport) -> Table:
    """Build the top-1 of the systems with and without each part of the preprocessing, by condition."""
    found = {(each.system, each.corruption, each.level): each.top1 for each in report.conditions}
    systems = [name for name in MEASURED if name in report.seeds]
    rows = [
        (_condition(*condition), *(spread(found[(name, *condition)]) for name in systems)) for condition in CONDITIONS
    ]
    headings = [f"{MEASURED[name]} ({_count(len(report.seeds[name]))})" for name in systems]
    caption = (
        f"Top-1 on {report.split} (n = {report.n:,}), per cent, mean ± sample sd over the seeds (their number in the "
        "heading); each network was trained with the preprocessing it is measured with, on faces without these "
        "corruptions (the training's augmentation varies light and noise mildly). The corruption precedes the "
        "preprocessing, and every network sees the same corrupted faces."
    )
    return Table(columns=("condition", *headings), rows=rows, caption=caption)


def gain_table(report: PreprocessingReport) -> Table:
    """Build the gain of each part of the preprocessing, by condition."""
    parts = list(dict.fromkeys(gain.part for gain in report.gains))
    found = {(gain.part, gain.corruption, gain.level): gain for gain in report.gains}
    rows = [
        (
            _condition(*condition),
            *(
                cell
                for gain in (found[(part, *condition)] for part in parts)
                for cell in (change(gain.report), probability(gain.p_holm))
            ),
        )
        for condition in CONDITIONS
    ]
    columns = ["condition", *(heading for part in parts for heading in (part, f"p, {part}"))]
    caption = (
        "Top-1 with the part minus top-1 without it, points, by the seeds that both have, with the 95 % interval by "
        "paired bootstrap over the images; p: of the same, Holm's correction over the whole table."
    )
    return Table(columns=columns, rows=rows, caption=caption)


def cost_table(report: PreprocessingReport) -> Table | None:
    """Build the latency of each part of the preprocessing for one face; None where it was not measured."""
    cost = report.cost
    if cost is None:
        return None
    shares = {"median": cost.median_share, "normalisation": cost.normalisation_share}
    titles = {
        "prepare": "resize and filter", "median": "median filter alone", "normalisation": "normalisation alone",
        "encoder": "network, normalisation included",
    }  # fmt: skip
    rows = []
    for name, title in titles.items():
        times, share = cost.latency_ms[name], shares.get(name)
        part = None if share is None else f"{percent(share.median)} [{percent(share.q1)}, {percent(share.q3)}]"
        rows.append((title, f"{times.p50:.4f}", f"{times.p99:.4f}", part))
    first = next(iter(cost.latency_ms.values()))
    caption = (
        f"ms for one face of {cost.size}x{cost.size}, {first.n} samples of each stage, interleaved in one process; "
        f"network: {cost.encoder}, {first.threads} thread(s). share: of resize + filter + network, median over the "
        "timing rounds with its quartiles."
    )
    return Table(columns=("stage", "p50", "p99", "share %"), rows=rows, caption=caption)


def ckplus_table(report: CkPlusReport) -> Table:
    """Build the rows of CK+; where the data were not given, they say so."""

    def rate(value: float | None) -> Cell:
        return percent(value)

    columns: dict[str | Column, Callable[[CkPlusRow], Cell]] = {
        "system": lambda row: row.title,
        "made from": lambda row: row.inputs,
        "start": lambda row: _STARTS[row.start],
        "top-1 %": lambda row: row.missing if row.top1 is None else rate(row.top1),
        "± over folds": lambda row: rate(row.fold_top1_std),
        "precision %": lambda row: rate(row.macro_precision),
        "recall %": lambda row: rate(row.macro_recall),
        "F1 %": lambda row: rate(row.macro_f1),
        "folds": lambda row: None if row.top1 is None else f"{row.folds} of {report.folds}",
        "paper, Table 1": lambda row: next((percent(figure.accuracy) for figure in row.paper), None),
    }
    labels = "" if report.labels is None else f" Labels: {', '.join(report.labels)}."
    caption = (
        f"CK+, {report.folds} folds by subject: one reported on, the next held out, the others trained on; the "
        "predictions of all folds are pooled, and macro averages are over the expressions that occur. Stills: the last "
        f"three frames of every sequence, and its first where neutral is a class.{labels}"
    )
    return Table.of(report.rows, columns, caption=caption)


def _rows(report: StudyReport) -> list[_Row]:
    return [*report.systems, *report.not_run]


def _complete(report: StudyReport) -> list[_Row]:
    return [row for row in _rows(report) if row.name == COMPLETE]


def _variants(report: StudyReport, group: str, caption: str) -> Table:
    rows = [*_complete(report), *(row for row in _rows(report) if row.group == group)]
    columns = {**_WHO, **_accuracy(report), **_F1, **_against(report), **_COST}
    return Table.of(rows, columns, caption=caption)


def _measured(report: StudyReport) -> str:
    return (
        "Mean ± sample sd over the seeds, per cent. without leaked: without the rows whose pixels are in Training too. "
        f"{report.protocol.choose}: top-1 on the split for choosing, without its leaked rows."
    )


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _condition(corruption: str | None, level: int) -> str:
    return "clean" if corruption is None else f"{corruption.replace('_', ' ')}, level {level}"


def _if_run(cell: Callable[[SystemSummary], Cell]) -> Callable[[_Row], Cell]:
    """Leave the cell of a row without a training empty."""
    return lambda row: cell(row) if isinstance(row, SystemSummary) else None


def _seeds(row: _Row) -> str:
    if isinstance(row, NotRun):
        return row.why
    finished = ", ".join(map(str, row.seeds))
    left = len(set(row.planned_seeds) - set(row.seeds))
    return f"{finished} ({left} to come)" if left else finished


_WHO: Final[_Columns] = {
    "system": lambda row: row.title,
    Column("seeds", align="right"): _seeds,
    Column("split", align="left"): _if_run(lambda row: row.best_split.split),
}
_F1: Final[_Columns] = {"F1": _if_run(lambda row: spread(row.best_split.macro_f1))}
_COST: Final[_Columns] = {
    "parameters": _if_run(lambda row: f"{row.parameters:,}"),
    "M MACs": _if_run(lambda row: None if row.macs is None else f"{row.macs / 1e6:.1f}"),
    "s": _if_run(lambda row: f"{row.seconds.mean:,.0f}"),
}


def _accuracy(report: StudyReport) -> _Columns:
    return {
        "top-1 %": _if_run(lambda row: spread(row.best_split.top1)),
        "without leaked": _if_run(lambda row: spread(row.best_split.top1_without_leaked)),
        report.protocol.choose: _if_run(lambda row: spread(row.choose.top1_without_leaked)),
    }


def _against(report: StudyReport) -> _Columns:
    pairs = {pair.system: pair for pair in report.pairs}
    return {
        Column("Δ", align="right"): lambda row: change(pairs[row.name].report) if row.name in pairs else None,
        Column("p", align="right"): lambda row: probability(pairs[row.name].p_holm) if row.name in pairs else None,
    }


def _paper(table: int) -> _Columns:
    def cell(row: _Row) -> Cell:
        figure = next((each for each in row.paper if each.table == table), None)
        if figure is None:
            return None
        rates: Iterable[float | None] = (figure.accuracy, figure.precision, figure.recall, figure.f1)
        return " / ".join(f"{100 * rate:.2f}" for rate in rates if rate is not None)

    return {f"paper, Table {table}": cell}
