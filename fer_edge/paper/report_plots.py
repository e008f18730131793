"""The study's drawings as PNG: critical differences, confusion matrices, recognition rates, LSTM parameters."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.core.comparison import rank_groups
from fer_edge.core.errors import require
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.plots import PALETTE
from fer_edge.paper.preprocessing_study import CONDITIONS, MEASURED
from fer_edge.paper.summary import RankSummary, StudyReport, SystemSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DRAWINGS", "draw_study"]

_DPI: Final = 150
_GREY: Final = "#777777"


def draw_study(report: StudyReport) -> dict[str, bytes]:
    """Every drawing that the study has figures for: file name -> PNG. The same figures give the same bytes.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    drawn = {name: draw(report) for name, draw in DRAWINGS.items()}
    return {name: data for name, data in drawn.items() if data is not None}


def critical_differences(report: StudyReport) -> bytes | None:
    """Mean ranks on a line, and bars over groups that the test does not tell apart (Demšar 2006, figure 1)."""
    ranks = report.ranks
    if ranks is None:
        return None
    titles = {row.name: row.title for row in report.systems}
    count = len(ranks.systems)
    groups = rank_groups(ranks.mean_ranks, ranks.critical_difference)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        bars = 0.35 * len(groups)
        left = (count + 1) // 2
        for place, (name, rank) in enumerate(zip(ranks.systems, ranks.mean_ranks, strict=True)):
            best = place < left
            depth = -bars - 0.5 * ((place if best else count - 1 - place) + 1.4)
            edge = 0.55 if best else count + 0.45
            axes.plot([rank, rank, edge], [0, depth, depth], color="black", linewidth=1)
            axes.annotate(
                f"{titles[name]}  {rank:.2f}" if best else f"{rank:.2f}  {titles[name]}",
                (edge, depth),
                textcoords="offset points",
                xytext=(-4 if best else 4, 0),
                ha="right" if best else "left",
                va="center",
            )
        for step, group in enumerate(groups):
            ends = [ranks.mean_ranks[group[0]] - 0.05, ranks.mean_ranks[group[-1]] + 0.05]
            axes.plot(ends, [-0.3 - 0.35 * step] * 2, color=PALETTE[0], linewidth=4, solid_capstyle="butt")
        _rank_scale(axes, ranks, count)
        axes.set_xlim(-1.2, count + 2.2)
        axes.set_ylim(-bars - 0.5 * (left + 1.2), 1.8)
        axes.set_axis_off()
        axes.set_title(
            f"Mean ranks over {ranks.parts} parts of {ranks.split}; systems under one bar are not told apart "
            f"(Nemenyi, {ranks.alpha:g})",
            fontsize=9,
        )

    return _png(draw, height=1.4 + 0.24 * count + 0.15 * len(groups))


def confusion_matrices(report: StudyReport) -> bytes | None:
    """Shares of each expression's rows, one matrix a system of Tables 1 to 3, seeds summed."""
    systems = [row for row in report.systems if row.group == "tables"]
    if not systems:
        return None
    columns = min(3, len(systems))
    rows = -(-len(systems) // columns)

    def draw(figure: Figure) -> None:
        for place, system in enumerate(systems):
            axes = figure.add_subplot(rows, columns, place + 1)
            _confusion(axes, system)

    return _png(draw, height=3.2 * rows, width=3.1 * columns + 0.4)


def expression_rates(report: StudyReport) -> bytes | None:
    """Recognition rate of every expression, the systems of Tables 1 to 3 side by side."""
    systems = [row for row in report.systems if row.group == "tables"]
    if not systems:
        return None
    labels = [label for label in EXPRESSIONS if all(label in row.best_split.per_expression for row in systems)]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        width = 0.86 / len(systems)
        for place, row in enumerate(systems):
            rates = [row.best_split.per_expression[label] for label in labels]
            centres = [index - 0.43 + width * (place + 0.5) for index in range(len(labels))]
            colour, hatch = PALETTE[place % len(PALETTE)], "//" if place >= len(PALETTE) else None
            errors = [100 * (rate.sd or 0.0) for rate in rates]
            heights = [100 * rate.mean for rate in rates]
            axes.bar(centres, heights, width=width, color=colour, hatch=hatch, label=row.title)
            axes.errorbar(centres, heights, yerr=errors, fmt="none", ecolor=_GREY, elinewidth=0.7)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylim(0, 100)
        axes.set_ylabel(f"recognition rate % ({systems[0].best_split.split}; bars: sd over seeds)")
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _png(draw, height=4.6)


def differences(report: StudyReport) -> bytes | None:
    """Every system of Tables 1 to 3 and every ablation beyond them against the complete one, with intervals."""
    return _forest(report, families=("tables", "beyond"))


def lstm_parameters(report: StudyReport) -> bytes | None:
    """Every setting of the LSTM against the complete system's: accuracy with intervals, and multiply-accumulates."""
    return _forest(report, families=("lstm",))


def preprocessing_curves(report: StudyReport) -> bytes | None:
    """Top-1 over the level of noise and of poor light, with and without each part of the preprocessing."""
    measured = report.preprocessing
    if measured is None:
        return None
    corruptions = list(dict.fromkeys(name for name, _ in CONDITIONS if name is not None))
    found = {(each.system, each.corruption, each.level): each.top1 for each in measured.conditions}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(corruptions), sharey=True)
        for axes, corruption in zip(np.atleast_1d(panels), corruptions, strict=True):
            levels = [level for name, level in CONDITIONS if name in (None, corruption)]
            for place, system in enumerate(name for name in MEASURED if name in measured.seeds):
                values = [found[system, corruption if level else None, level] for level in levels]
                axes.errorbar(
                    levels,
                    [100 * value.mean for value in values],
                    yerr=[100 * (value.sd or 0.0) for value in values],
                    marker="o",
                    capsize=3,
                    color=PALETTE[place],
                    label=MEASURED[system],
                )
            axes.set_xticks(levels, ["clean", *(f"level {level}" for level in levels[1:])])
            axes.set_title(corruption.replace("_", " "), fontsize=10)
            _bare(axes)
        np.atleast_1d(panels)[0].set_ylabel(f"top-1 % ({measured.split})")
        np.atleast_1d(panels)[0].legend(frameon=False, fontsize=8)

    return _png(draw, height=3.8)


