from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from tiny import tiny_bundle

from fer_edge.bench import BenchReport
from fer_edge.bench.latency import measure_interleaved
from fer_edge.cli import main
from fer_edge.core.bundle import Bundle

BRIEF = ("--quick", "--rounds", "1", "--batch", "2")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_measures_and_writes(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/fer-edge", "bench", "some bundle"])
    file = tmp_path / "out" / "bench.json"
    result = run(bundle.path, *BRIEF, "--data", "synthetic:7", "--json", file, "--original", bundle.path, "--record")
    assert result.exit_code == 0, result.output
    assert "tiny/fp32" in result.stdout
    assert "McNemar" in result.stdout
    assert "against tiny/fp32 on the same provider" in result.stdout
    assert "synthetic test" not in result.stdout
    assert f"written: {file}" in result.stderr
    report = BenchReport.read(file)
    assert report.original == "tiny/fp32"
    assert report.command == "fer-edge bench 'some bundle'"
    assert (report.timing.rounds, report.timing.batch) == (1, 2)
    (variant,) = report.variants
    assert variant.accuracy is not None
    assert not variant.accuracy.recorded
    assert Bundle.open(bundle.path).variant("fp32").metrics == {"val": variant.accuracy.report}


def test_a_page(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(bundle.path, *BRIEF, "--html", tmp_path / "bench.html")
    assert result.exit_code == 0, result.output
    assert "<svg" in (tmp_path / "bench.html").read_text()


def test_another_run_is_shown_beside(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert run(bundle.path, *BRIEF, "--json", file).exit_code == 0
    result = run(bundle.path, *BRIEF, "--against", file)
    assert result.exit_code == 0, result.output
    assert "x there" in result.stdout
    assert "ratio: here over there" in result.stdout
    refused = run("base", *BRIEF, "--against", file)
    assert refused.exit_code == 1
    assert "got tiny on cpu, expected one of base on cpu" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "got 'nowhere', which does not exist"),
        (["BUNDLE", "--data", "fer2013:nowhere.csv"], "nowhere.csv"),
        (["BUNDLE", "--variant", "int4"], "expected one of fp32"),
        (["BUNDLE", "--provider", "abacus"], "provider: got 'abacus'"),
        (["BUNDLE", "--json", "BUNDLE/manifest.json/x.json"], "cannot write"),
        (["BUNDLE", "--against", "BUNDLE/manifest.json"], "manifest.json: "),
    ],
)
def test_a_users_error_is_one_line(bundle: Bundle, arguments: list[str], message: str) -> None:
    result = run(*(argument.replace("BUNDLE", os.fspath(bundle.path)) for argument in arguments))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_no_bundle_means_every_shipped_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_edge.bench.benchmark.zoo_names", lambda: (os.fspath(bundle.path),))
    result = run(*BRIEF)
    assert result.exit_code == 0, result.output
    assert "tiny/fp32" in result.stdout
    monkeypatch.setattr("fer_edge.bench.benchmark.zoo_names", lambda: ())
    assert "none is shipped" in run().stderr


def test_nothing_redraws_while_latency_is_measured(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads: list[list[str]] = []

    def watched(*arguments: object, **options: object) -> object:
        threads.append([thread.name for thread in threading.enumerate()])
        return measure_interleaved(*arguments, **options)  # type: ignore[arg-type]

    alone = [thread.name for thread in threading.enumerate()]
    monkeypatch.setattr("fer_edge.bench.benchmark.measure_interleaved", watched)
    monkeypatch.setattr("fer_edge.cli.console.console", Console(force_terminal=True, stderr=True))
    main(["bench", os.fspath(bundle.path), *BRIEF], standalone_mode=False)
    assert threads == [alone]
    assert "timing, interleaved" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--record"], ["--split", "both"], ["--after-idle", "0"]])
def test_arguments_that_make_no_sense_are_usage_errors(bundle: Bundle, arguments: list[str]) -> None:
    assert run(bundle.path, *arguments).exit_code == 2
