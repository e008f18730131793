"""The front, others' models beside it, and the JSON that tables and picture are drawn from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from fer_edge.core.errors import InputError
from fer_edge.sweep.page import peer_table, point_table, render_page, write_page
from fer_edge.sweep.report import SweepReport, front_of

from .conftest import FAMILY, OTHERS, made_up, point


def test_the_front_is_what_nothing_dominates() -> None:
    assert front_of([(1.0, 0.7), (2.0, 0.7), (2.0, 0.8), (3.0, 0.75), (0.5, 0.6)]) == (True, False, True, False, True)
    assert front_of([(1.0, 0.7), (1.0, 0.7)]) == (True, True)
    assert front_of([(1.0, 0.6), (1.0, 0.7)]) == (False, True)
    assert front_of([]) == ()


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
    assert report.busy in render_page(report, picture=False)


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
        assert "elsewhere" in others.caption

    def test_the_page_holds_them(self, tmp_path: Path) -> None:
        report = made_up(FAMILY, OTHERS, missing=("nano-k0.5: out of\nreach",))
        write_page(report, tmp_path, picture=False)
        page = (tmp_path / "pareto.md").read_text("utf-8")
        assert "| nano/int8 | cpu | ● | 0.150 |" in page
        assert "| edge/int8 | cpu | – | 0.580 |" in page
        assert "| mini CNN | 0.16 | 65.50 | 57 | nano/int8 cpu |" in page
        assert "- nano-k0.5: out of reach\n" in page
        assert "pareto.png" not in page
        assert peer_table(made_up(FAMILY)) is None


class TestPicture:
    def test_shows_every_point_and_names_the_front(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("matplotlib")
        from matplotlib.axes import Axes

        from fer_edge.sweep import pareto_plot as picture

        placers: list[picture.LabelPlacer] = []
        marks: list[tuple[float, float]] = []
        plot = Axes.plot

        def watched(axes: Axes, xs: list[float], ys: list[float], *given: object, **options: object) -> object:
            marks.extend(zip(xs, ys, strict=True))
            return plot(axes, xs, ys, *given, **options)  # type: ignore[arg-type]

        place = picture.place_labels
        monkeypatch.setattr(Axes, "plot", watched)
        monkeypatch.setattr(
            picture, "place_labels", lambda placer, report: (placers.append(placer), place(placer, report))
        )
        report = made_up(FAMILY, OTHERS)
        data = picture.draw_front(report)
        assert data.startswith(b"\x89PNG")
        assert len(data) < 150_000
        drawn = {(each.x, 100 * each.top1) for each in report.points}
        drawn |= {(each.x, 100 * each.top1) for each in report.peers if each.name != "poor CNN"}
        assert drawn <= set(marks)
        (placer,) = placers
        texts = [text.get_text() for text in placer.axes.texts]
        assert texts[:2] == ["nano/int8 cpu 68.0", "small/int8 cpu 71.0"]
        assert not any("edge/int8" in text for text in texts)
        assert "mini CNN, quantized 65.4" in texts
        assert "poor CNN 43.9 at 5.7" in placer.axes.get_xlabel()
        assert placer.axes.get_xscale() == "log"

    def test_no_label_covers_another_or_a_mark(self) -> None:
        pytest.importorskip("matplotlib")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.text import Text

        from fer_edge.sweep.pareto_plot import LabelPlacer

        figure = Figure(figsize=(8, 5))
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        axes = figure.add_subplot()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        placer = LabelPlacer(axes=axes, renderer=renderer)
        crowd = [(0.5 + 0.02 * (place % 3), 0.5 + 0.02 * (place // 3)) for place in range(9)]
        for at in crowd:
            placer.add_mark(*at)
        for place, at in enumerate(crowd):
            placer.label(f"a model's name {place}", *at, colour="black")
        for text in axes.texts:
            text.update_positions(renderer)  # type: ignore[attr-defined]
        boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
        assert len(boxes) == len(crowd)
        for place, one in enumerate(boxes):
            assert not any(one.x0 < x < one.x1 and one.y0 < y < one.y1 for x, y in placer.marks)
            assert not any(one.overlaps(other) for other in boxes[:place])

    def test_one_point_alone_and_many_networks_can_be_drawn(self) -> None:
        pytest.importorskip("matplotlib")
        from PIL import Image

        from fer_edge.sweep.pareto_plot import draw_front

        for points in ([point("nano", 0.1, 0.6)], [point(f"n{n}", 0.1 * (n + 1), 0.6 + 0.01 * n) for n in range(16)]):
            with Image.open(io.BytesIO(draw_front(made_up(points)))) as image:
                assert image.width > image.height > 400
