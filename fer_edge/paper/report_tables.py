"""The study's tables: every row with its seeds and split, the paper's figures in columns of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fer_edge.core.comparison import BootstrapReport, Spread
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.tables import Table, percent, points
from fer_edge.paper.preprocessing_study import CONDITIONS, MEASURED, PreprocessingReport
from fer_edge.paper.published import PaperFigure
from fer_edge.paper.summary import NotRun, PairSummary, StudyReport, SystemSummary

__all__ = [
    "ablation_table",
    "change",
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
_Cell: TypeAlias = "str | None"

_COMPARED: Final = (
    "Δ: top-1 minus the complete system's, points, by the seeds that both have, with the 95 % interval by paired "
    "bootstrap over the images; p: of the same, Holm's correction over this part of the study (Tables 1 to 3 are one)."
)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A heading, and its cell in a row that was run; `planned` also fills it in a row that was not."""

    title: str
    cell: Callable[[SystemSummary], _Cell]
    planned: Callable[[_Row], _Cell] = lambda row: None


def spread(value: Spread | None, *, digits: int = 2) -> _Cell:
    """``67.12 ± 0.31`` in per cent; the mean alone for one seed."""
    if value is None:
        return None
    mean = percent(value.mean, digits=digits)
    return mean if value.sd is None else f"{mean} ± {percent(value.sd, digits=digits)}"


def change(report: BootstrapReport) -> str:
    """``-1.23 [-2.04, -0.41]`` in points."""
    return f"{points(report.difference)} [{points(report.low)}, {points(report.high)}]"


