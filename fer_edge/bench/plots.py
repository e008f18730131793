"""The benchmark's plots, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fer_edge.bench.result import BenchReport, VariantResult
from fer_edge.core.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PALETTE", "accuracy_plot", "latency_plot", "recall_plot"]

# Okabe and Ito's palette: told apart by colour-blind readers.
PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")


def latency_plot(report: BenchReport) -> str:
    """Bars of encoder and head at T = 1, with the p99 of both together as a tick; SVG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    results = report.variants

    def draw(axes: Axes) -> None:
        rows = range(len(results))
        encoder = [result.latency_ms["encoder"].p50 for result in results]
        head = [result.latency_ms["head"].p50 for result in results]
        axes.barh(rows, encoder, color=PALETTE[0], label="encoder, p50")
        axes.barh(rows, head, left=encoder, color=PALETTE[1], label="head (T = 1), p50")
        tails = [result.latency_ms["frame"].p99 for result in results]
        axes.plot(tails, list(rows), "|", color=PALETTE[6], markersize=14, label="both, p99")
        axes.axvline(report.reference.latency_ms.p50, color="#777", linestyle=":", label="reference CNN, p50 (x = 1)")
        axes.set_yticks(list(rows), [_name(result) for result in results])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ms, batch 1, {results[0].threads} thread(s)")
        axes.legend(frameon=False, loc="best")

    return _svg(draw, height=1.6 + 0.4 * len(results))


def accuracy_plot(report: BenchReport) -> str:
    """Top-1 over `x`, one point a variant with an accuracy; SVG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    results = [result for result in report.variants if result.accuracy is not None]

    def draw(axes: Axes) -> None:
        for result in results:
            assert result.accuracy is not None
            colour = PALETTE[0] if result.precision == "fp32" else PALETTE[3]
            top1 = 100 * result.accuracy.report.top1
            axes.plot([result.x], [top1], "o", color=colour)
            axes.annotate(_name(result), (result.x, top1), textcoords="offset points", xytext=(6, 4), fontsize=9)
        axes.set_xlabel("x: time over the reference CNN's (left is faster)")
        axes.set_ylabel("top-1 %")
        axes.margins(x=0.25, y=0.25)

    return _svg(draw, height=4)


def recall_plot(report: BenchReport) -> str:
    """Recall of each expression that occurs in the split, variants side by side; SVG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    recalls = {_name(result): result.accuracy.report.per_class for result in report.variants if result.accuracy}
    labels = [label for label in next(iter(recalls.values()), {}) if all(label in each for each in recalls.values())]

    def draw(axes: Axes) -> None:
        width = 0.8 / len(recalls)
        for place, (name, recall) in enumerate(recalls.items()):
            centres = [index - 0.4 + width * (place + 0.5) for index in range(len(labels))]
            heights = [100 * recall[label] for label in labels]
            axes.bar(centres, heights, width=width, color=PALETTE[place % len(PALETTE)], label=name)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylim(0, 100)
        axes.set_ylabel("recall %")
        axes.legend(
            frameon=False, fontsize=8, ncols=min(4, len(recalls)), loc="lower center", bbox_to_anchor=(0.5, 1.0)
        )

    return _svg(draw, height=4.5)


def _name(result: VariantResult) -> str:
    return f"{result.bundle}/{result.name}" + ("" if result.provider == "cpu" else f" {result.provider}")


def _svg(draw: Callable[[Axes], None], *, height: float) -> str:
    """An `<svg>` element; the same figures give the same text."""
    matplotlib = require("matplotlib", needed_by="the benchmark's plots", extra="report")
    from matplotlib.figure import Figure

    # A fixed salt and no date: otherwise every run writes other ids.
    with matplotlib.rc_context({"svg.hashsalt": "fer-edge", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, height), layout="constrained")
        axes = figure.add_subplot()
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
