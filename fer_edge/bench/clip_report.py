"""The comparison on clips as tables, Markdown and one figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.bench.clips import SequenceReport
from fer_edge.bench.outputs import try_folders
from fer_edge.bench.temporal_methods import AVERAGED, METHODS, SEQUENCE, SINGLE, SMOOTHED
from fer_edge.core.comparison import BootstrapReport
from fer_edge.core.errors import require
from fer_edge.core.files import write_atomic
from fer_edge.core.plots import GREY, PALETTE
from fer_edge.core.tables import Table, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["accuracy_table", "delay_table", "ensure_sequence_outputs", "render_markdown", "write_sequence_report"]

_SHORT: Final = {AVERAGED: "avg", SMOOTHED: "exp", SEQUENCE: "head"}
_POOLED: Final = {
    "trained": "all that the head was trained on",
    "unseen": "all it was never trained on",
    "all": "all, clean too",
}


def accuracy_table(report: SequenceReport) -> Table:
    """Top-1 of every method at every T, a row a condition, and what the head gains over averaging."""
    steps = [step for step in report.conditions[0].top1[SINGLE] if step != "1"]
    columns = ["clips", "T=1", *(f"T={step} {short}" for step in steps for short in _SHORT.values()), "head − avg"]
    rows: list[list[str | None]] = []
    for each in report.conditions:
        name = each.name.replace("_", " ") + ("" if each.level is None else f" {each.level}")
        cells = [percent(each.top1[method][step], digits=1) for step in steps for method in _SHORT]
        mark = " †" if each.family == "unseen" else ""
        rows.append([name + mark, percent(each.top1[SINGLE]["1"], digits=1), *cells, _interval(each.gain)])
    for pooled in report.pooled:
        last = [percent(pooled.top1[method], digits=1) for method in _SHORT]
        blank: list[str | None] = [None] * (len(columns) - 3 - len(last))
        name = f"{_POOLED[pooled.name]} ({pooled.conditions})"
        rows.append([name, percent(pooled.top1[SINGLE], digits=1), *blank, *last, _interval(pooled.gain)])
    chosen = "chosen on these clips" if report.smoothing_chosen else "chosen on the choosing split"
    caption = [
        f"Top-1 %, newest frame's expression, {report.clips} clips a row from {report.data.split} (no row that stands "
        f"in Training), {report.bundle}/{report.variant} on {report.provider_version}.",
        "T=1: the newest frame alone. avg: mean of the window's single-frame probabilities. exp: their exponential "
        f"smoothing ({report.smoothing:g}, {chosen}). head: BiLSTM and temporal attention on the window.",
        f"head − avg: points at T={report.window}, with the 95 % interval of a paired bootstrap over stills. "
        "1 to 3: levels. † never trained on.",
    ]
    return Table(columns=columns, rows=rows, caption="\n".join(caption))


def delay_table(report: SequenceReport) -> Table:
    """How soon each method reports a changed expression."""
    columns = ["clips", "method", "median", "p90", "mean", "never %", "right %", "head − avg"]
    rows: list[list[str | None]] = []
    for each in report.delays:
        for method, delay in each.methods.items():
            gain = _interval(each.right_gain) if method == SEQUENCE else None
            times = (_frames(delay.median), _frames(delay.p90), _frames(delay.mean, digits=1))
            shares = (percent(delay.never, digits=1), percent(delay.right, digits=1))
            rows.append([f"{each.name} ({each.compared} of {each.clips})", method, *times, *shares, gain])
    caption = [
        f"Changing clips, T={report.window}: frames (10 a second) from the first that shows the new expression to the "
        "first report of it, over the clips in which every method reports the old one before and the new one after.",
        "never: share of all clips in which it is not reported within 24 frames. right: share of all frames reported "
        "right. mixed: one or two corruptions of any level.",
    ]
    return Table(columns=columns, rows=rows, caption="\n".join(caption))


def ensure_sequence_outputs(*, json_file: Path | None, markdown_file: Path | None, png_file: Path | None) -> None:
    """Find out before a long run whether its report can be written, and drawn.

    Raises:
        OutputError: a folder cannot be written.
        MissingPackageError: the drawing is wanted and matplotlib is not installed.
    """
    if png_file is not None:
        require("matplotlib", needed_by="fer-edge clips --png", extra="report")
    try_folders(json_file, markdown_file, png_file)


def write_sequence_report(
    report: SequenceReport, *, json_file: Path | None, markdown_file: Path | None, png_file: Path | None
) -> None:
    """Write the report as JSON, as tables and as a drawing, each where it is wanted.

    Raises:
        OutputError: one cannot be written.
        MissingPackageError: the drawing is wanted and matplotlib is not installed.
    """
    if json_file is not None:
        report.write(json_file)
    if markdown_file is not None:
        write_atomic(markdown_file, render_markdown(report).encode())
    if png_file is not None:
        _write_drawing(report, png_file)


def render_markdown(report: SequenceReport) -> str:
    """Both tables and where they come from."""
    lines = [
        f"# What the sequence buys: {report.bundle}/{report.variant} on {report.data.split} clips",
        "",
        f"Measured {report.created} by `{report.command}`; bundle sha256 `{report.sha256}`.",
        "",
        accuracy_table(report).to_markdown(),
        delay_table(report).to_markdown(),
    ]
    return "\n".join(lines)


def _write_drawing(report: SequenceReport, path: Path) -> None:
    """Accuracy over T, the head's gain by condition, and the delays, side by side as PNG."""
    require("matplotlib", needed_by="fer-edge clips --png", extra="report")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1.3, 1))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    _draw_steps(axes[0], report)
    _draw_gains(axes[1], report)
    _draw_delays(axes[2], report)
    figure.suptitle(f"{report.bundle}/{report.variant}, clips made of {report.data.split} stills")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    write_atomic(path, out.getvalue())