def probability(p: float) -> str:
    """A p to two digits, small ones as a bound: resampling cannot tell them apart."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def ablation_table(report: StudyReport, *, group: str) -> Table:
    """Table 1 (`group` ``"tables"``) or the ablations beyond the paper (``"beyond"``), the complete system last."""
    rows = [row for row in _rows(report) if row.group == group and (group == "beyond" or 1 in row.tables)]
    rows = [row for row in rows if row.name != "complete"] + _complete(report)
    paper = _paper("paper, Table 1", 1) if group == "tables" else ()
    return _table(
        report, rows, (*_WHO, *_accuracy(report), *_against(report), *paper), f"{_measured(report)}\n{_COMPARED}"
    )


def comparison_table(report: StudyReport) -> Table:
    """Tables 2 and 3: the baselines and the complete system, with what each of them costs."""
    rows = [row for row in _rows(report) if {2, 3} & set(row.tables) and row.name != "complete"] + _complete(report)
    columns = (
        *_WHO,
        _Column(title="accuracy", cell=lambda row: spread(row.best_split.top1)),
        _Column(title="precision", cell=lambda row: spread(row.best_split.macro_precision)),
        _Column(title="recall", cell=lambda row: spread(row.best_split.macro_recall)),
        _Column(title="F1", cell=lambda row: spread(row.best_split.macro_f1)),
        _Column(title="without leaked", cell=lambda row: spread(row.best_split.top1_without_leaked)),
        *_against(report),
        *_cost(),
        *_paper("paper, Table 2", 2),
        *_paper("paper, Table 3", 3),
    )
    caption = (
        "Mean ± sample sd over the seeds, per cent; precision, recall and F1 are means over the expressions. "
        f"without leaked: accuracy without the rows whose pixels stand in Training too.\n{_COMPARED}\n"
        "The paper's columns: accuracy / precision / recall / F1, per cent, in this table's order. parameters and "
        "MACs (multiply-accumulates for one face, millions) of what predicts; s: one training by the clock on the wall."
    )
    return _table(report, rows, columns, caption)


def lstm_table(report: StudyReport) -> Table:
    """The role of LSTM parameters: the complete system first, then one change at a time."""
    rows = [*_complete(report), *(row for row in _rows(report) if row.group == "lstm")]
    f1 = _Column(title="F1", cell=lambda row: spread(row.best_split.macro_f1))
    columns = (*_WHO, *_accuracy(report), f1, *_against(report), *_cost())
    return _table(report, rows, columns, f"{_measured(report)} F1: mean over the expressions.\n{_COMPARED}")


def size_table(report: StudyReport) -> Table:
    """The complete system at the study's input size and at the paper's."""
    rows = [*_complete(report), *(row for row in _rows(report) if row.group == "size")]
    f1 = _Column(title="F1", cell=lambda row: spread(row.best_split.macro_f1))
    return _table(
        report, rows, (*_WHO, *_accuracy(report), f1, *_against(report), *_cost()), f"{_measured(report)}\n{_COMPARED}"
    )


def expression_table(report: StudyReport) -> Table:
    """Recognition rate of every expression, the systems of Tables 1 to 3."""
    rows = [row for row in _rows(report) if row.group == "tables"]
    columns = (*_WHO, *(_Column(title=label, cell=_recall(label)) for label in EXPRESSIONS))
    return _table(report, rows, columns, "Recall of each expression, mean ± sample sd over the seeds, per cent.")


def rank_table(report: StudyReport) -> Table | None:
    """Mean ranks over the parts, best first; None where there are none."""
    ranks = report.ranks
    if ranks is None:
        return None
    titles = {row.name: row.title for row in report.systems}
    seeds = {row.name: row.seeds for row in report.systems}
    rows = [
        [titles[name], ", ".join(map(str, ranks.seeds or seeds[name])), f"{rank:.2f}"]
        for name, rank in zip(ranks.systems, ranks.mean_ranks, strict=True)
    ]
    caption = (
        f"Ranks of accuracy within each of {ranks.parts} fixed stratified parts of {ranks.split}, seeds averaged; 1 is "
        f"best. Friedman's chi-squared {ranks.statistic:.1f}, p {probability(ranks.p)}. Mean ranks further apart than "
        f"{ranks.critical_difference:.2f} differ at {ranks.alpha:g} (Nemenyi)."
    )
    return Table(columns=("system", "seeds", "mean rank"), rows=rows, caption=caption)


def robustness_table(report: PreprocessingReport) -> Table:
    """Top-1 of the systems with and without each part, condition by condition."""
    found = {(each.system, each.corruption, each.level): each.top1 for each in report.conditions}
    systems = [name for name in MEASURED if name in report.seeds]
    rows: list[list[_Cell]] = [
        [_condition(corruption, level), *(spread(found[name, corruption, level]) for name in systems)]
        for corruption, level in CONDITIONS
    ]
    headings = [f"{MEASURED[name]} ({_count(report.seeds[name])})" for name in systems]
    caption = (
        f"Top-1 on {report.split} (n = {report.n:,}), per cent, mean ± sample sd over the seeds (their number in the "
        "heading); each network was trained with the preprocessing it is measured with, on faces without these "
        "corruptions (the training's augmentation varies light and noise mildly). The corruption comes before the "
        "preprocessing, and every network sees the same spoilt faces."
    )
    return Table(columns=("condition", *headings), rows=rows, caption=caption)


def gain_table(report: PreprocessingReport) -> Table:
    """What each part of the preprocessing brings, condition by condition."""
    parts = list(dict.fromkeys(gain.part for gain in report.gains))
    found = {(gain.part, gain.corruption, gain.level): gain for gain in report.gains}
    rows: list[list[_Cell]] = []
    for corruption, level in CONDITIONS:
        row: list[_Cell] = [_condition(corruption, level)]
        for part in parts:
            gain = found[part, corruption, level]
            row += [change(gain.report), probability(gain.p_holm)]
        rows.append(row)
    columns = ["condition", *(heading for part in parts for heading in (part, f"p, {part}"))]
    caption = (
        "Top-1 with the part minus top-1 without it, points, by the seeds that both have, with the 95 % interval by "
        "paired bootstrap over the images; p: of the same, Holm's correction over the whole table."
    )
    return Table(columns=columns, rows=rows, caption=caption)


def cost_table(report: PreprocessingReport) -> Table | None:
    """Time of each part of the preprocessing for one face; None where it was not measured."""
    cost = report.cost
    if cost is None:
        return None
    shares = {"median": cost.median_share, "normalisation": cost.normalisation_share}
    names = {
        "prepare": "resize and filter", "median": "median filter alone", "normalisation": "normalisation alone",
        "encoder": "network, normalisation included",
    }  # fmt: skip
    rows: list[list[_Cell]] = []
    for name, title in names.items():
        times, share = cost.latency_ms[name], shares.get(name)
        part = None if share is None else f"{percent(share.median)} [{percent(share.q1)}, {percent(share.q3)}]"
        rows.append([title, f"{times.p50:.4f}", f"{times.p99:.4f}", part])
    first = next(iter(cost.latency_ms.values()))
    caption = (
        f"ms for one face of {cost.size}x{cost.size}, {first.n} samples of each stage, interleaved in one process; "
        f"network: {cost.encoder}, {first.threads} thread(s). share: of resize + filter + network, median over the "
        "rounds with its quartiles."
    )
    return Table(columns=("stage", "p50", "p99", "share %"), rows=rows, caption=caption)


def _rows(report: StudyReport) -> list[_Row]:
    return [*report.systems, *report.not_run]


def _complete(report: StudyReport) -> list[_Row]:
    return [row for row in _rows(report) if row.name == "complete"]


def _measured(report: StudyReport) -> str:
    return (
        "Mean ± sample sd over the seeds, per cent. without leaked: rows whose pixels stand in Training too left out. "
        f"{report.protocol.choose}: top-1 on the split for choosing, without its leaked rows."
    )


def _count(seeds: Sequence[int]) -> str:
    return "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _condition(corruption: str | None, level: int) -> str:
    return "clean" if corruption is None else f"{corruption.replace('_', ' ')}, level {level}"


def _recall(label: str) -> Callable[[SystemSummary], _Cell]:
    return lambda row: spread(row.best_split.per_expression.get(label), digits=1)


def _seeds(row: SystemSummary) -> str:
    done = ", ".join(map(str, row.seeds))
    left = len(set(row.planned_seeds) - set(row.seeds))
    return f"{done} ({left} to come)" if left else done


_WHO: Final = (
    _Column(title="system", cell=lambda row: row.title, planned=lambda row: row.title),
    _Column(title="seeds", cell=_seeds, planned=lambda row: row.why if isinstance(row, NotRun) else None),
    _Column(title="split", cell=lambda row: row.best_split.split),
)


def _accuracy(report: StudyReport) -> tuple[_Column, ...]:
    return (
        _Column(title="top-1 %", cell=lambda row: spread(row.best_split.top1)),
        _Column(title="without leaked", cell=lambda row: spread(row.best_split.top1_without_leaked)),
        _Column(title=report.protocol.choose, cell=lambda row: spread(row.choose.top1_without_leaked)),
    )


def _against(report: StudyReport) -> tuple[_Column, ...]:
    pairs: dict[str, PairSummary] = {pair.system: pair for pair in report.pairs}

    def difference(row: SystemSummary) -> _Cell:
        return change(pairs[row.name].report) if row.name in pairs else None

    def p(row: SystemSummary) -> _Cell:
        return probability(pairs[row.name].p_holm) if row.name in pairs else None

    return _Column(title="Δ", cell=difference), _Column(title="p", cell=p)


def _cost() -> tuple[_Column, ...]:
    return (
        _Column(title="parameters", cell=lambda row: f"{row.parameters:,}"),
        _Column(title="M MACs", cell=lambda row: None if row.macs is None else f"{row.macs / 1e6:.1f}"),
        _Column(title="s", cell=lambda row: f"{row.seconds.mean:,.0f}"),
    )


def _paper(title: str, table: int) -> tuple[_Column, ...]:
    def cell(row: _Row) -> _Cell:
        return next((_figures(figure) for figure in row.paper if figure.table == table), None)

    return (_Column(title=title, cell=cell, planned=cell),)


def _figures(figure: PaperFigure) -> str:
    rates = (figure.accuracy, figure.precision, figure.recall, figure.f1)
    return " / ".join(f"{100 * rate:.2f}" for rate in rates if rate is not None)


def _table(report: StudyReport, rows: Sequence[_Row], columns: Sequence[_Column], caption: str) -> Table:
    cells = [
        [column.cell(row) if isinstance(row, SystemSummary) else column.planned(row) for column in columns]
        for row in rows
    ]
    return Table(columns=[column.title for column in columns], rows=cells, caption=caption)
