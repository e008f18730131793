"""Plots: one style, colours that stay with their series, the charts that several rooms draw, deterministic files."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.core.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GREY",
    "PALETTE",
    "draw_labels",
    "new_figure",
    "plot_bytes",
    "series_colours",
    "set_log_x",
]

PALETTE: Final = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
    "#332288", "#882255", "#117733", "#999933", "#AA4499", "#661100",
)  # fmt: skip
"""Okabe and Ito's six colours, then six of Tol's; colour-blind readers can tell them apart."""

GREY: Final = "#666666"
"""Of axes, limits and whatever is not a series."""

_UNDATED: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
}
_STYLE: Final[dict[str, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "fer-edge",  # the same figure gives the same ids
}
_RESERVED: Final = {"fp32": PALETTE[0], "int8": PALETTE[3], "int8-trt": PALETTE[2], "fp16": PALETTE[4]}

_RADII: Final = (9, 15, 24, 36, 52, 72, 96)
_ANGLES: Final = sorted((2 * math.pi * step / 12 for step in range(12)), key=lambda angle: abs(math.sin(angle)))
_OFFSETS: Final = [
    (r, round(r * math.cos(angle), 3), round(r * math.sin(angle), 3)) for r in _RADII for angle in _ANGLES
]
_SHARE: Final = (0.0, 0.5, 1.0)
_PARTS: Final = np.linspace(0, 1, 40)


@contextlib.contextmanager
def new_figure(width: float, height: float, *, what: str) -> Iterator[Figure]:
    """Open an empty figure in the shared style; draw and write it inside the block.

    Args:
        width: inches.
        height: inches.
        what: what the plot shows, for the message.

    Raises:
        MissingPackageError: matplotlib is not installed.

    Example:
        >>> from fer_edge.core.plots import new_figure, plot_bytes
        >>> with new_figure(6, 2, what="the example") as figure:
        ...     _ = figure.add_subplot().barh(["fp32", "int8"], [1.2, 0.4])
        ...     svg = plot_bytes(figure, "svg")
    """
    matplotlib = require("matplotlib", needed_by=what, extra="report")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def plot_bytes(figure: Figure, kind: str) -> bytes:
    """Render as ``"png"`` or ``"svg"`` (from its `<svg>` tag on); the same figure gives the same bytes."""
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=120, metadata=_UNDATED[kind])
    data = out.getvalue()
    return data[data.index(b"<svg") :] if kind == "svg" else data


def series_colours(names: Iterable[str]) -> dict[str, str]:
    """Give each series a colour: variants have their own, other names one each in the order of the palette."""
    unique = dict.fromkeys(names)
    taken = {_RESERVED[name] for name in unique if name in _RESERVED}
    others = itertools.cycle([colour for colour in PALETTE if colour not in taken])
    return {name: _RESERVED[name] if name in _RESERVED else next(others) for name in unique}


def set_log_x(axes: Axes, xs: Sequence[float]) -> None:
    """Scale x logarithmically around `xs`, with ticks at 1, 2 and 5."""
    low, high = min(xs) / 1.8, max(xs) * 2.2
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = (digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5))
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def draw_labels(
    axes: Axes, labels: Sequence[tuple[str, float, float, str]],
    *, marks: Sequence[tuple[float, float]] = (), steps: Sequence[tuple[float, float]] = (),
) -> None:  # fmt: skip
    """Write labels beside their points, where they cover no mark and no other label.

    Call it last: the limits and the layout of the axes are fixed by it.

    Args:
        axes: where to draw.
        labels: (text, x, y, colour) of each, in data units; the first have the first choice.
        marks: further points, which no label may cover.
        steps: points joined right, then up; labels avoid that line.
    """
    from matplotlib.transforms import Bbox

    figure: Any = axes.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure._get_renderer()
    frame = axes.get_window_extent(renderer)

    def pixels(points: Iterable[tuple[float, float]]) -> Any:
        return axes.transData.transform(np.array(list(points), dtype=np.float64).reshape(-1, 2))

    own = pixels((x, y) for _, x, y, _ in labels)
    dots = np.concatenate([own, pixels(marks)])
    line = pixels(steps)
    corners = [point for one, two in itertools.pairwise(line) for point in (one, (two[0], one[1]))] + list(line[-1:])
    path = [one + (two - one) * part for one, two in itertools.pairwise(map(np.array, corners)) for part in _PARTS]
    placed: list[Any] = []

    def cost(box: Any, at: Any) -> tuple[float, ...]:
        inside = Bbox.intersection(box, frame)
        outside = box.width * box.height - (0.0 if inside is None else inside.width * inside.height)
        covered = float(box.count_overlaps(placed)) + box.expanded(1.05, 1.6).count_contains(dots)
        crossed = box.count_contains(np.array(path)) if path else 0
        nearer = int(np.sum(_distances(box, dots) < _distances(box, at[None])[0] - 1e-6))
        return outside + 100 * covered + 10 * crossed, nearer

    pixels_per_point = renderer.points_to_pixels(1.0)
    for (text, x, y, colour), at in zip(labels, own, strict=True):
        written = axes.text(x, y, text, fontsize=8)
        extent = written.get_window_extent(renderer)
        written.remove()
        tries: list[tuple[Any, ...]] = []
        for place, (radius, right, up) in enumerate(_OFFSETS):
            left = at[0] + right * pixels_per_point - extent.width * _SHARE[_side(right)]
            bottom = at[1] + up * pixels_per_point - extent.height * _SHARE[_side(up)]
            box = Bbox.from_bounds(left, bottom, extent.width, extent.height)
            tries.append((*cost(box, at), radius, place, box))
        best = min(tries, key=lambda each: each[:4])
        placed.append(best[-1])
        radius, right, up = _OFFSETS[best[-2]]
        leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        axes.annotate(
            text, (x, y), xytext=(right, up), textcoords="offset points", fontsize=8, color=colour,
            annotation_clip=False, arrowprops=leader if radius > _RADII[1] else None,
            ha=("left", "center", "right")[_side(right)], va=("bottom", "center", "top")[_side(up)],
        )  # fmt: skip


def _distances(box: Any, at: Any) -> Any:
    """Return the distance in pixels of each point from the box; `at` is float (n, 2)."""
    beyond = np.maximum(np.maximum(np.array(box.min) - at, at - np.array(box.max)), 0)
    return np.hypot(beyond[:, 0], beyond[:, 1])


def _side(offset: float) -> int:
    """Return how text at an offset is aligned: 0 starts at it, 1 is centred on it, 2 ends at it."""
    return 1 if abs(offset) < 5 else 0 if offset > 0 else 2
