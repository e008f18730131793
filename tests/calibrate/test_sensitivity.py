"""Layers quantized alone, with the real NNCF, on a miniature of the real encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from miniature import miniature_bundle, noise_dataset

from fer_edge.calibrate.recipe import CalibrationRecipe, PtqRecipe, SampleRecipe, SensitivityRecipe
from fer_edge.calibrate.sensitivity import SensitivityReport, measure_sensitivity
from fer_edge.core.files import sha256_file, write_json

RECIPE = CalibrationRecipe(
    forms=("int8-trt",),
    sample=SampleRecipe(size=14),
    ptq=PtqRecipe(float_nodes=("conv/inner_out",)),
    sensitivity=SensitivityRecipe(rows=40),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> SensitivityReport:
    """An outlier channel of the last convolution takes the steps of whatever reads its output."""
    bundle = miniature_bundle(tmp_path_factory.mktemp("sensitivity") / "bundle", outlier=1e4)
    before = sha256_file(bundle.path / "manifest.json")
    found = measure_sensitivity(bundle, noise_dataset(), recipe=RECIPE)
    assert sha256_file(bundle.path / "manifest.json") == before
    return found


def test_every_layer_that_can_be_quantized_is_measured_alone(report: SensitivityReport) -> None:
    assert [(cost.layer, cost.operator) for cost in report.layers] == [
        ("conv/stem_out", "Conv"),
        ("conv/inner_out", "Conv"),
        ("add/residual", "Add"),
        ("conv/last_out", "Conv"),
        ("averagepool/pooled", "AveragePool"),
        ("matmul/direct", "MatMul"),
        ("lstm/regions_Y", "LSTM"),
        ("matmul/scores", "MatMul"),
    ]
    left = [cost.layer for cost in report.layers if not cost.quantized_by_recipe]
    assert left == ["conv/inner_out", "matmul/direct", "matmul/scores"]
    assert report.rows == 40
    assert report.form == "int8-trt"


def test_the_layer_with_the_outlier_costs_most(report: SensitivityReport) -> None:
    first = min(report.layers, key=lambda cost: cost.logit_sqnr_db)
    assert first.layer == "averagepool/pooled"
    quiet = next(cost for cost in report.layers if cost.layer == "conv/inner_out")
    assert first.flip_rate > 0.2 > quiet.flip_rate
    assert first.logit_sqnr_db < 10 < quiet.logit_sqnr_db
    assert report.together.logit_sqnr_db <= first.logit_sqnr_db + 3


def test_it_is_json(report: SensitivityReport, tmp_path: Path) -> None:
    record = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert record["what"] == "sensitivity"
    assert [layer["layer"] for layer in record["layers"]][:2] == ["conv/stem_out", "conv/inner_out"]
    assert record["recipe"]["sample"]["size"] == 14
    write_json(tmp_path / "costs.json", {**record, "command": "fer-edge calibrate"})
    assert SensitivityReport.read(tmp_path / "costs.json") == report
