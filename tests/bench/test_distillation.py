"""The comparison of distillation methods: its budget, its way to go on, and its committed result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import ROOT, load_script
from training import small_dataset, small_recipe

from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json

pytestmark = pytest.mark.train
WORKBENCH = ROOT / "bench"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    for package in ("torch", "safetensors", "sklearn"):
        pytest.importorskip(package)
    return load_script("bench/distillation.py")


def test_every_method_is_a_loss_that_the_shipped_student_can_be_trained_by(bench: ModuleType) -> None:
    from fer_edge.core.recipes import load_recipe
    from fer_edge.train.recipe import TrainRecipe

    recipe = load_recipe(TrainRecipe, str(WORKBENCH / "distillation.toml"), room="train")
    losses = [replace(recipe.loss, **(changes or {})) for changes in bench.METHODS.values()]
    taught = [loss for loss, changes in zip(losses, bench.METHODS.values(), strict=True) if changes is not None]
    assert len(set(taught)) == len(losses) - 1


def test_the_budget_draws_the_same_rows_and_leaves_the_leaked_out(bench: ModuleType) -> None:
    dataset = small_dataset()
    train, choose = dataset.split("train"), dataset.split("choose")
    images = np.array(choose.images)
    images[3] = train.images[0]
    splits = {**dataset.splits, choose.name: replace(choose, images=images)}
    dataset = replace(dataset, splits=splits)
    small = bench.reduced(dataset, 40)
    assert len(small.split("train")) == 40
    assert small.split("train").sha256 == bench.reduced(dataset, 40).split("train").sha256
    assert choose.rows[3] not in small.split("choose").rows
    assert len(small.split("choose")) == len(choose) - 1
    with pytest.raises(InputError, match="--rows must lie between 1 and"):
        bench.reduced(dataset, 10**6)


def test_a_student_that_is_done_is_read_and_another_budget_refused(bench: ModuleType, tmp_path: Path) -> None:
    from fer_edge.train.run_folder import RunOptions

    dataset, recipe = bench.reduced(small_dataset(), 64), small_recipe(epochs=1)
    logits, facts = bench.trained_student(recipe, dataset, tmp_path / "cell", None, RunOptions())
    assert logits.shape == (len(dataset.split("choose")), 7)
    again, same = bench.trained_student(recipe, dataset, tmp_path / "cell", None, RunOptions())
    assert np.array_equal(again, logits)
    assert same == facts
    with pytest.raises(InputError, match="begun with another budget"):
        bench.trained_student(small_recipe(epochs=2), dataset, tmp_path / "cell", None, RunOptions())


def test_the_committed_page_is_drawn_from_its_json(bench: ModuleType, tmp_path: Path) -> None:
    folder = WORKBENCH / "results" / "distillation"
    result = read_json(folder / "distillation.json")
    assert (folder / "README.md").read_text("utf-8") == bench.markdown(result)
    assert {each["method"] for each in result["results"]} == set(bench.METHODS)
    bench.write_report(tmp_path, result)
    assert (tmp_path / "distillation.png").read_bytes().startswith(b"\x89PNG")
