"""The front as a picture: accuracy against x, our points, their front, and others' models as hollow marks."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fer_edge.core.errors import require
from fer_edge.core.plots import PALETTE
from fer_edge.sweep.report import SweepPoint, SweepReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LabelPlacer", "draw_front", "place_labels", "shown_floor"]

_SIZE_INCHES: Final = (8.2, 5.2)
_DPI: Final = 120
_GREY: Final = "#666666"
_MARKERS: Final = {"fp32": "o", "int8": "s", "int8-trt": "^"}
_OTHER_MARKERS: Final = ("D", "v", "P", "X")
_BELOW: Final = 0.10
"""Others' models this far below our least accurate point are named beneath the picture, not drawn in it."""

_LEADER: Final = {"arrowstyle": "-", "color": _GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
_FONT_SIZE: Final = 8
_RADII: Final = (9, 15, 24, 36, 52, 72, 96)
_NEAR: Final = 15
_DIRECTIONS: Final = 12


def draw_front(report: SweepReport) -> bytes:
    """The picture as PNG; the same report gives the same bytes.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib: Any = require("matplotlib", needed_by="the picture of the front", extra="report")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _draw_points(axes, report)
        _draw_peers(axes, report)
        _frame(axes, report)
        figure.draw_without_rendering()  # places the axes, so that points have their pixels
        figure.set_layout_engine("none")
        renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
        placer = LabelPlacer(axes=axes, renderer=renderer)
        place_labels(placer, report)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def shown_floor(report: SweepReport) -> float:
    """The least top-1 that is drawn, a fraction."""
    return min(point.top1 for point in report.points) - _BELOW


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelPlacer:
    """Puts each label where it covers no mark and no other label, near its point if it can.

    Attributes:
        axes: already laid out; figure pixels no longer change.
        renderer: measures the texts.
        marks: pixel positions of all marks.
        lines: pixel positions along lines, which a label had better not cross.
        boxes: (x0, y0, x1, y1) of the labels placed so far, pixels.
    """

    axes: Axes
    renderer: Any
    marks: list[tuple[float, float]] = field(default_factory=list)
    lines: list[tuple[float, float]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)

    def add_mark(self, x: float, y: float) -> None:
        """Tell of a mark that no label may cover; x and y are data."""
        self.marks.append(self._pixel(x, y))

    def add_steps(self, points: Sequence[tuple[float, float]]) -> None:
        """Tell of the line that goes right from each point and then up to the next."""
        for (x0, y0), (x1, y1) in itertools.pairwise([self._pixel(*point) for point in points]):
            self.lines.extend((x0 + (x1 - x0) * part / 40, y0) for part in range(41))
            self.lines.extend((x1, y0 + (y1 - y0) * part / 40) for part in range(41))

    def label(self, text: str, x: float, y: float, *, colour: str) -> None:
        """Write a label at a point, with a thin line to it where it had to move away."""
        at, size = self._pixel(x, y), self._size(text)
        rated = []
        for place in _places():
            box = self._box(at, size, place)
            rated.append((self._cost(box), self._nearer(box, at), place))
        free = [(nearer, place) for cost, nearer, place in rated if cost == 0]
        # The first of the nearest that nothing is in the way of; where nothing is free, the least evil.
        best = min(free, key=lambda each: each[0])[1] if free else min(rated, key=lambda each: each[:2])[2]
        right, up, radius = best
        self.boxes.append(self._box(at, size, best))
        self.axes.annotate(
            text,
            (x, y),
            textcoords="offset points",
            xytext=(right, up),
            ha=_side(right, "left", "right"),
            va=_side(up, "bottom", "top"),
            fontsize=_FONT_SIZE,
            color=colour,
            arrowprops=_LEADER if radius > _NEAR else None,
            annotation_clip=False,
        )

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        at: Any = self.axes.transData.transform((x, y))
        return float(at[0]), float(at[1])

    def _nearer(self, box: tuple[float, float, float, float], own: tuple[float, float]) -> int:
        """How many other marks are nearer to a label than its own."""
        distance = _distance(box, own)
        return sum(mark != own and _distance(box, mark) < distance for mark in self.marks)

    def _size(self, text: str) -> tuple[float, float]:
        """Width and height in pixels."""
        written = self.axes.text(0, 0, text, fontsize=_FONT_SIZE)
        extent = written.get_window_extent(self.renderer)
        written.remove()
        return float(extent.width), float(extent.height)

    def _box(
        self, at: tuple[float, float], size: tuple[float, float], place: tuple[float, float, float]
    ) -> tuple[float, float, float, float]:
        """Where a label of this size lies when it is put at an offset (points) of a position (pixels)."""
        right, up, _ = place
        a_point: float = self.renderer.points_to_pixels(1.0)
        x, y = at[0] + right * a_point, at[1] + up * a_point
        left = x - size[0] * {"left": 0.0, "center": 0.5, "right": 1.0}[_side(right, "left", "right")]
        bottom = y - size[1] * {"bottom": 0.0, "center": 0.5, "top": 1.0}[_side(up, "bottom", "top")]
        return left - 1, bottom - 1, left + size[0] + 1, bottom + size[1] + 1

    def _cost(self, box: tuple[float, float, float, float]) -> float:
        """How much of the box is taken, or outside the axes; 0 where it is free."""
        frame: Any = self.axes.get_window_extent(self.renderer)
        outside = (
            max(0.0, frame.x0 - box[0]) + max(0.0, box[2] - frame.x1)
            + max(0.0, frame.y0 - box[1]) + max(0.0, box[3] - frame.y1)
        )  # fmt: skip
        covered = sum(_overlap(box, other) for other in self.boxes)
        marks = sum(60.0 for x, y in self.marks if box[0] - 5 < x < box[2] + 5 and box[1] - 5 < y < box[3] + 5)
        crossed = sum(8.0 for x, y in self.lines if box[0] < x < box[2] and box[1] < y < box[3])
        return float(20 * outside + covered + marks + crossed)


def _places() -> list[tuple[float, float, float]]:
    """Offsets (right, up) in points with their distance, near ones first, and first beside it."""
    found = []
    for radius in _RADII:
        for step in sorted(range(_DIRECTIONS), key=lambda step: abs(math.sin(2 * math.pi * step / _DIRECTIONS))):
            angle = 2 * math.pi * step / _DIRECTIONS
            found.append((round(radius * math.cos(angle), 3), round(radius * math.sin(angle), 3), float(radius)))
    return found


def _side(offset: float, after: str, before: str) -> Any:
    """How a text is aligned that stands at an offset of its point."""
    return "center" if abs(offset) < 5 else after if offset > 0 else before


def place_labels(placer: LabelPlacer, report: SweepReport) -> None:
    """Label the points of the front, then others' models; every other point is told by the legend."""
    shown = [peer for peer in report.peers if peer.top1 >= shown_floor(report)]
    for x, top1 in [*((point.x, point.top1) for point in report.points), *((peer.x, peer.top1) for peer in shown)]:
        placer.add_mark(x, 100 * top1)
    placer.add_steps([(point.x, 100 * point.top1) for point in report.front])
    colours = _colours(report.points)
    several = len({point.provider for point in report.points}) > 1
    for point in report.front:
        told = f"{point.name} {point.provider}" if several else point.name
        placer.label(f"{told} {100 * point.top1:.1f}", point.x, 100 * point.top1, colour=colours[point.network])
    for peer in shown:
        placer.label(f"{peer.name} {100 * peer.top1:.1f}", peer.x, 100 * peer.top1, colour=_GREY)


def _draw_points(axes: Axes, report: SweepReport) -> None:
    front = report.front
    # A step: at an x between two points, the best that is to be had is the faster one.
    axes.step(
        [point.x for point in front], [100 * point.top1 for point in front],
        where="post", color=_GREY, linewidth=1.2, zorder=1, label="front",
    )  # fmt: skip
    colours, markers = _colours(report.points), _markers(report.points)
    fills = _fills(report.points)
    for point in report.points:
        axes.plot(
            [point.x], [100 * point.top1], markers[point.variant], fillstyle=fills[point.provider],
            color=colours[point.network], markerfacecoloralt="white", markersize=8, linestyle="none", zorder=3,
        )  # fmt: skip


def _draw_peers(axes: Axes, report: SweepReport) -> None:
    shown = [peer for peer in report.peers if peer.top1 >= shown_floor(report)]
    axes.plot(
        [peer.x for peer in shown], [100 * peer.top1 for peer in shown], "o",
        markerfacecolor="none", markeredgecolor=_GREY, markersize=7, linestyle="none", zorder=2,
    )  # fmt: skip


def _frame(axes: Axes, report: SweepReport) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xscale("log")
    floor = shown_floor(report)
    xs = [point.x for point in report.points] + [peer.x for peer in report.peers if peer.top1 >= floor]
    axes.set_xlim(min(xs) / 1.6, max(xs) * 1.9)
    tops = [point.top1 for point in report.points] + [peer.top1 for peer in report.peers if peer.top1 >= floor]
    low, high = 100 * min(tops), 100 * max(tops)
    margin = max(1.0, 0.12 * (high - low))
    axes.set_ylim(max(0.0, low - margin), min(100.0, high + margin))
    axes.set_xticks([tick for tick in _ticks() if min(xs) / 1.6 <= tick <= max(xs) * 1.9])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.7, zorder=0)
    hidden = [f"{peer.name} {100 * peer.top1:.1f} at {peer.x:g}" for peer in report.peers if peer.top1 < floor]
    beneath = f"\nbelow the picture: {', '.join(hidden)}" if hidden else ""
    axes.set_xlabel(f"x: time over the reference CNN's, log scale (left is faster){beneath}")
    axes.set_ylabel(f"top-1 % ({report.dataset} {report.split}, {report.n:,} rows)")
    axes.legend(handles=list(_legend(report)), frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _legend(report: SweepReport) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    def mark(label: str, **given: Any) -> Line2D:
        return Line2D([], [], label=label, **{"linestyle": "none", "markersize": 7, "color": "#222222", **given})

    for network, colour in _colours(report.points).items():
        yield mark(network, marker="o", color=colour)
    for variant, marker in _markers(report.points).items():
        yield mark(variant, marker=marker)
    fills = _fills(report.points)
    if len(fills) > 1:
        for provider, fill in fills.items():
            yield mark(provider, marker="o", fillstyle=fill, markerfacecoloralt="white")
    yield mark("front", linestyle="-", color=_GREY)
    if report.peers:
        told = f"others' models,\nmeasured {report.peers_measured}"
        yield mark(told, marker="o", color=_GREY, markerfacecolor="none")


def _colours(points: Sequence[SweepPoint]) -> dict[str, str]:
    """A colour a network, fastest first; twelve of them, then again."""
    names = dict.fromkeys(point.network for point in points)
    inks = PALETTE
    return {name: inks[place % len(inks)] for place, name in enumerate(names)}


def _markers(points: Sequence[SweepPoint]) -> dict[str, str]:
    others = itertools.cycle(_OTHER_MARKERS)
    variants = sorted({point.variant for point in points})
    return {name: _MARKERS.get(name) or next(others) for name in variants}


def _fills(points: Sequence[SweepPoint]) -> dict[str, Any]:
    providers = dict.fromkeys(point.provider for point in sorted(points, key=lambda point: point.provider))
    return dict(zip(providers, itertools.cycle(("full", "left", "bottom", "none")), strict=False))


def _ticks() -> list[float]:
    return [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]


def _distance(box: tuple[float, float, float, float], at: tuple[float, float]) -> float:
    beside = max(box[0] - at[0], 0.0, at[0] - box[2])
    above = max(box[1] - at[1], 0.0, at[1] - box[3])
    return math.hypot(beside, above)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