DRAWINGS: Final[dict[str, Callable[[StudyReport], bytes | None]]] = {
    "critical-differences.png": critical_differences,
    "confusion-matrices.png": confusion_matrices,
    "differences.png": differences,
    "expressions.png": expression_rates,
    "lstm-parameters.png": lstm_parameters,
    "preprocessing.png": preprocessing_curves,
}
"""Every drawing's file name, and the function that makes it; it gives None where there are no figures for it."""


def _forest(report: StudyReport, *, families: tuple[str, ...]) -> bytes | None:
    """Differences from the complete system with their intervals, best first, beside what each system costs."""
    systems = {row.name: row for row in report.systems}
    pairs = [pair for pair in report.pairs if pair.family in families]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: pair.report.difference)
    places = range(len(pairs))
    costs = [systems[pair.system].macs for pair in pairs]
    complete = systems["complete"].macs

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        for place, pair in zip(places, pairs, strict=True):
            found = pair.report
            apart = pair.p_holm < 0.05
            error = [[100 * (found.difference - found.low)], [100 * (found.high - found.difference)]]
            inside = PALETTE[0] if apart else "white"
            left.errorbar(
                100 * found.difference, place, xerr=error, fmt="o", capsize=3, color=PALETTE[0], markerfacecolor=inside
            )
        left.axvline(0, color=_GREY, linestyle=":")
        left.set_yticks(places, [_named(systems[pair.system], pair.seeds) for pair in pairs])
        left.set_xlabel(f"top-1 minus the complete's, points ({pairs[0].split}, n = {pairs[0].report.n:,})")
        left.set_title("95 % interval by paired bootstrap; filled: p < 0.05 after Holm's correction", fontsize=8)
        counted = [place for place in places if costs[place] is not None]
        right.barh(counted, [(costs[place] or 0) / 1e6 for place in counted], color=PALETTE[5], height=0.6)
        if complete is not None:
            right.axvline(complete / 1e6, color=_GREY, linestyle=":")
        right.set_xlabel("M MACs a face\n(dotted: complete)")

    return _png(draw, height=1.5 + 0.3 * len(pairs))


def _named(row: SystemSummary, seeds: tuple[int, ...]) -> str:
    return row.title if len(seeds) > 1 else f"{row.title} (one seed)"


def _rank_scale(axes: Axes, ranks: RankSummary, count: int) -> None:
    axes.plot([1, count], [0, 0], color="black", linewidth=1)
    for rank in range(1, count + 1):
        axes.plot([rank, rank], [0, 0.12], color="black", linewidth=1)
        axes.annotate(str(rank), (rank, 0.2), ha="center", va="bottom", fontsize=9)
    width = min(ranks.critical_difference, count)
    axes.plot([1, 1 + width], [1.1, 1.1], color=_GREY, linewidth=2)
    axes.annotate(f"CD {ranks.critical_difference:.2f}", (1 + width / 2, 1.2), ha="center", va="bottom", fontsize=9)


def _confusion(axes: Axes, system: SystemSummary) -> None:
    counts = np.array(system.best_split.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        ink = "white" if share > 0.55 else "black"
        axes.annotate(f"{100 * share:.0f}", (column, row), ha="center", va="center", fontsize=7, color=ink)
    names = EXPRESSIONS if len(shares) == len(EXPRESSIONS) else [str(index) for index in range(len(shares))]
    axes.set_xticks(range(len(shares)), names, rotation=60, fontsize=7)
    axes.set_yticks(range(len(shares)), names, fontsize=7)
    axes.set_title(f"{system.title}, {100 * system.best_split.top1.mean:.1f} %", fontsize=9)


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _png(draw: Callable[[Figure], None], *, height: float, width: float = 9) -> bytes:
    matplotlib: Any = require("matplotlib", needed_by="the study's drawings", extra="report")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": "sans-serif"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        for axes in figure.axes:
            _bare(axes)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()
