"""Training on from a bundle: its normalisations are refitted, and its shape is the recipe's."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import ON_CPU, small_dataset, small_recipe

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.export.from_torch.run import export_run
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batch_norm import refit_batch_norm
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train


def faces(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("grow")
    run = train_model(small_recipe(epochs=1), small_dataset(), folder / "run", options=ON_CPU)
    return export_run(TrainRun.open(run.path), folder / "bundle")


@torch.no_grad()
def test_refitted_normalisations_compute_the_same_in_both_modes(bundle: Bundle) -> None:
    model = BundleWeights(bundle=bundle).load_model()
    sample = faces(64, model.config.input_size)
    alone = torch.ones(len(sample), dtype=torch.int64)
    before = (model.encoder(sample)[0], model(sample.unsqueeze(1), alone))
    unfitted = _in_training(model, sample, alone)
    refit_batch_norm(model, sample, size=24)
    after = (model.encoder(sample)[0], model(sample.unsqueeze(1), alone))
    for expected, evaluated, trained, was in zip(
        before, after, _in_training(model, sample, alone), unfitted, strict=True
    ):
        assert torch.allclose(evaluated, expected, atol=1e-4)
        assert torch.allclose(trained, expected, atol=1e-3)
        assert (was - expected).abs().max() > 0.01


def _in_training(model: AttentionCnnBiLstm, sample: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Features and logits where the CNN's and the DenseNet block's normalisations go by the batch."""
    training = copy.deepcopy(model).eval()
    training.encoder.cnn.train()
    features = training.encoder(sample)[0]
    training.encoder.cnn.eval()
    training.head.reconstruction.train()
    return features, training(sample.unsqueeze(1), length)


def test_a_run_begins_from_a_bundle_of_its_shape_alone(bundle: Bundle, tmp_path: Path) -> None:
    origin, recipe = BundleWeights(bundle=bundle), small_recipe(epochs=1)
    run = train_model(recipe, small_dataset(), tmp_path / "on", inputs=TrainInputs(init=origin), options=ON_CPU)
    assert run.record["init"]["sha256"] == bundle.sha256
    other = replace(recipe, model=replace(recipe.model, attention_size=64))
    with pytest.raises(InputError, match="got another shape"):
        train_model(other, small_dataset(), tmp_path / "other", inputs=TrainInputs(init=origin), options=ON_CPU)
