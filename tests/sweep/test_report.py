"""The front, others' models beside it, and the JSON that tables and picture are drawn from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from fer_edge.core.errors import InputError
from fer_edge.sweep.report import SweepReport, mark_front, peer_table, point_table, render_page
from fer_edge.sweep.run import write_sweep

from .conftest import FAMILY, OTHERS, made_up, point


def test_the_front_is_what_nothing_dominates() -> None:
    def front(*points: tuple[float, float]) -> set[tuple[float, float]]:
        marked = mark_front(point(str(place), *each) for place, each in enumerate(points))
        return {(each.x, each.top1) for each in marked if each.front}

    assert front((1.0, 0.7), (2.0, 0.7), (2.0, 0.8), (3.0, 0.75), (0.5, 0.6)) == {(0.5, 0.6), (1.0, 0.7), (2.0, 0.8)}
    assert front((1.0, 0.6), (1.0, 0.7)) == {(1.0, 0.7)}
    assert all(each.front for each in mark_front([point("one", 1.0, 0.7), point("two", 1.0, 0.7)]))
    assert mark_front([]) == ()


def test_a_report_survives_its_json(tmp_path: Path) -> None:
    report = made_up(FAMILY, OTHERS, missing=("nano/int8-trt: not through the gate",))
    report.write(tmp_path / "pareto.json")
    assert SweepReport.read(tmp_path / "pareto.json") == report
    assert [each.name for each in report.front] == ["nano/int8", "small/int8", "small/fp32", "full/fp32"]


def test_a_damaged_json_is_named(tmp_path: Path) -> None:
    made_up(FAMILY).write(tmp_path / "pareto.json")
    value = json.loads((tmp_path / "pareto.json").read_text())
    for changed, message in (({**value, "schema": 9}, "schema"), ({**value, "points": []}, "at least one")):
        (tmp_path / "other.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            SweepReport.read(tmp_path / "other.json")


def test_a_peer_is_beaten_by_what_is_at_least_as_good_in_both() -> None:
    report = made_up(FAMILY, OTHERS)
    assert {each.name: each.beaten_by for each in report.peers} == {
        "tiny CNN": None,
        "mini CNN": "nano/int8 cpu",
        "mini CNN, quantized": "nano/int8 cpu",
        "big CNN": "small/int8 cpu",
        "poor CNN": "full/fp32 openvino",
    }


def test_a_busy_machine_is_told() -> None:
    report = made_up(FAMILY)
    assert report.busy is None
    (measurement,) = report.measurements
    object.__setattr__(measurement, "load_at_start", 3.0)
    assert report.busy is not None
    assert "load 3 on 2 cores" in report.busy
    assert report.busy in render_page(report, plot=False)


class TestTables:
    def test_say_what_the_json_says(self) -> None:
        report = made_up(FAMILY, OTHERS)
        table = point_table(report)
        rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
        assert len(rows) == len(report.points)
        for row, each in zip(rows, report.points, strict=True):
            assert (row["network"], row["provider"], row["front"] is not None) == (each.name, each.provider, each.front)
            for column, value in (
                ("x", each.x),
                ("x min", each.x_of_minima),
                ("ms", each.ms_p50),
                ("MB", each.graph_bytes / 1e6),
                ("k param", each.parameters / 1e3),
                ("top-1 %", 100 * each.top1),
                ("unleaked %", 100 * (each.top1_without_leaked or 0)),
                ("ECE", each.ece),
            ):
                assert float(str(row[column])) == pytest.approx(value, abs=0.0051), column
        others = peer_table(report)
        assert others is not None
        assert [row[0] for row in others.rows] == [each.name for each in report.peers]
        assert "elsewhere" in str(others.caption)

    def test_the_page_holds_them(self, tmp_path: Path) -> None:
        report = made_up(FAMILY, OTHERS, missing=("nano-k0.5: out of\nreach",))
        write_sweep(report, tmp_path, plot=False)
        page = (tmp_path / "pareto.md").read_text("utf-8")
        assert "| nano/int8 | cpu | ● | 0.150 |" in page
        assert "| edge/int8 | cpu | – | 0.580 |" in page
        assert "| mini CNN | 0.16 | 65.50 | 57 | nano/int8 cpu |" in page
        assert "- nano-k0.5: out of reach\n" in page
        assert "pareto.png" not in page
        assert peer_table(made_up(FAMILY)) is None


class TestPlot:
    def test_draws_every_point_and_names_the_front(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("matplotlib")
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure

        from fer_edge.core import plots
        from fer_edge.sweep import pareto_plot

        figures: list[Figure] = []

        def watched(figure: Figure, kind: str) -> bytes:
            figures.append(figure)
            return plots.plot_bytes(figure, kind)

        monkeypatch.setattr(pareto_plot, "plot_bytes", watched)
        report = made_up(FAMILY, OTHERS)
        data = pareto_plot.draw_front(report)
        assert data.startswith(b"\x89PNG")
        assert len(data) < 150_000
        axes: Axes = figures[0].axes[0]
        drawn = {(x, y) for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        expected = {(each.x, 100 * each.top1) for each in report.points}
        expected |= {(each.x, 100 * each.top1) for each in report.peers if each.name != "poor CNN"}
        assert expected <= drawn
        texts = [text.get_text() for text in axes.texts]
        assert texts[:2] == ["nano/int8 cpu 68.0", "small/int8 cpu 71.0"]
        assert not any("edge/int8" in text for text in texts)
        assert "mini CNN, quantized 65.4" in texts
        assert "poor CNN 43.9 at 5.7" in axes.get_xlabel()
        assert axes.get_xscale() == "log"

    def test_one_point_and_many_networks(self) -> None:
        pytest.importorskip("matplotlib")
        from PIL import Image

        from fer_edge.sweep.pareto_plot import draw_front

        for points in ([point("nano", 0.1, 0.6)], [point(f"n{n}", 0.1 * (n + 1), 0.6 + 0.01 * n) for n in range(16)]):
            with Image.open(io.BytesIO(draw_front(made_up(points)))) as image:
                assert image.width > image.height > 400
