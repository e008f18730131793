"""What a reader sees: the tables and the page, drawn from the JSON alone."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fer_edge.bench.html_report import render_page, write_page
from fer_edge.bench.latency import LatencySummary
from fer_edge.bench.report import (
    BenchReport,
    Comparison,
    OwnComparison,
    ReferenceResult,
    StatedAccuracy,
    Throughput,
    Timing,
    VariantResult,
)
from fer_edge.bench.tables import cost_table, expect_common, ratio_table, verdict_table
from fer_edge.core.errors import InputError, MissingPackageError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import AccuracyReport

STAGES = ("preprocess", "encoder", "head", "head_window", "frame", "streaming_step", "end_to_end", "cold_start")


def latency(p50: float) -> LatencySummary:
    return LatencySummary(
        p50=p50, p90=p50, p99=2 * p50, p99_9=3 * p50, mean=p50, min=p50, max=4 * p50, n=200, batch=1, t=1, threads=1
    )


def accuracy(top1: float) -> StatedAccuracy:
    report = AccuracyReport(
        dataset="fer2013", split="PublicTest", n=3589, top1=top1, macro_precision=top1, macro_recall=top1,
        macro_f1=top1, per_class=dict.fromkeys(EXPRESSIONS, top1), ece=0.02, top1_without_leaked=top1 - 0.01,
        n_without_leaked=3309,
    )  # fmt: skip
    return StatedAccuracy(report=report, recorded=True)


def variant(name: str, *, speedup: float) -> VariantResult:
    own = OwnComparison(
        speedup_p50=speedup, size_ratio=speedup, top1_delta=-0.0012, ece_delta=0.001, flip_rate=0.0123,
        mcnemar_p=0.5, encoder_speedup_p50=speedup, max_abs_logit_diff=0.25,
    )  # fmt: skip
    return VariantResult(
        bundle="edge", sha256="ab" * 32, name=name, precision=name, provider="cpu", provider_version="engine 1",
        threads=1, batch=1, window=16, graph_bytes=int(4e6 / speedup), parameters=1_000_000, macs=None,
        x=0.5 / speedup, x_quartiles=(0.4 / speedup, 0.6 / speedup), streaming_ratio=1.25,
        latency_ms={stage: latency(1 / speedup) for stage in STAGES}, throughput_fps=Throughput(batch=32, fps=900.0),
        rss_peak_bytes=77_000_000, accuracy=accuracy(0.684), against_own_fp32=own, against_original=None,
    )  # fmt: skip


def report(**changes: object) -> BenchReport:
    made = BenchReport(
        created="2025-01-31T12:00:00+00:00",
        command="fer-edge bench 'a&b <i>'",
        device={"cpu": "Core <9>", "cores": 4, "packages": {"numpy": "2"}, "load_at_start": 0.0},
        timing=Timing(),
        reference=ReferenceResult(sha256="cd" * 32, provider="cpu", provider_version="e 1", latency_ms=latency(2.0)),
        original=None,
        data=None,
        logits_on="28 synthetic faces",
        variants=(variant("fp32", speedup=1), variant("int8", speedup=4)),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Tags in order, every address the page would load, and its visible words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.loads.append(value)

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_verdict_compares_with_own_fp32_and_marks_recorded_accuracy() -> None:
    table = verdict_table(report())
    assert table.headings[0] == "variant"
    assert "provider" not in table.headings
    rows = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert rows[1] == {
        "variant": "edge/int8", "x": "0.125", "ms": "0.250", "speedup": "4.00", "MB": "1.00", "smaller": "4.00",
        "top-1 %": "68.40*", "unleaked %": "67.40", "Δ top-1": "-0.12", "flips %": "1.23", "McNemar": "0.5",
    }  # fmt: skip
    assert [rows[0][name] for name in ("speedup", "smaller", "Δ top-1", "flips %", "McNemar")] == [None] * 5
    assert "the bundle's own FP32" in table.caption
    assert "fer2013 PublicTest, and without the rows that are also in the training split; * recorded" in table.caption


def test_where_nothing_leaks_the_verdict_has_no_column_for_it() -> None:
    judged = variant("int8", speedup=4)
    assert judged.accuracy is not None
    clean = dataclasses.replace(judged.accuracy.report, top1_without_leaked=None, n_without_leaked=None)
    changed = dataclasses.replace(judged, accuracy=dataclasses.replace(judged.accuracy, report=clean))
    table = verdict_table(report(variants=(changed,)))
    assert "unleaked %" not in table.to_markdown()
    assert "training split" not in table.caption


def test_the_verdict_prefers_the_original() -> None:
    other = Comparison(
        speedup_p50=10.0, size_ratio=12.0, top1_delta=None, ece_delta=None, flip_rate=None, mcnemar_p=None
    )
    changed = dataclasses.replace(variant("int8", speedup=4), against_original=other, provider="openvino")
    table = verdict_table(report(original="full/fp32", variants=(changed,)))
    (row,) = [dict(zip(table.headings, cells, strict=True)) for cells in table.rows]
    assert (row["speedup"], row["smaller"], row["Δ top-1"]) == ("10.00", "12.00", None)
    assert row["provider"] == "openvino"
    assert "full/fp32 on the same provider" in table.caption


def test_the_costs_say_what_was_not_measured() -> None:
    warm = dataclasses.replace(
        variant("fp32", speedup=1),
        latency_ms={stage: latency(1.0) for stage in STAGES if stage != "cold_start"},
        rss_peak_bytes=None,
    )
    table = cost_table(report(variants=(warm, variant("int8", speedup=4))))
    first, second = (dict(zip(table.headings, row, strict=True)) for row in table.rows)
    assert (first["start"], first["RSS MB"]) == (None, None)
    assert (second["RSS MB"], second["p99"], second["×enc"]) == ("77", "0.500", "1.25")
    assert "idle" not in table.to_markdown()
    assert "idle" in cost_table(report(timing=Timing(idle_s=2.0))).to_markdown()


def test_ratios_stand_beside_those_of_another_run() -> None:
    there = report(
        device={"cpu": "Other <1>"},
        variants=(
            variant("fp32", speedup=1),
            variant("int8", speedup=5),
            dataclasses.replace(variant("int8", speedup=2), provider="openvino"),
        ),
    )
    table = ratio_table(report(), there)
    rows = [dict(zip(table.headings, cells, strict=True)) for cells in table.rows]
    assert [(row["variant"], row["provider"]) for row in rows] == [("edge/fp32", "cpu"), ("edge/int8", "cpu")]
    int8 = rows[1]
    assert [int8[name] for name in ("x", "x there", "x ratio")] == ["0.125", "0.100", "1.25"]
    assert [int8[name] for name in ("speedup", "speedup there", "speedup ratio")] == ["4.00", "5.00", "0.80"]
    assert (int8["top-1 %"], int8["top-1 % there"]) == ("68.40*", "68.40*")
    assert "there: Other <1>, 2025-01-31; here: Core <9>" in table.caption
    assert "1.12 in the median, from 1.00 to 1.25" in table.caption
    # A speedup over another original, or a top-1 on another split, is not the same figure.
    elsewhere = dataclasses.replace(accuracy(0.7).report, split="PrivateTest")
    unlike = dataclasses.replace(
        there,
        original="full/fp32",
        variants=tuple(
            dataclasses.replace(each, accuracy=StatedAccuracy(report=elsewhere, recorded=False))
            for each in there.variants
        ),
    )
    assert ratio_table(report(), unlike).headings == ("variant", "provider", "x", "x there", "x ratio")
    # Where FP32 was not measured a variant is no faster than anything.
    alone = dataclasses.replace(
        there, variants=tuple(dataclasses.replace(each, against_own_fp32=None) for each in there.variants)
    )
    beside = ratio_table(report(), alone)
    cells = dict(zip(beside.headings, beside.rows[1], strict=True))
    assert cells["speedup"] is not None
    assert (cells["speedup there"], cells["speedup ratio"]) == (None, None)


def test_a_run_with_nothing_in_common_is_refused() -> None:
    expect_common(report(), ["other", "edge"], ["cpu"])
    with pytest.raises(InputError, match="got edge on cpu, expected one of edge on openvino"):
        expect_common(report(), ["edge"], ["openvino"])
    strange = report(variants=(variant("int4", speedup=9),))
    with pytest.raises(InputError, match="no variant on a provider in common"):
        ratio_table(report(), strange)


def test_the_page_stands_alone_and_escapes_what_it_was_given() -> None:
    pytest.importorskip("matplotlib")
    text = render_page(report())
    page = Reader(text)
    assert page.loads == []
    assert "script" not in page.open
    assert page.open.count("svg") == 2
    assert "i" not in page.open
    for words in ("fer-edge bench 'a&b <i>'", "Core <9>", "numpy 2", "recorded in the manifest", "p99.9", "ab" * 32):
        assert words in page.words
    assert not re.search(r"@import|url\(\s*['\"]?http", text)
    assert render_page(report()) == text, "the same report draws the same page"


def test_a_busy_machine_is_owned_up_to() -> None:
    pytest.importorskip("matplotlib")
    busy = report(device={"cpu": "c", "cores": 2, "load_at_start": 1.9})
    assert "The machine was busy" in render_page(busy)
    assert "The machine was busy" not in render_page(report())


def test_a_page_without_accuracy_has_no_accuracy_plot() -> None:
    pytest.importorskip("matplotlib")
    bare = report(variants=(dataclasses.replace(variant("fp32", speedup=1), accuracy=None),))
    assert Reader(render_page(bare)).open.count("svg") == 1


def test_reports_are_written_and_read_back(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    json_file, html_file = tmp_path / "new" / "bench.json", tmp_path / "new" / "bench.html"
    report().write(json_file)
    write_page(report(), html_file)
    assert BenchReport.read(json_file) == report()
    assert html_file.read_text().startswith("<!doctype html>")


def test_the_page_names_the_package_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"fer-edge\[report\]"):
        write_page(report(), tmp_path / "bench.html")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema"),
        ({"variants": [{"bundle": "x"}]}, r"variants\[0\]\.sha256: missing"),
        ({"extra": 1}, "extra: unknown field"),
    ],
)
def test_foreign_json_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    report().write(file)
    value = report().to_json() | change
    with pytest.raises(InputError, match=message):
        BenchReport.from_json(value)
    file.write_text("[]")
    with pytest.raises(InputError, match=r"bench\.json"):
        BenchReport.read(file)
