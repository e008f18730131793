"""The Pareto plot of a sweep: accuracy over x, the front as steps, models of others as hollow marks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from fer_edge.core.plots import GREY, draw_labels, new_figure, plot_bytes, series_colours, set_log_x
from fer_edge.sweep.report import SweepReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_front"]

_MARKERS: Final = "os^DvPX"
_FILLS: Final[tuple[Any, ...]] = ("full", "left", "bottom", "none")
_BELOW: Final = 0.10
"""Models of others that are this far below our least accurate point are named below the plot, not drawn in it."""


def draw_front(report: SweepReport) -> bytes:
    """Draw the plot as PNG; the same report gives the same bytes.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    floor = min(point.top1 for point in report.points) - _BELOW
    peers = [peer for peer in report.peers if peer.top1 >= floor]
    hidden = [f"{peer.name} {100 * peer.top1:.1f} at {peer.x:g}" for peer in report.peers if peer.top1 < floor]
    front = [(point.x, 100 * point.top1) for point in report.front]
    with new_figure(8.2, 5.2, what="the Pareto plot") as figure:
        axes = figure.add_subplot()
        # Steps: at an x between two points, the faster one is the best available.
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=1.2, zorder=1, label="front")
        if peers:
            axes.plot(
                [peer.x for peer in peers], [100 * peer.top1 for peer in peers], "o", color=GREY,
                markerfacecolor="none", markersize=7, label=f"models of others,\nmeasured {report.peers_measured}",
                zorder=2,
            )  # fmt: skip
        named = _draw_points(axes, report)
        set_log_x(axes, [*(point.x for point in report.points), *(peer.x for peer in peers)])
        axes.margins(y=0.12)
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.7, zorder=0)
        below = f"\nbelow the plot: {', '.join(hidden)}" if hidden else ""
        axes.set_xlabel(f"x: latency over the reference CNN's, log scale (left is faster){below}")
        axes.set_ylabel(f"top-1 % ({report.dataset} {report.split}, {report.n:,} rows)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        named += [(f"{peer.name} {100 * peer.top1:.1f}", peer.x, 100 * peer.top1, GREY) for peer in peers]
        draw_labels(axes, named, marks=[(each.x, 100 * each.top1) for each in report.points], steps=front)
        return plot_bytes(figure, "png")


def _draw_points(axes: Axes, report: SweepReport) -> list[tuple[str, float, float, str]]:
    """Draw every point: colour by network, marker by variant, fill by provider; return the labels of the front."""
    colours = series_colours(point.network for point in report.points)
    markers = dict(zip(sorted({point.variant for point in report.points}), itertools.cycle(_MARKERS), strict=False))
    providers = sorted({point.provider for point in report.points})
    fills = dict(zip(providers, itertools.cycle(_FILLS), strict=False))
    named, keys = [], dict[str, None]()
    for point in report.points:
        name = f"{point.name} {point.provider}" if len(providers) > 1 else point.name
        axes.plot(
            [point.x], [100 * point.top1], markers[point.variant], fillstyle=fills[point.provider],
            color=colours[point.network], markerfacecoloralt="white", markersize=8, linestyle="none", zorder=3,
            label=name if name not in keys else None,
        )  # fmt: skip
        keys[name] = None
        if point.front:
            named.append((f"{name} {100 * point.top1:.1f}", point.x, 100 * point.top1, colours[point.network]))
    return named
