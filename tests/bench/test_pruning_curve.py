"""The curve of accuracy against multiply-accumulates, and the script that draws it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from scripts import ROOT, load_script
from training import ON_CPU, small_config, small_dataset, small_recipe

from fer_edge.core.errors import InputError
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def points() -> ModuleType:
    return load_script("bench/pruning_points.py")


@pytest.fixture(scope="module")
def script(points: ModuleType) -> ModuleType:
    return load_script("bench/pruning_curve.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(
        small_recipe(epochs=3), small_dataset(), tmp_path_factory.mktemp("runs") / "parent", options=ON_CPU
    )


def test_the_script_goes_on_where_it_was_broken_off(script: ModuleType, run: TrainRun, tmp_path: Path) -> None:
    def measure(*more: str) -> dict[str, object]:
        given = [str(run.path), "--data", "synthetic:300@3", "--out", str(tmp_path), "--device", "cpu"]
        given += ["--set", "round_to=4", "--set", "importance_rows=64", *more]
        done = CliRunner().invoke(script.main, given)
        assert done.exit_code == 0, done.output
        return dict(json.loads((tmp_path / "parent.json").read_text()))

    first = measure("--importance", "random", "--macs", "0.6")
    both = measure("--importance", "random", "--importance", "taylor", "--macs", "0.6")
    assert both["points"][0] == first["points"][0]
    assert [(each["importance"], each["target"]) for each in both["points"]] == [("random", 0.6), ("taylor", 0.6)]
    parent = both["parent_point"]
    for point in both["points"]:
        assert point["macs"] <= 0.6 * parent["macs"]
        assert point["parameters"] < parent["parameters"]
        assert 0 < point["top1_linear"] <= 1
        assert point["top1_tuned"] is None
    assert str(run.path) not in json.dumps(both["parent"])
    assert (tmp_path / "parent.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "parent.md").read_text()
    assert f"| taylor | {both['points'][1]['top1_linear']:.2%} |" in text
    given = [str(run.path), "--data", "synthetic:300@3", "--out", str(tmp_path), "--refit-rows", "300"]
    refused = CliRunner().invoke(script.main, given)
    assert refused.exit_code == 1
    assert "than measured before" in refused.output


def test_the_committed_tables_are_what_their_json_says(script: ModuleType) -> None:
    found = sorted((ROOT / "bench" / "results" / "pruning").glob("*.json"))
    for file in found:
        result = json.loads(file.read_text())
        assert script.markdown(result, file.stem) == file.with_suffix(".md").read_text("utf-8"), file
        assert file.with_suffix(".png").is_file(), file


def test_points_are_fine_tuned_where_epochs_are_given(script: ModuleType, run: TrainRun, tmp_path: Path) -> None:
    given = [str(run.path), "--data", "synthetic:300@3", "--out", str(tmp_path), "--device", "cpu", "--epochs", "1"]
    given += ["--set", "round_to=4", "--set", "optimiser.batch_size=32", "--importance", "bn-scale", "--macs", "0.6"]
    refused = CliRunner().invoke(script.main, given)
    assert "--runs" in refused.output
    done = CliRunner().invoke(script.main, [*given, "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    (point,) = json.loads((tmp_path / "parent.json").read_text())["points"]
    assert point["top1_tuned"] == TrainRun.open(tmp_path / "runs" / "bn-scale-0.6").record["frames_top1"]
    assert "## Fine-tuned" in (tmp_path / "parent.md").read_text()


def test_statistics_are_those_of_the_faces_shown(points: ModuleType) -> None:
    torch.manual_seed(0)
    model = AttentionCnnBiLstm(small_config()).eval()
    recipe = small_recipe()
    faces = DeviceFaces.load(
        small_dataset().split("train"), recipe.preprocess, recipe.loss, torch.device("cpu"), classes=7
    )
    points.refit_statistics(model, faces.images[:200])
    first = model.encoder.cnn[0]
    with torch.no_grad():
        seen = first[0](model.encoder.normalise(faces.images[:200]))
    assert torch.allclose(first[1].running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(first[1].running_var, seen.var(dim=(0, 2, 3)), rtol=1e-4)
    assert first[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_a_budget_of_a_few_faces_is_refused(points: ModuleType) -> None:
    with pytest.raises(InputError, match="refit_rows"):
        points.CurveBudget(refit_rows=10)
