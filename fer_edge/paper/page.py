"""The study's page: `README.md` with every table, written from the report beside `study.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from fer_edge.core.bootstrap import BootstrapReport
from fer_edge.core.files import write_atomic
from fer_edge.core.tables import Cell, Column, Table, percent, points
from fer_edge.paper.report import StudyReport, SystemSummary
from fer_edge.paper.statistics import Spread
from fer_edge.paper.systems import COMPLETE, PAPER, SYSTEMS, WHY_THEY_DIFFER, System, published

__all__ = ["JSON_NAME", "MARKDOWN_NAME", "change", "probability", "render_study", "spread", "write_study"]

JSON_NAME: Final = "study.json"
MARKDOWN_NAME: Final = "README.md"

_Columns: TypeAlias = Mapping["str | Column", Callable[[System], Cell]]

_CAPTION: Final = (
    "Mean ± sample sd over the seeds, per cent; F1 is the mean over the expressions. without leaked: without the rows "
    "whose pixels are in Training too.\n"
    "Δ: top-1 minus the complete system's, points, by the seeds that both have, with the 95 % interval by paired "
    "bootstrap over the images; p: of the same, Holm's correction over this part of the study (Tables 1 to 3 are one)."
)


def write_study(report: StudyReport, folder: Path) -> None:
    """Write ``README.md`` and then ``study.json`` into a folder, over an earlier study's; each file atomically.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_atomic(folder / MARKDOWN_NAME, render_study(report).encode())
    report.write(folder / JSON_NAME)


def spread(value: Spread) -> str | None:
    """Format as ``67.12 ± 0.31`` in per cent; the mean alone for one seed."""
    mean = percent(value.mean)
    return mean if value.sd is None else f"{mean} ± {percent(value.sd)}"


def change(report: BootstrapReport) -> str:
    """Format as ``-1.23 [-2.04, -0.41]`` in points."""
    return f"{points(report.difference)} [{points(report.low)}, {points(report.high)}]"


def probability(p: float) -> str:
    """Format a p-value with two digits; below 0.001 as a bound, because resampling cannot resolve it."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def render_study(report: StudyReport) -> str:
    """Render the page in Markdown. Systems without a finished training have a row that says so."""
    columns = _Tables(report)
    table_1 = [system for system in SYSTEMS.values() if 1 in system.tables]
    compared = [system for system in SYSTEMS.values() if {2, 3} & set(system.tables)]
    parts = [
        "# The paper's tables, measured",
        _introduction(report),
        "## Table 1: the gain of each part",
        columns.table(table_1, columns.paper(1)),
        "## Tables 2 and 3: the systems",
        columns.table(compared, {**columns.cost, **columns.paper(2), **columns.paper(3)}),
        "The paper's columns: accuracy / precision / recall / F1, per cent. parameters and MACs (multiply-accumulates "
        "for one face, millions) of the layers that predict; s: wall time of one training.",
        *_ranks(report),
        "## Beyond the paper",
        columns.table(_group("beyond"), {}),
        "## The role of LSTM parameters",
        columns.table(_group("lstm"), columns.cost),
        "## The paper's input size",
        columns.table(_group("size"), columns.cost),
        "## Why our figures differ from the paper's",
        WHY_THEY_DIFFER,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _group(name: str) -> list[System]:
    return [system for system in SYSTEMS.values() if system.group == name]


class _Tables:
    """The columns of the tables, as functions of a system."""

    def __init__(self, report: StudyReport) -> None:
        self._rows = {row.name: row for row in report.systems}
        self._pairs = {pair.system: pair for pair in report.pairs}
        self._choose = report.protocol.choose
        self.cost: _Columns = {
            "parameters": self._measured(lambda row: f"{row.parameters:,}"),
            "M MACs": self._measured(lambda row: None if row.macs is None else f"{row.macs / 1e6:.1f}"),
            "s": self._measured(lambda row: f"{row.seconds.mean:,.0f}"),
        }

    def table(self, systems: Iterable[System], further: _Columns) -> str:
        """Render one table, the complete system last."""
        rows = [*(system for system in systems if system.name != COMPLETE), SYSTEMS[COMPLETE]]
        pairs = self._pairs
        columns: _Columns = {
            "system": lambda system: system.title,
            Column("seeds", align="right"): self._seeds,
            Column("split", align="left"): self._measured(lambda row: row.best_split.split),
            "top-1 %": self._measured(lambda row: spread(row.best_split.top1)),
            "F1": self._measured(lambda row: spread(row.best_split.macro_f1)),
            "without leaked": self._measured(lambda row: spread(row.best_split.top1_without_leaked)),
            f"{self._choose}, without leaked": self._measured(lambda row: spread(row.choose.top1_without_leaked)),
            Column("Δ", align="right"): lambda row: change(pairs[row.name].report) if row.name in pairs else None,
            Column("p", align="right"): lambda row: probability(pairs[row.name].p_holm) if row.name in pairs else None,
            **further,
        }
        return Table.of(rows, columns, caption=_CAPTION).to_markdown()

    @staticmethod
    def paper(table: int) -> _Columns:
        """Return the column of the paper's own figures in one of its tables."""

        def cell(system: System) -> Cell:
            figure = next((each for each in published(system.name) if each.table == table), None)
            if figure is None:
                return None
            rates = (figure.accuracy, figure.precision, figure.recall, figure.f1)
            return " / ".join(f"{100 * rate:.2f}" for rate in rates if rate is not None)

        return {f"paper, Table {table}": cell}

    def _measured(self, cell: Callable[[SystemSummary], Cell]) -> Callable[[System], Cell]:
        """Leave the cell of a system without a training empty."""
        return lambda system: cell(self._rows[system.name]) if system.name in self._rows else None

    def _seeds(self, system: System) -> str:
        row = self._rows.get(system.name)
        if row is None:
            return "not run yet"
        left = len(set(row.planned_seeds) - set(row.seeds))
        return ", ".join(map(str, row.seeds)) + (f" ({left} to come)" if left else "")


