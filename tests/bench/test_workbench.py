"""The committed files of bench/ say what the code does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fer_edge.bench import BenchReport, Timing
from fer_edge.bench.clip_report import ClipReport, render_markdown
from fer_edge.bench.private_log import find_private_log
from fer_edge.bench.reference_cnn import REFERENCE_CHANNELS, REFERENCE_SIZE, reference_graph
from fer_edge.core.files import read_json, sha256_bytes
from fer_edge.sweep.report import SweepReport, render_page

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[2]
WORKBENCH = REPOSITORY / "bench"


def read(name: str) -> dict[str, Any]:
    if not WORKBENCH.is_dir():
        pytest.skip("bench/ is not part of the source distribution")
    return tomllib.loads((WORKBENCH / name).read_text("utf-8"))


def test_the_protocol_is_what_the_code_does() -> None:
    protocol = read("protocol.toml")
    reference = protocol["reference_cnn"]
    assert reference["channels"] == list(REFERENCE_CHANNELS)
    assert reference["input"] == [REFERENCE_SIZE, REFERENCE_SIZE, 1]
    assert reference["sha256"] == sha256_bytes(reference_graph())
    usual = Timing()
    assert protocol["timing"] == {name: getattr(usual, name) for name in protocol["timing"]}
    assert find_private_log(REPOSITORY) == REPOSITORY / protocol["data"]["log"]


def test_peers_are_labelled_as_measured_elsewhere() -> None:
    peers = read("peers.toml")
    assert peers["measured"] == "elsewhere"
    for peer in peers["peer"]:
        assert {"name", "source", "parameters", "input", "x"} <= peer.keys()
        assert peer["x"] > 0
        assert ("private_top1" in peer) == ("public_top1" in peer)
    assert all({"name", "source", "private_top1"} <= entry.keys() for entry in peers["published"])


def test_what_the_sequence_buys_is_drawn_from_its_json() -> None:
    read("protocol.toml")
    found = sorted((WORKBENCH / "results" / "sequence").glob("*.json"))
    for file in found:
        report = ClipReport.read(file)
        assert render_markdown(report) == file.with_suffix(".md").read_text("utf-8"), file
        assert report.data.split in file.stem
    if not found:
        pytest.skip("there is no result in bench/results/sequence")


def test_committed_benchmarks_follow_the_schema() -> None:
    read("protocol.toml")
    for file in (WORKBENCH / "results").glob("*/*.json"):
        if read_json(file).keys() >= {"device", "timing", "reference"}:
            assert BenchReport.read(file).variants, file


def test_a_sweeps_page_is_what_its_json_says() -> None:
    read("protocol.toml")
    found = sorted((WORKBENCH / "results").rglob("pareto.json"))
    for file in found:
        report = SweepReport.read(file)
        assert report.busy is None, f"{file} was measured on a busy machine, where x is off"
        drawn = file.with_suffix(".png").is_file()
        assert render_page(report, plot=drawn) == file.with_suffix(".md").read_text("utf-8"), (
            f"the page is of an older version: fer-edge pareto {file} --out {file.parent}{' --png' * drawn}"
        )
    if not found:
        pytest.skip("there is no pareto.json in bench/results")
