from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from miniature import miniature_bundle

from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.calibrate.sensitivity import LayerCost, SensitivityReport
from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.files import sha256_bytes
from fer_edge.core.provenance import read_provenance
from fer_edge.data.dataset import Dataset

LENIENT = """
forms = ["int8"]
[sample]
size = 28
[gate]
max_top1_drop = 0.3
max_flip_rate = 0.3
max_ece_rise = 0.3
min_agreement = 0.7
agreement_rows = 30
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "lenient.toml"
    path.write_text(LENIENT)
    return path


def calibrate(bundle: Bundle, recipe: Path, *options: str, command: str = "calibrate") -> Result:
    arguments = [command, str(bundle.path), "--data", "synthetic:140", "--recipe", str(recipe), *options]
    return CliRunner().invoke(main, arguments)


def manifest_hash(bundle: Bundle) -> str:
    return sha256_bytes((bundle.path / "manifest.json").read_bytes())


def test_a_dry_run_measures_and_writes_nothing_but_the_sample(tmp_path: Path, recipe: Path) -> None:
    bundle, rows = miniature_bundle(tmp_path / "bundle"), tmp_path / "rows.json"
    result = calibrate(bundle, recipe, "--dry-run", "--sample-out", str(rows))
    assert result.exit_code == 0, result.output
    assert "miniature: fp32 and its INT8 forms" in result.stdout
    assert "x smaller" in result.stdout
    assert "McNemar" in result.stdout
    assert "FAILED" not in result.stdout
    assert "is unchanged" in result.stderr
    assert manifest_hash(bundle) == bundle.sha256
    sample = json.loads(rows.read_text())
    assert len(sample["rows"]) == sample["size"] == 28
    assert len(sample["sha256"]) == 64


def test_json_is_all_that_stands_on_stdout(tmp_path: Path, recipe: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    result = calibrate(bundle, recipe, "--json", "--set", "sample.size=21")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["passed"] is True
    assert record["calibration"]["sample"]["size"] == 21
    assert "written: int8 in" in result.stderr
    assert [variant.name for variant in Bundle.open(bundle.path).manifest.variants] == ["fp32", "int8"]


def test_a_failed_gate_ends_with_1_and_the_table(tmp_path: Path, recipe: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle", outlier=1e4)
    result = calibrate(bundle, recipe, "--set", "gate.max_flip_rate=0.01")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert result.stderr.startswith("error: INT8 lost more accuracy than the recipe allows, so nothing was written")
    assert "Traceback" not in result.output
    assert manifest_hash(bundle) == bundle.sha256


def test_sensitivity_is_a_table_and_a_file(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, record = miniature_bundle(tmp_path / "bundle"), tmp_path / "costs.json"
    cost = LayerCost(
        layer="cnn.0", node="/cnn/cnn.0/Conv", operator="Conv", parameters=72, quantized_by_recipe=False, top1=0.5,
        top1_drop=0.01, flip_rate=0.03, ece_rise=0.002, feature_sqnr_db=33.0, logit_sqnr_db=30.0,
    )  # fmt: skip

    def measured(opened: Bundle, dataset: Dataset, *, recipe: CalibrationRecipe, **more: object) -> SensitivityReport:
        return SensitivityReport(
            bundle={"name": opened.manifest.name, "sha256": opened.sha256}, parent="fp32", form=recipe.forms[0],
            split=dataset.split("choose").name, rows=recipe.sensitivity.rows, parent_top1=0.51, layers=(cost,),
            together=cost, sample={}, recipe=recipe, created="now", nncf="3",
        )  # fmt: skip

    monkeypatch.setattr("fer_edge.calibrate.sensitivity.measure_sensitivity", measured)
    options = ("--json", str(record), "--set", "sensitivity.rows=8")
    result = calibrate(bundle, recipe, *options, command="sensitivity")
    assert result.exit_code == 0, result.output
    assert "each layer quantized alone (int8), 8 rows" in result.stdout
    assert "+1.00" in result.stdout
    assert "left float" in result.stdout
    assert SensitivityReport.read(record).layers == (cost,)
    assert manifest_hash(bundle) == bundle.sha256


TWO_WAYS = """
[choice]
max_ece_rise = 0.3
[[candidates]]
name = "a"
[[candidates]]
name = "b"
set = ["ptq.activation_range=max"]
"""


def test_candidates_are_compared_and_the_rules_one_is_written(tmp_path: Path, recipe: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    recipe.write_text(LENIENT + TWO_WAYS)
    result = calibrate(bundle, recipe, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert [each["name"] for each in record["results"]] == ["a", "b"]
    written = Bundle.open(bundle.path)
    assert read_provenance(written).calibration["int8"]["choice"]["chosen"] == record["chosen"]


def test_where_no_candidate_may_ship_the_table_comes_before_the_error(tmp_path: Path, recipe: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle", outlier=1e4)
    recipe.write_text(LENIENT + TWO_WAYS)
    result = calibrate(bundle, recipe, "--set", "gate.max_flip_rate=0.01")
    assert result.exit_code == 1
    assert "candidate" in result.stdout
    assert "int8: got 2 candidates, expected one that passes the gate" in result.stderr
    assert manifest_hash(bundle) == bundle.sha256


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "gate.max_flip_rates=1"], "did you mean 'max_flip_rate'"),
        (["--set", "sample.size=100000"], "fewer than the 100,000"),
        (["--recipe", "defualt"], "did you mean 'default'"),
    ],
)
def test_what_cannot_be_ends_with_1_and_a_reason(tmp_path: Path, recipe: Path, options: list[str], words: str) -> None:
    result = calibrate(miniature_bundle(tmp_path / "bundle"), recipe, *options)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output
