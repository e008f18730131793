"""Whole small trainings: resumed runs, data-parallel steps, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training import ON_CPU, RESUMED, StopAfter, small_dataset, small_recipe

from fer_edge.core.errors import DataError, InputError
from fer_edge.core.files import claimed
from fer_edge.data import Dataset
from fer_edge.train.run_folder import RunOptions, TrainRun
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(epochs=3), dataset, tmp_path_factory.mktemp("runs") / "unbroken", options=ON_CPU)


def test_a_finished_run_holds_what_export_needs(run: TrainRun) -> None:
    opened = TrainRun.open(run.path)
    assert opened.done
    assert opened.recipe == run.recipe
    assert not (run.path / "checkpoint.safetensors").exists()
    assert len(opened.record["history"]) == 3
    assert opened.record["history"][-1]["loss"] < opened.record["history"][0]["loss"]
    assert 0 < opened.record["temperature"] <= 20
    assert set(opened.record["top1_by_window"]) == {"still_1", "still_4", "clip_1", "clip_4", "clip_averaged_4"}
    assert str(run.path) not in (run.path / "run.json").read_text()
    model, _ = opened.load_model()
    assert bool(model.head.lda.fitted)


@pytest.mark.parametrize("place", [("frames", 4), ("frames", 13), ("context", 2), ("classifier", 1)])
def test_a_broken_run_resumes_to_the_same_end(
    place: tuple[str, int], run: TrainRun, dataset: Dataset, tmp_path: Path
) -> None:
    recipe = small_recipe(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train_model(recipe, dataset, tmp_path / "run", options=RunOptions(device="cpu", progress=StopAfter(*place)))
    resumed = train_model(recipe, dataset, tmp_path / "run", options=RESUMED)
    expected, got = (load_file(path / "model.safetensors") for path in (run.path, resumed.path))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    timeless = [
        [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in each.record["history"]]
        for each in (resumed, run)
    ]
    assert timeless[0] == timeless[1]


def test_a_run_is_not_trained_over(run: TrainRun, dataset: Dataset) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        train_model(small_recipe(), dataset, run.path, options=ON_CPU)
    with pytest.raises(InputError, match="other settings"):
        train_model(small_recipe(epochs=9), dataset, run.path, options=RESUMED)


def test_damaged_runs_are_named(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got no run\.json"):
        TrainRun.open(tmp_path)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_model(small_recipe(), dataset, broken, options=RunOptions(device="cpu", progress=StopAfter("frames", 1)))
    with pytest.raises(InputError, match="is not finished"):
        TrainRun.open(broken).load_model()


def test_a_split_that_is_missing_is_named(dataset: Dataset, tmp_path: Path) -> None:
    alone = replace(dataset, roles={"train": dataset.roles["train"]})
    with pytest.raises(DataError, match="no split to choose on"):
        train_model(small_recipe(), alone, tmp_path / "run", options=ON_CPU)


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there_is_named_before_anything_is_begun(
    dataset: Dataset, tmp_path: Path, device: str
) -> None:
    with pytest.raises(InputError, match=f"device: got '{device}'"):
        train_model(small_recipe(), dataset, tmp_path / "run", options=RunOptions(device=device))
    assert not (tmp_path / "run").exists()


def test_faces_to_choose_on_that_all_leaked_are_refused_before_anything_is_begun(
    dataset: Dataset, tmp_path: Path
) -> None:
    copied = replace(dataset.split("train"), name=dataset.split("choose").name)
    leaking = replace(dataset, splits={**dataset.splits, copied.name: copied})
    with pytest.raises(DataError, match=r"every face of .* is in the training split too"):
        train_model(small_recipe(), leaking, tmp_path / "run", options=ON_CPU)
    assert not (tmp_path / "run").exists()


def test_one_training_at_a_time_works_in_a_folder(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_model(
            small_recipe(), dataset, tmp_path / "run", options=RunOptions(device="cpu", progress=StopAfter("frames", 1))
        )
    before = (tmp_path / "run" / "run.json").read_bytes()
    with claimed(tmp_path / "run"), pytest.raises(InputError, match="another process is training in"):
        train_model(small_recipe(), dataset, tmp_path / "run", options=RESUMED)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_other_votes_are_other_data(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_model(
            small_recipe(), dataset, tmp_path / "run", options=RunOptions(device="cpu", progress=StopAfter("frames", 1))
        )
    train = dataset.split("train")
    votes = np.zeros((len(train), 10), np.uint8)
    voted = replace(dataset, splits={**dataset.splits, train.name: replace(train, votes=votes)})
    assert voted.sha256 == dataset.sha256
    with pytest.raises(InputError, match=r"other FER\+ votes"):
        train_model(small_recipe(), voted, tmp_path / "run", options=RESUMED)


def test_a_run_can_start_from_and_follow_another(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    recipe = replace(run.recipe, optimiser=replace(run.recipe.optimiser, epochs=1, learning_rate=1e-9))
    further = train_model(
        recipe, dataset, tmp_path / "run", inputs=TrainInputs(init=run, teachers=(run,)), options=ON_CPU
    )
    assert further.record["init"] == further.record["teacher"] == run.identity
    assert further.training["init"] == run.identity
    assert further.training["teacher"] == {key: value for key, value in run.identity.items() if key != "training"}
    before, after = (load_file(path / "model.safetensors") for path in (run.path, further.path))
    name = "model/encoder.cnn.0.0.weight"
    assert torch.allclose(after[name], before[name], atol=1e-4)
    other = replace(recipe, model=replace(recipe.model, attention_size=2 * recipe.model.attention_size))
    with pytest.raises(InputError, match="another shape"):
        train_model(other, dataset, tmp_path / "other", inputs=TrainInputs(init=run), options=ON_CPU)
