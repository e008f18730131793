"""Sharpness-aware steps: where the gradient is taken, and what is left behind."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from training import ON_CPU, small_dataset, small_recipe

from fer_edge.core.errors import RecipeError
from fer_edge.train.recipe import OptimiserSpec
from fer_edge.train.sam import sam_ascent
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


@pytest.fixture
def faces() -> Tensor:
    return torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def loss_of(network: nn.Module, faces: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(faces), torch.arange(len(faces)) % 3)


def test_the_loss_is_higher_there_and_nothing_is_left_of_it(network: nn.Sequential, faces: Tensor) -> None:
    loss = loss_of(network, faces)
    loss.backward()
    before = copy.deepcopy(network.state_dict())
    with sam_ascent(network, 0.5):
        climbed = loss_of(network, faces)
        moved = [(value - before[name]) / (before[name].abs() + 0.01) for name, value in network.named_parameters()]
    assert climbed.item() > loss.item() + 0.05
    assert torch.cat([each.detach().flatten() for each in moved]).norm().item() == pytest.approx(0.5, rel=1e-4)
    del before["1.num_batches_tracked"]  # that a batch was seen is counted, and read by nothing
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert network[1].momentum == 0.1


def test_the_weights_come_back_from_an_interrupted_step(network: nn.Sequential, faces: Tensor) -> None:
    loss_of(network, faces).backward()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(KeyboardInterrupt), sam_ascent(network, 2.0):
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_flat_loss_moves_nothing(network: nn.Sequential, faces: Tensor) -> None:
    (loss_of(network, faces) * 0).backward()
    before = copy.deepcopy(network.state_dict())
    with sam_ascent(network, 1.0):
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_training_takes_its_steps_so(tmp_path: Path) -> None:
    plain = small_recipe(epochs=1)
    dataset = small_dataset()
    weights = []
    for name, radius in (("plain", 0.0), ("none", 1e-9), ("flat", 1.0)):
        recipe = replace(
            plain, optimiser=replace(plain.optimiser, sam_radius=radius), loss=replace(plain.loss, dropout=0)
        )
        run = train_model(recipe, dataset, tmp_path / name, options=ON_CPU)
        weights.append(load_file(run.path / "model.safetensors")["model/encoder.cnn.0.0.weight"])
    plainly, nowhere, away = weights
    assert 0 < (plainly - nowhere).norm() < 0.1 * (plainly - away).norm()


def test_a_radius_below_nought_is_refused() -> None:
    with pytest.raises(RecipeError, match="sam_radius"):
        OptimiserSpec(sam_radius=-1.0)
