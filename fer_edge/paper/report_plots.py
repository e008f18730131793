"""The study's plots as PNG: critical differences, confusion matrices, recalls, LSTM parameters, preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.plots import (
    GREY,
    PALETTE,
    draw_bar_groups,
    draw_heat_map,
    draw_intervals,
    draw_lines,
    new_figure,
    plot_bytes,
)
from fer_edge.paper.preprocessing_study import CONDITIONS, MEASURED
from fer_edge.paper.report import RankSummary, StudyReport, SystemSummary
from fer_edge.paper.statistics import rank_groups
from fer_edge.paper.systems import COMPLETE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PLOTS", "draw_study"]


def draw_study(report: StudyReport) -> dict[str, bytes]:
    """Draw every plot that the study has figures for: file name -> PNG. The same report gives the same bytes.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    drawn = {name: draw(report) for name, draw in PLOTS.items()}
    return {name: data for name, data in drawn.items() if data is not None}


def critical_differences(report: StudyReport) -> bytes | None:
    """Draw mean ranks on a line, and bars over groups that the test does not separate (Demšar 2006, figure 1)."""
    ranks = report.ranks
    if ranks is None:
        return None
    titles = {row.name: row.title for row in report.systems}
    count = len(ranks.systems)
    groups = rank_groups(ranks.mean_ranks, ranks.critical_difference)
    with new_figure(9, 1.4 + 0.24 * count + 0.15 * len(groups), what="the study's plots") as figure:
        axes = figure.add_subplot()
        bars, left = 0.35 * len(groups), (count + 1) // 2
        for place, (name, rank) in enumerate(zip(ranks.systems, ranks.mean_ranks, strict=True)):
            best = place < left
            depth = -bars - 0.5 * ((place if best else count - 1 - place) + 1.4)
            edge = 0.55 if best else count + 0.45
            axes.plot([rank, rank, edge], [0, depth, depth], color="black", linewidth=1)
            text = f"{titles[name]}  {rank:.2f}" if best else f"{rank:.2f}  {titles[name]}"
            side: Any = "right" if best else "left"
            offset = (-4 if best else 4, 0)
            axes.annotate(text, (edge, depth), textcoords="offset points", xytext=offset, ha=side, va="center")
        for step, group in enumerate(groups):
            ends = [ranks.mean_ranks[group[0]] - 0.05, ranks.mean_ranks[group[-1]] + 0.05]
            axes.plot(ends, [-0.3 - 0.35 * step] * 2, color=PALETTE[0], linewidth=4, solid_capstyle="butt")
        _draw_rank_scale(axes, ranks, count)
        axes.set_xlim(-1.2, count + 2.2)
        axes.set_ylim(-bars - 0.5 * (left + 1.2), 1.8)
        axes.set_axis_off()
        axes.set_title(
            f"Mean ranks over {ranks.parts} parts of {ranks.split}; systems under one bar do not differ "
            f"(Nemenyi, {ranks.alpha:g})"
        )
        return plot_bytes(figure, "png")


