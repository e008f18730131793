"""From a folder of finished trainings to the committed report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from training import small_dataset, small_recipe

from fer_edge.core.errors import InputError

torch = pytest.importorskip("torch")

from fer_edge.paper.publish import PREPROCESSING_NAME, measure_trained, publish_study, read_preprocessing  # noqa: E402
from fer_edge.paper.recipe import StudyRecipe  # noqa: E402
from fer_edge.paper.report import StudyReport  # noqa: E402
from fer_edge.paper.results import RunResult, run_path, weights_path  # noqa: E402
from fer_edge.paper.systems import SYSTEMS  # noqa: E402
from fer_edge.paper.training import system_recipe, train_system  # noqa: E402

pytestmark = pytest.mark.train

RECIPE = StudyRecipe(seeds=(0,), extra_seeds=(0,), train=small_recipe(epochs=1))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which the complete system, one ablation and two of the preprocessing's systems are finished."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("complete", "no-attention", "no-median", "no-gcn"):
        result = train_system(
            system_recipe(SYSTEMS[name], RECIPE.train, 0),
            SYSTEMS[name],
            small_dataset(),
            device=torch.device("cpu"),
            weights=weights_path(folder, system=name, seed=0),
        )
        result.write(run_path(folder, system=name, seed=0))
    return folder


def test_the_report_of_an_unfinished_study(study: Path, tmp_path: Path) -> None:
    measured = measure_trained(study, RECIPE, small_dataset())
    written = publish_study(study, RECIPE, small_dataset(), tmp_path, recipe_name="small")
    assert written.preprocessing == measured
    assert StudyReport.read(tmp_path / "study.json") == written
    page = (tmp_path / "README.md").read_text("utf-8")
    assert "recipe `small` (1 epochs, 16x16 pixels" in page
    assert "| CNN-SVM | not run yet |" in page
    assert "network: the complete system in PyTorch, FP32, 1 thread(s)" in page
    assert {pair.system for pair in written.pairs} == {"no-attention", "no-median", "no-gcn"}


class TestMeasureTrained:
    def test_clean_accuracy_is_that_of_the_run(self, study: Path) -> None:
        measured = measure_trained(study, RECIPE, small_dataset())
        assert measured is not None
        run = RunResult.read(run_path(study, system="no-gcn", seed=0))
        assert run.report is not None
        clean = next(each for each in measured.conditions if each.system == "no-gcn" and each.corruption is None)
        assert clean.top1.mean == pytest.approx(run.report.right.mean())
        assert set(measured.seeds) == {"complete", "no-median", "no-gcn"}

    def test_is_kept_until_weights_change(self, study: Path) -> None:
        first = measure_trained(study, RECIPE, small_dataset())
        steps: list[int] = []
        again = measure_trained(study, RECIPE, small_dataset(), progress=lambda what, done, total: steps.append(done))
        assert (again, steps) == (first, [])
        path = study / PREPROCESSING_NAME
        kept = json.loads(path.read_text("utf-8"))
        kept["weights"]["complete-seed0.safetensors"] = "another"
        path.write_text(json.dumps(kept))
        renewed = measure_trained(study, RECIPE, small_dataset(), progress=lambda what, done, total: steps.append(done))
        assert renewed is not None
        assert first is not None
        assert dataclasses.replace(renewed, cost=None) == dataclasses.replace(first, cost=None)
        assert steps[-1] == 21

    def test_nothing_to_measure_yet(self, tmp_path: Path) -> None:
        assert measure_trained(tmp_path, RECIPE, small_dataset()) is None
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_measurement(self, tmp_path: Path) -> None:
        (tmp_path / PREPROCESSING_NAME).write_text("{}")
        with pytest.raises(InputError, match="preprocessing"):
            read_preprocessing(tmp_path)
