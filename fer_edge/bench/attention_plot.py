"""Mean attention maps as one picture; a drawn outline stands for the face, and no pixel of a person is in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.bench.attention import AttentionReport
from fer_edge.bench.explain.faces import Map
from fer_edge.core.plots import check_plot_path, new_figure, write_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["WHAT", "attention_figure"]

WHAT: Final = "the figure of mean attention maps"


def attention_figure(report: AttentionReport, path: Path) -> None:
    """Draw the report, atomically, a column an expression: mean weights, the average face, what covering costs.

    Raises:
        InputError, MissingPackageError: as `check_plot_path`.
        OutputError: it cannot be written.
    """
    check_plot_path(path, what=WHAT)
    found = report.expressions
    rows: list[tuple[str, list[Map]]] = [
        ("attention,\nmean over faces", [each.attention for each in found.values()]),
        ("attention on\nthe average face", [each.average_face.attention for each in found.values()]),
    ]
    drops = [each.occlusion_drop for each in found.values() if each.occlusion_drop is not None]
    if drops:
        rows.append(("probability lost\nby covering, mean", drops))
    with new_figure(1.5 * len(found) + 2.4, 1.65 * len(rows) + 1.0, what=WHAT) as figure:
        grid = figure.subplots(len(rows), len(found), squeeze=False)
        for place, (line, (title, maps)) in enumerate(zip(grid, rows, strict=True)):
            drop = maps is drops
            top = max(float(np.max(each)) for each in maps)
            for axes, (label, values) in zip(line, zip(found, maps, strict=True), strict=True):
                shown = _cells(axes, values, drop=drop, top=top)
                if place == 0:
                    axes.set_title(f"{label}\n{found[label].n} faces, entropy {found[label].entropy:.2f}", fontsize=8)
            line[0].set_ylabel(title, fontsize=8)
            figure.colorbar(shown, ax=list(line), shrink=0.8, aspect=12).ax.tick_params(labelsize=7)
        size = f"{report.grid}x{report.grid}"
        figure.suptitle(
            f"{report.info.bundle} {report.info.variant} on {report.data.split}: {size} regions, each a cell "
            f"(even share {report.even:.1%}); the outline is drawn",
            fontsize=9,
        )
        write_plot(figure, path)


def _cells(axes: Axes, values: Map, *, drop: bool, top: float) -> Any:
    cells = np.asarray(values)
    shown = axes.imshow(cells, cmap="Oranges" if drop else "Blues", vmin=0, vmax=top, extent=(0, 1, 1, 0))
    side = len(cells)
    for row in range(side):
        for column in range(side):
            value = float(cells[row, column])
            colour = "white" if value > 0.6 * top else "#222"
            at = ((column + 0.5) / side, (row + 0.5) / side)
            axes.text(*at, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    _outline(axes)
    axes.set_xticks([])
    axes.set_yticks([])
    return shown


def _outline(axes: Axes) -> None:
    """A face in FER2013's framing, in the axes' unit square: brows, eyes, nose, mouth and the line of the jaw."""
    angle = np.linspace(0, 2 * np.pi, 60)
    style: dict[str, Any] = {"color": "#777", "linewidth": 0.8, "alpha": 0.8}
    axes.plot(0.5 + 0.44 * np.cos(angle), 0.47 + 0.51 * np.sin(angle), clip_on=True, **style)
    for middle in (0.31, 0.69):
        axes.plot(middle + 0.085 * np.cos(angle), 0.38 + 0.035 * np.sin(angle), **style)
        axes.plot(middle + 0.11 * np.linspace(-1, 1, 20), 0.27 - 0.03 * np.sin(np.linspace(0, np.pi, 20)), **style)
    axes.plot([0.5, 0.455, 0.5], [0.42, 0.6, 0.615], **style)
    axes.plot(0.5 + 0.15 * np.cos(angle), 0.76 + 0.045 * np.sin(angle), **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