def confusion_matrices(report: StudyReport) -> bytes | None:
    """Draw the shares of each expression's rows, one matrix for each system of Tables 1 to 3, seeds summed."""
    systems = _tables(report)
    if not systems:
        return None
    columns = min(3, len(systems))
    rows = -(-len(systems) // columns)
    with new_figure(3.1 * columns + 0.4, 3.2 * rows, what="the study's plots") as figure:
        for place, system in enumerate(systems):
            axes = figure.add_subplot(rows, columns, place + 1)
            counts = np.array(system.best_split.confusion, dtype=np.float64)
            draw_heat_map(axes, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
            names = EXPRESSIONS if len(counts) == len(EXPRESSIONS) else [str(index) for index in range(len(counts))]
            axes.set_xticks(range(len(counts)), names, rotation=60, fontsize=7)
            axes.set_yticks(range(len(counts)), names, fontsize=7)
            axes.set_title(f"{system.title}, {100 * system.best_split.top1.mean:.1f} %")
        return plot_bytes(figure, "png")


def expression_rates(report: StudyReport) -> bytes | None:
    """Draw the recall of every expression, the systems of Tables 1 to 3 side by side."""
    systems = _tables(report)
    if not systems:
        return None
    labels = [label for label in EXPRESSIONS if all(label in row.best_split.per_expression for row in systems)]
    rates = {row.title: [row.best_split.per_expression[label] for label in labels] for row in systems}
    with new_figure(9, 4.6, what="the study's plots") as figure:
        axes = figure.add_subplot()
        draw_bar_groups(
            axes,
            labels,
            {title: [100 * rate.mean for rate in each] for title, each in rates.items()},
            errors={title: [100 * (rate.sd or 0.0) for rate in each] for title, each in rates.items()},
        )
        axes.set_ylim(0, 100)
        axes.set_ylabel(f"recall % ({systems[0].best_split.split}; bars: sd over seeds)")
        return plot_bytes(figure, "png")


def differences(report: StudyReport) -> bytes | None:
    """Draw every system of Tables 1 to 3 and every ablation beyond them against the complete system."""
    return _forest(report, families=("tables", "beyond"))


def lstm_parameters(report: StudyReport) -> bytes | None:
    """Draw every setting of the LSTM against the complete system's."""
    return _forest(report, families=("lstm",))


def preprocessing_curves(report: StudyReport) -> bytes | None:
    """Draw top-1 over the level of noise and of poor light, with and without each part of the preprocessing."""
    measured = report.preprocessing
    if measured is None:
        return None
    corruptions = list(dict.fromkeys(name for name, _ in CONDITIONS if name is not None))
    found = {(each.system, each.corruption, each.level): each.top1 for each in measured.conditions}
    with new_figure(9, 3.8, what="the study's plots") as figure:
        panels = figure.subplots(1, len(corruptions), sharey=True)
        for axes, corruption in zip(np.atleast_1d(panels), corruptions, strict=True):
            levels = [level for name, level in CONDITIONS if name in (None, corruption)]
            spreads = {
                MEASURED[name]: [found[name, corruption if level else None, level] for level in levels]
                for name in MEASURED
                if name in measured.seeds
            }
            draw_lines(
                axes,
                levels,
                {title: [100 * each.mean for each in values] for title, values in spreads.items()},
                errors={title: [100 * (each.sd or 0.0) for each in values] for title, values in spreads.items()},
            )
            axes.set_xticks(levels, ["clean", *(f"level {level}" for level in levels[1:])])
            axes.set_title(corruption.replace("_", " "))
        np.atleast_1d(panels)[0].set_ylabel(f"top-1 % ({measured.split})")
        return plot_bytes(figure, "png")


PLOTS: Final[dict[str, Callable[[StudyReport], bytes | None]]] = {
    "critical-differences.png": critical_differences,
    "confusion-matrices.png": confusion_matrices,
    "differences.png": differences,
    "expressions.png": expression_rates,
    "lstm-parameters.png": lstm_parameters,
    "preprocessing.png": preprocessing_curves,
}
"""File name of every plot, and its function, which returns None where there are no figures."""


def _tables(report: StudyReport) -> list[SystemSummary]:
    return [row for row in report.systems if row.group == "tables"]


def _forest(report: StudyReport, *, families: tuple[str, ...]) -> bytes | None:
    """Draw differences from the complete system with intervals, best first, beside the cost of each system."""
    systems = {row.name: row for row in report.systems}
    pairs = [pair for pair in report.pairs if pair.family in families]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: pair.report.difference, reverse=True)
    names = [systems[pair.system].title + ("" if len(pair.seeds) > 1 else " (one seed)") for pair in pairs]
    intervals = [(100 * each.low, 100 * each.difference, 100 * each.high) for each in (pair.report for pair in pairs)]
    macs = [(systems[pair.system].macs or 0) / 1e6 for pair in pairs]
    with new_figure(9, 1.5 + 0.3 * len(pairs), what="the study's plots") as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        draw_intervals(left, names, intervals, filled=[pair.p_holm < 0.05 for pair in pairs])
        left.axvline(0, color=GREY, linestyle=":")
        left.set_xlabel(f"top-1 minus the complete's, points ({pairs[0].split}, n = {pairs[0].report.n:,})")
        left.set_title("95 % interval by paired bootstrap; filled: p < 0.05 after Holm's correction")
        right.barh(range(len(pairs)), macs, color=PALETTE[5], height=0.6)
        if (complete := systems[COMPLETE].macs) is not None:
            right.axvline(complete / 1e6, color=GREY, linestyle=":")
        right.set_xlabel("M MACs a face\n(dotted: complete)")
        return plot_bytes(figure, "png")


def _draw_rank_scale(axes: Axes, ranks: RankSummary, count: int) -> None:
    axes.plot([1, count], [0, 0], color="black", linewidth=1)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.12], color="black", linewidth=1)
        axes.annotate(str(rank), (rank, 0.2), ha="center", va="bottom")
    width = min(ranks.critical_difference, count)
    axes.plot([1, 1 + width], [1.1, 1.1], color=GREY, linewidth=2)
    axes.annotate(f"CD {ranks.critical_difference:.2f}", (1 + width / 2, 1.2), ha="center", va="bottom")
