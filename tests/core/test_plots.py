"""Plots: the same figure gives the same bytes, series keep their colours, labels do not overlap."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from matplotlib.text import Text

from fer_edge.core.plots import (
    draw_labels,
    new_figure,
    plot_bytes,
    series_colours,
)


def drawn(kind: str) -> bytes:
    with new_figure(4, 3, what="the test") as figure:
        axes = figure.add_subplot()
        axes.plot([1, 2], [1, 2], "o", label="happy")
        axes.legend()
        draw_labels(axes, [("one", 1, 1, "black"), ("two", 2, 2, "black")], steps=[(1, 1), (2, 2)])
        return plot_bytes(figure, kind)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    assert drawn(kind) == drawn(kind)


def test_svg_begins_with_its_tag_and_keeps_text(tmp_path: Path) -> None:
    svg = drawn("svg").decode()
    assert svg.startswith("<svg ")
    assert ">happy<" in svg


def test_variants_keep_their_colours_and_no_two_series_share_one() -> None:
    alone, together = series_colours(["int8"]), series_colours(["full", "fp32", "base", "int8"])
    assert alone["int8"] == together["int8"]
    assert len(set(together.values())) == 4


def test_labels_overlap_neither_each_other_nor_a_mark() -> None:
    with new_figure(8, 5, what="the test") as figure:
        axes = figure.add_subplot()
        points = [(1 + 0.01 * step, 60 + 0.1 * (step % 3)) for step in range(8)]
        axes.plot(*zip(*points, strict=True), "o")
        axes.margins(0.6)
        draw_labels(axes, [(f"network-{x:.2f}", x, y, "black") for x, y in points])
        renderer = figure._get_renderer()  # type: ignore[attr-defined]
        extents = []
        for text in axes.texts:
            text.update_positions(renderer)  # type: ignore[attr-defined]
            extents.append(Text.get_window_extent(text, renderer))  # without the leader line
        assert not any(one.overlaps(two) for one, two in itertools.combinations(extents, 2))
        marks = axes.transData.transform(points)
        assert not any(extent.count_contains(marks) for extent in extents)
