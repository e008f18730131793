"""Narrowing a network: how small, and with which weights left."""

from __future__ import annotations

import pytest
import torch
from training import trained_like

from fer_edge.core.errors import InputError
from fer_edge.model.cost import encoder_macs, parameter_count
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.recipe import PruneRecipe
from fer_edge.train.structured_pruning import Limits, PruneTarget, prune_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def model() -> AttentionCnnBiLstm:
    return trained_like()


def narrow(
    model: AttentionCnnBiLstm, *, round_to: int = 4, recurrent: float = 0.5, **target: float
) -> AttentionCnnBiLstm:
    recipe = PruneRecipe(round_to=round_to, recurrent=recurrent)
    limits = PruneTarget(**target).limits(model.config)  # type: ignore[arg-type]
    pruned, probe = prune_model(model, torch.nn.Linear(32, 7), limits=limits, recipe=recipe)
    assert probe.in_features == pruned.config.feature_size
    return pruned


def test_the_target_is_met_with_a_dense_model(model: AttentionCnnBiLstm) -> None:
    for share in (0.7, 0.45):
        pruned = narrow(model, macs=share)
        assert share - 0.2 < encoder_macs(pruned.config) / encoder_macs(model.config) <= share
        widths = (*pruned.config.channels, *(width for stage in pruned.config.blocks for width in stage))
        assert all(width % 4 == 0 for width in widths)
        assert pruned.config.spatial_hidden < model.config.spatial_hidden
        logits = pruned(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([3, 1]))
        assert torch.isfinite(logits).all()


def test_a_number_of_parameters_is_a_target_too(model: AttentionCnnBiLstm) -> None:
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_count(model.config) == whole
    wanted = round(0.6 * whole)
    pruned = narrow(model, parameters=wanted)
    assert 0.8 * wanted < sum(parameter.numel() for parameter in pruned.parameters()) <= wanted
    both = narrow(model, parameters=wanted, macs=0.3)
    assert encoder_macs(both.config) <= 0.3 * encoder_macs(model.config)
    with pytest.raises(InputError, match="expected less than"):
        PruneTarget(parameters=whole).limits(model.config)


def test_what_is_within_the_limits_already_is_left(model: AttentionCnnBiLstm) -> None:
    recipe = PruneRecipe()
    limits = Limits.of(model.config)
    pruned, _ = prune_model(model, torch.nn.Linear(32, 7), limits=limits, recipe=recipe)
    assert pruned.config == model.config
    assert pruned is not model


def test_pruning_away_nothing_but_zeros_changes_nothing() -> None:
    model = trained_like()
    dead = torch.arange(0, 16, 2)
    with torch.no_grad():
        for part in (model.encoder, model.head):
            for suffix in ("", "_reverse"):
                for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
                    part.bilstm.lstm.get_parameter(name + suffix).view(4, 16, -1)[:, dead] = 0
                part.bilstm.lstm.get_parameter(f"weight_hh_l0{suffix}")[:, dead] = 0
        columns = torch.cat((dead, dead + 16))
        for part in (model.encoder, model.head):
            part.attention.query.weight[:, columns] = 0
            part.attention.key.weight[:, columns] = 0
        model.encoder.shortcut.weight[columns] = 0
        model.encoder.shortcut.bias[columns] = 0
        model.encoder.output.weight[columns] = 0
        for suffix in ("", "_reverse"):
            model.head.bilstm.lstm.get_parameter(f"weight_ih_l0{suffix}")[:, columns] = 0
        model.head.lda.projection[columns] = 0
    pruned = narrow(model, round_to=8, recurrent=1.0, macs=0.5)
    assert pruned.config.spatial_hidden == 8
    kept = torch.arange(1, 32, 2)
    features = torch.zeros(2, 3, 32)
    features[..., kept] = torch.randn(2, 3, 16)
    length = torch.tensor([3, 2])
    with torch.no_grad():
        expected = model.head(features, length)[0]
        got = pruned.head(features[..., kept], length)[0]
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.7, 1e-4])
def test_impossible_targets_are_refused(model: AttentionCnnBiLstm, share: float) -> None:
    with pytest.raises(InputError, match="--macs"):
        narrow(model, macs=share)