def _draw_steps(axes: Axes, report: SequenceReport) -> None:
    steps = list(report.conditions[0].top1[SINGLE])
    for place, method in enumerate(METHODS):
        means = [100 * float(np.mean([each.top1[method][step] for each in report.conditions])) for step in steps]
        axes.plot(range(len(steps)), means, "o-", color=PALETTE[place], label=method)
    axes.set_xticks(range(len(steps)), steps)
    axes.set(xlabel="frames T", ylabel="top-1 %, mean over all conditions", title="Constant expression")
    axes.legend(frameon=False)


def _draw_gains(axes: Axes, report: SequenceReport) -> None:
    names, gains, colours = [], [], []
    shades = {"clean": GREY, "trained": PALETTE[0], "unseen": PALETTE[3]}
    for each in report.conditions:
        names.append(each.name.replace("_", " ") + ("" if each.level is None else f" {each.level}"))
        gains.append(each.gain)
        colours.append(shades[each.family])
    for pooled in report.pooled:
        names.append(_POOLED[pooled.name])
        gains.append(pooled.gain)
        colours.append(shades.get(pooled.name, GREY))
    for row, (gain, colour) in enumerate(zip(gains, colours, strict=True)):
        axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour)
        axes.plot([100 * gain.difference], [row], "o", color=colour, markersize=4)
    axes.axvline(0, color="#777", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"sequence head − averaging, points, T={report.window}", title="Gain, 95 % interval")


def _draw_delays(axes: Axes, report: SequenceReport) -> None:
    places: list[float] = []
    labels: list[str] = []
    for group, each in enumerate(report.delays):
        for place, (method, delay) in enumerate(each.methods.items()):
            row = group * (len(METHODS) + 1) + place
            if delay.median is None or delay.p90 is None:
                continue
            axes.plot([delay.median, delay.p90], [row, row], "-", color=PALETTE[place])
            axes.plot([delay.median], [row], "o", color=PALETTE[place])
            axes.plot([delay.p90], [row], "|", color=PALETTE[place], markersize=12)
            places.append(row)
            labels.append(f"{each.name}: {method}")
    axes.set_yticks(places, labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=-0.5)
    axes.set(xlabel="frames until reported: median, p90", title="Changed expression")


def _frames(count: float | None, *, digits: int = 0) -> str | None:
    return None if count is None else f"{count:.{digits}f}"


def _interval(gain: BootstrapReport) -> str:
    ends: tuple[Any, Any] = (gain.low, gain.high)
    return f"{points(gain.difference)} ({', '.join(str(points(end)) for end in ends)})"
