"""Augmentation, losses, schedule, windows, LDA, checkpoints: the pieces of training, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import stats

from fer_edge.core.errors import DataError, InputError, RecipeError
from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.recipe_overrides import override
from fer_edge.core.recipes import load_recipe
from fer_edge.model.layers import LinearDiscriminants
from fer_edge.train.augment import augment_faces, mix_faces
from fer_edge.train.batches import batches, seeded
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.losses import CentreLoss, class_weights, distillation_losses, soft_cross_entropy, soft_targets
from fer_edge.train.recipe import AugmentSpec, LossSpec, PruneRecipe, TrainRecipe

pytestmark = pytest.mark.train
CPU = torch.device("cpu")
STILL = AugmentSpec(
    rotation_degrees=0, scale=0, shift=0, shear=0, flip=0, gamma=0, gain=0, gradient=0, noise=0, blur=0, erase=0, mix=0
)


def faces(count: int = 8, size: int = 24) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_augmentation_of_strength_nought_changes_nothing() -> None:
    assert torch.equal(augment_faces(faces(), STILL, seeded(CPU, 1)), faces())


def test_flip_mirrors() -> None:
    always = AugmentSpec(**{**vars(STILL), "flip": 1.0})
    assert torch.equal(augment_faces(faces(), always, seeded(CPU, 1)), faces().flip(2))


def test_augmentation_repeats_by_seed_and_differs_between_faces() -> None:
    same = faces(1).expand(8, -1, -1)
    first = augment_faces(same, AugmentSpec(), seeded(CPU, 1))
    assert torch.equal(first, augment_faces(same, AugmentSpec(), seeded(CPU, 1)))
    assert not torch.equal(first, augment_faces(same, AugmentSpec(), seeded(CPU, 2)))
    assert len(torch.unique(first, dim=0)) == 8


def test_mixing_keeps_the_mass_of_the_targets() -> None:
    targets = torch.eye(8)
    always = AugmentSpec(mix=1.0)
    changed = 0
    for key in range(12):
        mixed, shares = mix_faces(faces(), targets, always, seeded(CPU, key))
        assert mixed.dtype == torch.uint8
        assert torch.allclose(shares.sum(dim=1), torch.ones(8))
        assert (shares.diagonal() >= 0.5 - 1e-6).all()
        changed += not torch.equal(mixed, faces())
    assert changed == 12


def test_votes_soften_the_label_and_rows_without_usable_votes_keep_it() -> None:
    votes = torch.zeros(2, 10, dtype=torch.uint8)
    votes[0, FERPLUS_VOTES.index("happy")] = 6
    votes[0, FERPLUS_VOTES.index("neutral")] = 4
    votes[1, FERPLUS_VOTES.index("not-a-face")] = 10
    spec = LossSpec(votes_weight=0.5, label_smoothing=0.0)
    target = soft_targets(torch.tensor([3, 0]), votes, spec, 7)
    assert target[0].tolist() == pytest.approx([0, 0, 0, 0.8, 0, 0, 0.2])
    assert target[1].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_soft_cross_entropy_is_torchs_on_hard_targets() -> None:
    logits, labels = torch.randn(16, 7), torch.arange(16) % 7
    expected = torch.nn.functional.cross_entropy(logits, labels)
    got = soft_cross_entropy(logits, torch.nn.functional.one_hot(labels, 7).float(), torch.ones(7))
    assert torch.allclose(got, expected)


def test_class_weights_favour_the_rare_and_average_to_one() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    weights = class_weights(labels, LossSpec(class_weights="inverse-sqrt"), 2)
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert weights[labels].mean() == pytest.approx(1.0)
    assert class_weights(labels, LossSpec(), 2).tolist() == [1.0, 1.0]


def test_distillation_is_nought_at_the_teacher_and_positive_elsewhere() -> None:
    logits = torch.randn(8, 7)
    assert (distillation_losses(logits, logits, 2.0).abs() < 1e-6).all()
    assert (distillation_losses(logits, -logits, 2.0) > 0).all()


def test_centres_move_toward_the_means_of_the_batch() -> None:
    loss = CentreLoss(3, 4, rate=0.5)
    context, labels = torch.ones(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    before = loss(context, labels)
    for _ in range(40):
        loss.update(context, labels)
    assert loss(context, labels) < 1e-6 < before
    assert (loss.centres[2] == 0).all()


def test_batches_cover_the_epoch_without_repeats() -> None:
    seen = torch.cat(list(batches(50, 8, seeded(CPU, 0))))
    assert len(seen) == 48
    assert len(seen.unique()) == 48
    assert [len(batch) for batch in batches(3, 8, seeded(CPU, 0))] == [3]


def test_lda_separates_as_scipys_eigenproblem_says() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(700) % 7
    means = rng.normal(size=(7, 12)) * 3
    samples = means[labels] + rng.normal(size=(700, 12))
    layer = LinearDiscriminants(12, 6)
    fit_discriminants(layer, torch.from_numpy(samples), torch.from_numpy(labels))
    projected = layer(torch.from_numpy(samples).float()).numpy()
    within = np.mean([projected[labels == label].var(axis=0) for label in range(7)], axis=0)
    np.testing.assert_allclose(within, 1, rtol=1e-3)
    separations = [stats.f_oneway(*(projected[labels == c, d] for c in range(7))).statistic for d in range(6)]
    assert separations == sorted(separations, reverse=True)
    assert bool(layer.fitted)


def test_lda_names_a_class_that_is_missing() -> None:
    with pytest.raises(DataError, match="at least two rows of 7 classes"):
        fit_discriminants(LinearDiscriminants(4, 6), torch.randn(30, 4), torch.arange(30) % 6)


def test_checkpoint_returns_what_was_saved(tmp_path: Path) -> None:
    tensors = {"a/x": torch.randn(3, 4), "b/n": torch.tensor(7)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"epoch": 3})
    got, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert facts == {"epoch": 3}
    assert all(torch.equal(got[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("loss.distil_weight=3", r"^--set: loss\.distil_weight: got 3, expected 0 to 1$"),
        ("augment.mix=4", r"^--set: augment\.mix: got 4, expected 0 to 1$"),
        ("optimiser.ema_decay=2", r"^--set: optimiser\.ema_decay: got 2, expected 0 to 0\.99999$"),
        ("sequence.change_weight=20", r"^--set: sequence\.change_weight: got 20, expected 0 to 10$"),
    ],
)
def test_a_setting_out_of_range_is_named_once_with_its_limits(setting: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        override(load_recipe(TrainRecipe, "small", room="train"), [setting])


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.full((2,), torch.nan)}, {})
    with pytest.raises(InputError, match="'a' holds NaN"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"c\.safetensors: cannot be read"):
        load_checkpoint(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(InputError, match="expected a file written by fer-edge"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("recipe", [TrainRecipe])
def test_seeds_are_not_negative(recipe: type[TrainRecipe] | type[PruneRecipe]) -> None:
    with pytest.raises(RecipeError, match="seed: got -1"):
        recipe(seed=-1)