def _introduction(report: StudyReport) -> str:
    protocol, device = report.protocol, report.device
    splits: Mapping[str, Any] = protocol.data.get("splits", {})
    faces = ", ".join(f"{name} {facts['rows']:,}" for name, facts in splits.items())
    if protocol.report is None:
        used = f"Rows are reported on {protocol.choose}: there is no other split."
    else:
        used = f"Rows are reported on {protocol.report}; every choice was made on {protocol.choose}."
    command = "" if report.command is None else f" Made by `{report.command}`."
    seeds, extra = (", ".join(map(str, each)) for each in (protocol.seeds, protocol.extra_seeds))
    return "\n".join(
        [
            f"Every system of the tables of {PAPER}, trained and evaluated under one protocol; `{JSON_NAME}` holds "
            f"every figure on this page and more.{command}\n",
            f"- **Same for all rows:** recipe `{protocol.recipe_name}` ({protocol.epochs} epochs, "
            f"{protocol.input_size}x{protocol.input_size} pixels except where a row says otherwise); seeds {seeds} for "
            f"Tables 1 to 3, {extra} beyond them.",
            f"- **Data:** {faces} faces. {used}",
            "- **Uncertainty:** intervals come from resampling images (paired, seeds averaged), so they cover other "
            "images for these trained networks. Only the sd over seeds covers other trainings; one seed covers none.",
            f"- **Machine:** {device.get('cpu', 'unknown processor')}, {device.get('cores', '?')} cores, "
            f"{report.created[:10]}.",
        ]
    )


def _ranks(report: StudyReport) -> list[str]:
    ranks = report.ranks
    if ranks is None:
        return []
    rows = [(SYSTEMS[name].title, f"{rank:.2f}") for name, rank in zip(ranks.systems, ranks.mean_ranks, strict=True)]
    averaged = f"seeds {', '.join(map(str, ranks.seeds))} averaged" if ranks.seeds else "each system's seeds averaged"
    caption = (
        f"Ranks of accuracy within each of {ranks.parts} fixed stratified parts of {ranks.split}, {averaged}; 1 is "
        f"best. Friedman's chi-squared {ranks.statistic:.1f}, p {probability(ranks.p)}. Mean ranks further apart than "
        f"{ranks.critical_difference:.2f} differ at {ranks.alpha:g} (Nemenyi)."
    )
    return ["### Ranks", Table(columns=("system", "mean rank"), rows=rows, caption=caption).to_markdown()]
