"""What students learn from: one teacher, or several as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training import ON_CPU, RESUMED, StopAfter, small_dataset, small_recipe, trained_like

from fer_edge.core.errors import InputError
from fer_edge.data import Dataset
from fer_edge.train.distillation import Teachers, mean_logits
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.losses import distillation_losses
from fer_edge.train.run_folder import RunOptions, TrainRun
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(epochs=1), dataset, tmp_path_factory.mktemp("runs") / "teacher", options=ON_CPU)


def logits(rows: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, 7, generator=torch.Generator().manual_seed(seed)) * 3


def test_following_the_mean_of_teachers_is_following_each() -> None:
    student, others = logits().requires_grad_(), (logits(seed=1), logits(seed=2))
    (together,) = torch.autograd.grad(distillation_losses(student, mean_logits(others, 2.0), 2.0).mean(), student)
    each = torch.stack([distillation_losses(student, other, 2.0).mean() for other in others]).mean()
    (apart,) = torch.autograd.grad(each, student)
    assert torch.allclose(together, apart, atol=1e-6)


def test_a_folded_teacher_says_what_the_teacher_says() -> None:
    teacher, faces = FrameClassifier(trained_like()).eval(), torch.randint(0, 256, (4, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = teacher(faces).logits
    assert torch.allclose(Teachers([teacher]).logits(faces, 2.0), expected, atol=1e-4)


def test_a_taught_run_resumes_to_the_same_end(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    inputs, recipe = TrainInputs(teachers=(run,)), small_recipe(epochs=2)
    whole = train_model(recipe, dataset, tmp_path / "whole", inputs=inputs, options=ON_CPU)
    plain = train_model(recipe, dataset, tmp_path / "plain", options=ON_CPU)
    stopping = RunOptions(device="cpu", progress=StopAfter("frames", 9))
    with pytest.raises(KeyboardInterrupt):
        train_model(recipe, dataset, tmp_path / "run", inputs=inputs, options=stopping)
    resumed = train_model(recipe, dataset, tmp_path / "run", inputs=inputs, options=RESUMED)
    expected, got, untaught = (load_file(each.path / "model.safetensors") for each in (whole, resumed, plain))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert not torch.equal(untaught["probe/weight"], expected["probe/weight"])


def test_several_teachers_are_recorded_and_strangers_refused(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    recipe = replace(small_recipe(epochs=1), model=replace(run.recipe.model, channels=(8, 8, 16, 24)))
    student = train_model(recipe, dataset, tmp_path / "run", inputs=TrainInputs(teachers=(run, run)), options=ON_CPU)
    assert student.record["teacher"] == [run.identity, run.identity]
    other = replace(recipe, preprocess=replace(recipe.preprocess, median=0))
    with pytest.raises(InputError, match="got preprocessing"):
        train_model(other, dataset, tmp_path / "other", inputs=TrainInputs(teachers=(run,)), options=ON_CPU)
