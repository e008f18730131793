"""A trained network in another shape: deeper and wider with the same function, narrower with what matters kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from training import ON_CPU, small_config, small_dataset, small_recipe

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.export.from_torch.run import export_run
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batch_norm import refit_batch_norm
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.train import TrainInputs, train_model
from fer_edge.train.weight_transfer import can_grow, can_shrink, grown, shrunk

pytestmark = pytest.mark.train


def faces(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def deeper(config: ModelConfig) -> ModelConfig:
    blocks = (*config.blocks[:2], (*config.blocks[2], 8), (*config.blocks[3], 16))
    return replace(config, blocks=blocks)


def wider(config: ModelConfig) -> ModelConfig:
    blocks = tuple(tuple(width + 3 for width in widths) for widths in config.blocks)
    return replace(config, channels=tuple(channels + 5 for channels in config.channels), blocks=blocks)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("grow")
    run = train_model(small_recipe(epochs=1), small_dataset(), folder / "run", options=ON_CPU)
    return export_run(TrainRun.open(run.path), folder / "bundle")


def test_only_what_has_more_grows() -> None:
    config = small_config()
    assert can_grow(deeper(config), config)
    assert can_grow(wider(config), config)
    assert can_grow(deeper(wider(config)), config)
    assert can_grow(config, config)
    assert not can_grow(config, deeper(config))
    assert not can_grow(config, wider(config))
    assert not can_grow(replace(deeper(config), channels=tuple(width - 1 for width in config.channels)), config)
    assert not can_grow(replace(config, dense_growth=config.dense_growth + 1), config)


@pytest.mark.parametrize("grow", [deeper, wider, lambda config: deeper(wider(config))], ids=["deeper", "wider", "both"])
@pytest.mark.parametrize("convolution", ["dense", "separable"])
@torch.no_grad()
def test_a_larger_network_computes_the_same_at_first(
    grow: Callable[[ModelConfig], ModelConfig], convolution: Literal["dense", "separable"]
) -> None:
    torch.manual_seed(0)
    model = AttentionCnnBiLstm(replace(small_config(), convolution=convolution)).train()
    for _ in range(3):  # statistics of its own
        model.encoder(faces(8, 16))
    model.eval()
    larger = grown(model, grow(model.config)).eval()
    assert sum(map(torch.numel, larger.parameters())) > sum(map(torch.numel, model.parameters()))
    for ours, theirs in zip(larger.encoder(faces(4, 16)), model.encoder(faces(4, 16)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_what_is_new_in_a_wider_network_learns() -> None:
    torch.manual_seed(0)
    model = AttentionCnnBiLstm(small_config())
    larger = grown(model, wider(model.config)).train()
    step = torch.optim.SGD(larger.parameters(), lr=0.1)
    first = larger.encoder.cnn[1].get_parameter("0.weight")
    before, old = first.detach().clone(), model.config.channels[1]
    for _ in range(2):
        step.zero_grad()
        larger.encoder(faces(8, 16))[0].square().sum().backward()
        step.step()
    assert (first[:old, model.config.channels[0] :] != 0).any()
    assert (first[old:] != before[old:]).any()


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


def test_a_run_begins_from_a_shallower_bundle(bundle: Bundle, tmp_path: Path) -> None:
    origin = BundleWeights(bundle=bundle)
    recipe = small_recipe(epochs=1)
    recipe = replace(recipe, model=deeper(recipe.model))
    run = train_model(recipe, small_dataset(), tmp_path / "deeper", inputs=TrainInputs(init=origin), options=ON_CPU)
    assert run.record["init"]["sha256"] == bundle.sha256
    assert run.load_model()[0].config.blocks == recipe.model.blocks
    other = replace(recipe, model=replace(recipe.model, attention_size=64))
    with pytest.raises(InputError, match="more or fewer residual blocks"):
        train_model(other, small_dataset(), tmp_path / "other", inputs=TrainInputs(init=origin), options=ON_CPU)


def wide() -> ModelConfig:
    config = small_config()
    channels = tuple(2 * width for width in config.channels)
    blocks = tuple((2 * channels[0], *(2 * width for width in stage)) for stage in config.blocks)
    return replace(
        config,
        channels=channels,
        blocks=blocks,
        spatial_hidden=2 * config.spatial_hidden,
        temporal_hidden=2 * config.temporal_hidden,
        attention_size=2 * config.attention_size,
    )


def test_only_narrower_shapes_shrink() -> None:
    config = small_config()
    assert can_shrink(replace(config, blocks=((), (), (), ())), wide())
    assert can_shrink(replace(config, blocks=((), (), (), ()), dense_growth=config.dense_growth + 1), wide())
    assert can_shrink(wide(), wide())
    assert not can_shrink(wide(), config)
    assert not can_shrink(replace(wide(), token_grid=1), wide())
    assert can_shrink(replace(wide(), blocks=((*wide().blocks[0], 4), *wide().blocks[1:])), wide())
    assert not can_shrink(replace(wide(), blocks=((wide().blocks[0][0] + 1,), *wide().blocks[1:])), wide())


@torch.no_grad()
def test_what_matters_is_what_is_kept() -> None:
    """A network whose other filters and units do nothing computes the same without them."""
    torch.manual_seed(0)
    large = AttentionCnnBiLstm(wide()).eval()
    config = replace(
        wide(), channels=small_config().channels, blocks=tuple((stage[0], 3, 2) for stage in wide().blocks)
    )
    for stage, width in zip(large.encoder.cnn.children(), config.channels, strict=True):
        for module in stage.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
        silent = torch.randperm(2 * width)[width:]
        _, norm, _, first, *later = (part for part in stage.children() if not isinstance(part, torch.nn.MaxPool2d))
        for each in (norm, first.reduce[1]):
            each.weight[silent] = 0.0
            each.bias[silent] = 0.0
        for block in later:
            torch.nn.init.zeros_(block.reduce[1].weight)
    faces = torch.randint(0, 256, (4, config.input_size, config.input_size), dtype=torch.uint8)
    smaller, _ = shrunk(large, torch.nn.Linear(config.feature_size, 7), config)
    assert smaller.config == config
    expected, got = large.encoder(faces), smaller.encoder(faces)
    assert torch.allclose(got[0], expected[0], atol=1e-4)
    assert torch.allclose(got[1], expected[1], atol=1e-4)


def test_units_queries_and_the_classifier_are_cut_down() -> None:
    torch.manual_seed(0)
    large, config = AttentionCnnBiLstm(wide()), replace(small_config(), blocks=((), (), (), ()), dense_growth=5)
    probe = torch.nn.Linear(wide().feature_size, 7)
    smaller, narrow_probe = shrunk(large, probe, config)
    columns = {tuple(column) for column in probe.weight.T.tolist()}
    assert narrow_probe.weight.shape == (7, config.feature_size)
    assert {tuple(column) for column in narrow_probe.weight.T.tolist()} <= columns
    assert smaller.encoder.attention.key.weight.shape == (config.attention_size, config.feature_size)
    assert smaller.head.classifier.in_features == config.discriminants + config.dense_layers * 5


def test_a_run_begins_from_a_wider_one(tmp_path: Path) -> None:
    recipe, data = small_recipe(epochs=1), small_dataset()
    narrow = replace(recipe, model=replace(recipe.model, blocks=((), (), (), ()), dense_growth=16))
    large = train_model(replace(recipe, model=wide()), data, tmp_path / "wide", options=ON_CPU)
    run = train_model(
        narrow, data, tmp_path / "narrow", inputs=TrainInputs(init=large, teachers=(large,)), options=ON_CPU
    )
    assert TrainRun.open(run.path).load_model()[0].config == narrow.model
    assert run.record["init"]["weights_sha256"] == large.identity["weights_sha256"]
    with pytest.raises(InputError, match="either narrower layers or a wider CNN"):
        train_model(
            replace(recipe, model=wide()), data, tmp_path / "back", inputs=TrainInputs(init=run), options=ON_CPU
        )
