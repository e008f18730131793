"""A trained network as the beginning of a narrower one: which shapes, which filters, and the training behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import ON_CPU, small_config, small_dataset, small_recipe

from fer_edge.core.errors import InputError
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.train import TrainInputs, train_model
from fer_edge.train.weight_transfer import can_shrink, shrunk

pytestmark = pytest.mark.train


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
