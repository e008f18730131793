from __future__ import annotations

import json
from pathlib import Path

import pytest
from miniature import miniature_bundle, noise_dataset

from fer_edge.bench.engine_settings import measure_engines
from fer_edge.cli import main
from fer_edge.core.errors import BundleError


def test_every_setting_of_both_engines_is_timed_and_judged(tmp_path: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    said: set[str] = set()
    report = measure_engines(
        bundle,
        variants=("fp32",),
        data=noise_dataset(),
        rounds=2,
        command="here",
        progress=lambda what, done, total: said.add(what),
    )
    settings = {(row.engine, row.setting): row for row in report.settings}
    assert {"default", "spinning", "no arena", "no prepacking"} <= {name for engine, name in settings}
    assert settings["onnxruntime", "default"].over_default.median == 1
    assert settings["openvino", "open shapes"].least_ms["encoder"] > 0
    for engine in ("onnxruntime", "openvino"):
        shares = [row.share for row in report.operators if row.engine == engine]
        assert 0.5 < sum(shares) <= 1.001
    assert {(row.engine, row.shapes) for row in report.agreement} == {
        ("onnxruntime", "open"), ("openvino", "fixed"), ("openvino", "open"),
    }  # fmt: skip
    assert all(row.flip_rate == 0 for row in report.agreement)
    assert "timing the engines" in said
    json.dumps(report.to_json(), allow_nan=False)


def test_an_unknown_variant_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no variant 'int4'"):
        measure_engines(miniature_bundle(tmp_path / "bundle"), variants=("int4",), rounds=1)


def test_the_command_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    arguments = ["engines", str(bundle.path), "--variant", "fp32", "--rounds", "1"]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--json", str(tmp_path / "engines.json")])
    assert not exit_.value.code
    assert "where the encoder's time goes" in capsys.readouterr().out
    assert json.loads((tmp_path / "engines.json").read_text())["bundle"] == "miniature"
