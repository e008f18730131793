"""Narrowing a network: how small, by which ranking, and with which weights left."""

from __future__ import annotations

import pytest
import torch
from training import small_config, small_dataset, small_recipe

from fer_edge.core.errors import InputError
from fer_edge.model.cost import encoder_macs, parameter_count
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.importance import Ranking, measure_ranking, ranking_faces
from fer_edge.train.loop import no_progress
from fer_edge.train.recipe import Importance, PruneRecipe
from fer_edge.train.structured_pruning import Limits, PruneTarget, prune_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def model() -> AttentionCnnBiLstm:
    """Untrained, with batch normalisations of all scales."""
    torch.manual_seed(0)
    model = AttentionCnnBiLstm(small_config()).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.1, 1.0)
    return model


def rank(model: AttentionCnnBiLstm, importance: Importance, *, seed: int = 0) -> Ranking:
    prune = PruneRecipe(importance=importance, importance_rows=96, seed=seed)
    torch.manual_seed(1)
    classifier = FrameClassifier(model, torch.nn.Linear(32, 7))
    faces = ranking_faces(small_dataset(), small_recipe(), prune, torch.device("cpu"))
    return measure_ranking(classifier, faces, small_recipe(), prune, no_progress)


def narrow(
    model: AttentionCnnBiLstm, ranking: Ranking, *, round_to: int = 4, recurrent: float = 0.5, **target: float
) -> AttentionCnnBiLstm:
    recipe = PruneRecipe(round_to=round_to, recurrent=recurrent)
    limits = PruneTarget(**target).limits(model.config)  # type: ignore[arg-type]
    pruned, probe = prune_model(model, torch.nn.Linear(32, 7), limits=limits, recipe=recipe, ranking=ranking)
    assert probe.in_features == pruned.config.feature_size
    return pruned


@pytest.mark.parametrize("importance", ["group-norm", "bn-scale", "taylor", "hessian", "random"])
def test_every_importance_meets_the_target_with_a_dense_model(
    model: AttentionCnnBiLstm, importance: Importance
) -> None:
    ranking = rank(model, importance)
    for share in (0.7, 0.45):
        pruned = narrow(model, ranking, macs=share)
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
    pruned = narrow(model, Ranking(importance="group-norm"), parameters=wanted)
    assert 0.8 * wanted < sum(parameter.numel() for parameter in pruned.parameters()) <= wanted
    both = narrow(model, Ranking(importance="group-norm"), parameters=wanted, macs=0.3)
    assert encoder_macs(both.config) <= 0.3 * encoder_macs(model.config)
    with pytest.raises(InputError, match="expected less than"):
        PruneTarget(parameters=whole).limits(model.config)


def test_what_is_within_the_limits_already_is_left(model: AttentionCnnBiLstm) -> None:
    recipe = PruneRecipe()
    limits = Limits.of(model.config)
    pruned, _ = prune_model(
        model, torch.nn.Linear(32, 7), limits=limits, recipe=recipe, ranking=Ranking(importance="random")
    )
    assert pruned.config == model.config
    assert pruned is not model


def test_steps_share_the_way() -> None:
    config = small_config()
    halves = PruneTarget(macs=0.25, parameters=4000)
    first, last = (halves.limits(config, step=step, steps=2) for step in (1, 2))
    whole = Limits.of(config)
    assert first.macs == pytest.approx(whole.macs / 2, abs=1)
    assert last == Limits(macs=whole.macs // 4, parameters=4000)
    assert first.parameters == pytest.approx((whole.parameters * 4000) ** 0.5, abs=1)


def test_filters_that_the_loss_does_not_need_go_first(model: AttentionCnnBiLstm) -> None:
    """Filters whose output nothing reads are large in norm and worth nothing: gradients see it, the norm does not."""
    narrowed = AttentionCnnBiLstm(model.config).eval()
    narrowed.load_state_dict(model.state_dict())
    block = narrowed.encoder.cnn[1][3]  # 16 filters between its two convolutions
    dead = torch.tensor([1, 2, 5, 7, 8, 11, 14, 15])
    with torch.no_grad():
        block.expand[0].weight[dead] *= 30
        block.reduce[0].weight[:, dead] = 0
        block.expand[1].weight[dead] = 1.0
    for importance in ("taylor", "hessian"):
        ranking = rank(narrowed, importance)
        kept = narrow(narrowed, ranking, round_to=8, macs=0.9).encoder.cnn[1][3].expand[0].weight.detach()
        assert kept.shape[0] == 8
        assert float(kept.abs().max()) < 5, f"{importance} kept a dead filter"
    by_norm = narrow(narrowed, Ranking(importance="group-norm"), round_to=8, macs=0.5).encoder.cnn
    assert float(by_norm[1][3].expand[0].weight.detach().abs().max()) > 5


def test_second_order_is_the_mean_of_single_rows_squared_gradients(model: AttentionCnnBiLstm) -> None:
    prune = PruneRecipe(importance="hessian", importance_rows=5)
    torch.manual_seed(1)
    classifier = FrameClassifier(model, torch.nn.Linear(32, 7)).eval()
    faces = ranking_faces(small_dataset(), small_recipe(), prune, torch.device("cpu"))
    found = measure_ranking(classifier, faces, small_recipe(), prune, no_progress).gradients["encoder.shortcut.weight"]
    squares = []
    for row in range(5):
        classifier.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            classifier(faces.images[row : row + 1]).logits, faces.targets[row : row + 1]
        )
        loss.backward()
        squares.append(model.encoder.shortcut.weight.grad.square())
    assert torch.allclose(found, torch.stack(squares).mean(dim=0), rtol=1e-4)
    assert not any(module.training for module in classifier.modules())


def test_the_random_ranking_follows_its_seed(model: AttentionCnnBiLstm) -> None:
    first, again, other = (
        narrow(model, rank(model, "random", seed=seed), macs=0.5).state_dict()["encoder.cnn.0.0.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not (first.shape == other.shape and torch.equal(first, other))


def test_gradients_are_asked_for() -> None:
    with pytest.raises(InputError, match="got no gradients"):
        Ranking(importance="taylor")


def test_pruning_away_nothing_but_zeros_changes_nothing() -> None:
    torch.manual_seed(0)
    model = AttentionCnnBiLstm(small_config()).eval()
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
    pruned = narrow(model, Ranking(importance="group-norm"), round_to=8, recurrent=1.0, macs=0.5)
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
        narrow(model, Ranking(importance="group-norm"), macs=share)
