"""What each layer costs alone, as horizontal bars in the order of the graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer_edge.core.plots import check_plot_path, new_figure, write_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fer_edge.calibrate.sensitivity import LayerCost, SensitivityReport

__all__ = ["WHAT", "sensitivity_figure"]

WHAT: Final = "the picture of the layers' costs"
_NOW, _LEFT = "#2a6f97", "#c9c9c9"


def sensitivity_figure(report: SensitivityReport, path: Path) -> None:
    """Draw the report, atomically: noise on the logits, flips and top-1 drop of every layer, and of all together.

    Raises:
        InputError, MissingPackageError: as `check_plot_path`.
        OutputError: it cannot be written.
    """
    check_plot_path(path, what=WHAT)
    costs = [*report.layers, report.together]
    columns = (
        ("noise on the logits, % of their power", [100 * 10 ** (-cost.logit_sqnr_db / 10) for cost in costs]),
        ("labels that flip, %", [100 * cost.flip_rate for cost in costs]),
        ("top-1 drop, points", [100 * cost.top1_drop for cost in costs]),
    )
    with new_figure(11, 0.3 * len(costs) + 1.4, what=WHAT) as figure:
        grid = figure.subplots(1, len(columns), sharey=True)
        for axes, (title, values) in zip(grid, columns, strict=True):
            _bars(axes, costs, values, title)
        names = [f"{cost.layer}  {cost.operator}" for cost in report.layers] + ["all that the recipe quantizes"]
        grid[0].set_yticks(range(len(costs)), names, fontsize=7)
        grid[0].invert_yaxis()
        figure.suptitle(
            f"{report.bundle['name']}: each layer quantized alone ({report.form}), {report.rows:,} rows of "
            f"{report.split}; grey: the recipe leaves it float",
            fontsize=9,
        )
        write_plot(figure, path)


def _bars(axes: Axes, costs: list[LayerCost], values: list[float], title: str) -> None:
    colours = [_NOW if cost.quantized_by_recipe else _LEFT for cost in costs]
    axes.barh(range(len(costs)), values, color=colours, height=0.7)
    axes.axvline(0, color="#444", linewidth=0.6)
    axes.axhline(len(costs) - 1.5, color="#888", linewidth=0.6, linestyle=":")
    axes.set_title(title, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.margins(x=0.18)
    if not any(values):
        axes.set_xlim(-1, 1)
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.3g}", (value, place), xytext=(3 if value >= 0 else -3, 0), textcoords="offset points",
            ha="left" if value >= 0 else "right", va="center", fontsize=6.5, color="#333",
        )  # fmt: skip
