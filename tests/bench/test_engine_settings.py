"""The workbench's comparison of engine settings."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from miniature import miniature_bundle, noise_dataset
from scripts import ROOT, load_script

from fer_edge.core.errors import BundleError


@pytest.fixture(scope="module")
def script() -> ModuleType:
    for package in ("onnxruntime", "openvino", "onnx"):
        pytest.importorskip(package)
    return load_script("bench/engine_settings.py")


def test_every_setting_of_both_engines_is_timed_and_evaluated(script: ModuleType, tmp_path: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    result = script.measure_engines(bundle, ("fp32",), noise_dataset(), threads=1, rounds=2)
    settings = {(row["engine"], row["setting"]): row for row in result["settings"]}
    assert {"default", "spinning", "no arena", "no prepacking"} <= {name for engine, name in settings}
    assert settings["onnxruntime", "default"]["over_default"]["median"] == 1
    assert settings["openvino", "open shapes"]["least_ms"]["encoder"] > 0
    for engine in ("onnxruntime", "openvino"):
        shares = [row["share"] for row in result["operators"] if row["engine"] == engine]
        assert 0.5 < sum(shares) <= 1.001
    assert {(row["engine"], row["shapes"]) for row in result["agreement"]} == {
        ("onnxruntime", "open"), ("openvino", "fixed"), ("openvino", "open"),
    }  # fmt: skip
    assert all(row["flip_rate"] == 0 for row in result["agreement"])
    json.dumps(result, allow_nan=False)


def test_an_unknown_variant_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no variant 'int4'"):
        script.measure_engines(miniature_bundle(tmp_path / "bundle"), ("int4",), None, threads=1, rounds=1)


def test_the_script_writes_and_prints(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    measured = json.loads((ROOT / "bench/results/epyc-avx512/engines.json").read_text("utf-8"))
    monkeypatch.setattr(script, "measure_engines", lambda *_, **__: measured)
    arguments = [str(bundle.path), "--variant", "fp32", "--rounds", "1", "--json", str(tmp_path / "engines.json")]
    done = CliRunner().invoke(script.main, arguments)
    assert done.exit_code == 0, done.output
    assert "where the encoder's time goes" in done.output
    assert json.loads((tmp_path / "engines.json").read_text())["settings"] == measured["settings"]


def test_committed_results_are_printed(script: ModuleType) -> None:
    for file in (ROOT / "bench" / "results").glob("*/engines.json"):
        assert [table.title for table in script.tables(json.loads(file.read_text("utf-8")))][1:3] == [
            "where the encoder's time goes", "8-bit multiply-accumulates a second, in 1e9",
        ]  # fmt: skip
