"""The Pareto plot of a sweep: accuracy over x, the front as steps, models of others as hollow marks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from fer_edge.core.plots import GREY, draw_labels, new_figure, plot_bytes, series_colours
from fer_edge.sweep.report import PeerPoint, SweepPoint, SweepReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_front"]

_MARKERS: Final = {"fp32": "o", "int8": "s", "int8-trt": "^"}
_OTHER_MARKERS: Final = ("D", "v", "P", "X")
_FILLS: Final = ("full", "left", "bottom", "none")
_BELOW: Final = 0.10
"""Models of others that are this far below our least accurate point are named below the plot, not drawn in it."""


def draw_front(report: SweepReport) -> bytes:
    """Draw the plot as PNG; the same report gives the same bytes.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    with new_figure(8.2, 5.2, what="the Pareto plot") as figure:
        axes = figure.add_subplot()
        floor = min(point.top1 for point in report.points) - _BELOW
        peers = [peer for peer in report.peers if peer.top1 >= floor]
        _draw_marks(axes, report, peers)
        _set_axes(axes, report, peers)
        _draw_names(axes, report, peers)
        return plot_bytes(figure, "png")


def _draw_marks(axes: Axes, report: SweepReport, peers: Sequence[PeerPoint]) -> None:
    front = report.front
    # Steps: at an x between two points, the faster one is the best available.
    axes.step(
        [point.x for point in front], [100 * point.top1 for point in front],
        where="post", color=GREY, linewidth=1.2, zorder=1,
    )  # fmt: skip
    colours, markers, fills = _colours(report), _markers(report), _fills(report)
    for point in report.points:
        axes.plot(
            [point.x], [100 * point.top1], markers[point.variant], fillstyle=fills[point.provider],
            color=colours[point.network], markerfacecoloralt="white", markersize=8, linestyle="none", zorder=3,
        )  # fmt: skip
    axes.plot(
        [peer.x for peer in peers], [100 * peer.top1 for peer in peers], "o",
        markerfacecolor="none", markeredgecolor=GREY, markersize=7, linestyle="none", zorder=2,
    )  # fmt: skip


def _draw_names(axes: Axes, report: SweepReport, peers: Sequence[PeerPoint]) -> None:
    """Name the points of the front and the models of others; the legend identifies every other point."""
    colours, several = _colours(report), len(_fills(report)) > 1
    named: list[tuple[str, SweepPoint | PeerPoint, str]]

    def name(point: SweepPoint) -> str:
        return f"{point.name} {point.provider}" if several else point.name

    named = [(name(point), point, colours[point.network]) for point in report.front]
    named += [(peer.name, peer, GREY) for peer in peers]
    draw_labels(
        axes,
        [(f"{text} {100 * each.top1:.1f}", each.x, 100 * each.top1, colour) for text, each, colour in named],
        marks=[(point.x, 100 * point.top1) for point in report.points],
        steps=[(point.x, 100 * point.top1) for point in report.front],
    )


def _set_axes(axes: Axes, report: SweepReport, peers: Sequence[PeerPoint]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shown: list[SweepPoint | PeerPoint] = [*report.points, *peers]
    left, right = min(each.x for each in shown) / 1.6, max(each.x for each in shown) * 1.9
    low, high = 100 * min(each.top1 for each in shown), 100 * max(each.top1 for each in shown)
    margin = max(1.0, 0.12 * (high - low))
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(max(0.0, low - margin), min(100.0, high + margin))
    ticks = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if left <= tick <= right])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.7, zorder=0)
    hidden = [f"{peer.name} {100 * peer.top1:.1f} at {peer.x:g}" for peer in report.peers if peer not in peers]
    below = f"\nbelow the plot: {', '.join(hidden)}" if hidden else ""
    axes.set_xlabel(f"x: latency over the reference CNN's, log scale (left is faster){below}")
    axes.set_ylabel(f"top-1 % ({report.dataset} {report.split}, {report.n:,} rows)")
    axes.legend(handles=list(_legend(report)), loc="center left", bbox_to_anchor=(1.0, 0.5))


def _legend(report: SweepReport) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    def mark(label: str, **given: Any) -> Line2D:
        return Line2D([], [], label=label, **{"linestyle": "none", "markersize": 7, "color": "#222222", **given})

    for network, colour in _colours(report).items():
        yield mark(network, marker="o", color=colour)
    for variant, marker in _markers(report).items():
        yield mark(variant, marker=marker)
    fills = _fills(report)
    if len(fills) > 1:
        for provider, fill in fills.items():
            yield mark(provider, marker="o", fillstyle=fill, markerfacecoloralt="white")
    yield mark("front", linestyle="-", color=GREY)
    if report.peers:
        title = f"models of others,\nmeasured {report.peers_measured}"
        yield mark(title, marker="o", color=GREY, markerfacecolor="none")


def _colours(report: SweepReport) -> dict[str, str]:
    return series_colours(point.network for point in report.points)


def _markers(report: SweepReport) -> dict[str, str]:
    others = itertools.cycle(_OTHER_MARKERS)
    return {name: _MARKERS.get(name) or next(others) for name in sorted({point.variant for point in report.points})}


def _fills(report: SweepReport) -> dict[str, Any]:
    providers = sorted({point.provider for point in report.points})
    return dict(zip(providers, itertools.cycle(_FILLS), strict=False))
