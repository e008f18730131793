"""Plot of a sensitivity report: horizontal bars in graph order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer_edge.core.plots import GREY, PALETTE, check_plot_path, draw_bars, new_figure, write_plot

if TYPE_CHECKING:
    from fer_edge.calibrate.sensitivity import SensitivityReport

__all__ = ["WHAT", "sensitivity_figure"]

WHAT: Final = "the sensitivity plot"


def sensitivity_figure(report: SensitivityReport, path: Path) -> None:
    """Draw noise on the logits, flips and top-1 drop of every layer, and of all together; the file is written at once.

    Raises:
        InputError, MissingPackageError: as `check_plot_path`.
        OutputError: it cannot be written.
    """
    check_plot_path(path, what=WHAT)
    costs = [*report.layers, report.together]
    names = [f"{cost.layer}  {cost.operator}" for cost in report.layers] + ["all that the recipe quantizes"]
    colours = [PALETTE[0] if cost.quantized_by_recipe else GREY for cost in costs]
    columns = {
        "noise on the logits, % of their power": [100 * 10 ** (-cost.logit_sqnr_db / 10) for cost in costs],
        "label flips, %": [100 * cost.flip_rate for cost in costs],
        "top-1 drop, points": [100 * cost.top1_drop for cost in costs],
    }
    with new_figure(11, 0.3 * len(costs) + 1.4, what=WHAT) as figure:
        for axes, (title, values) in zip(figure.subplots(1, len(columns), sharey=True), columns.items(), strict=True):
            draw_bars(axes, names, values, colours=colours)
            axes.set_title(title)
        figure.suptitle(
            f"{report.bundle['name']}: each layer quantized alone ({report.form}), {report.rows:,} rows of "
            f"{report.split}; grey: float in the recipe",
            fontsize=9,
        )
        write_plot(figure, path)
