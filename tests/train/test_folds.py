"""Fold teachers: both probes, soft labels of unseen faces alone, and a student of them; degradations of its faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training import ON_CPU, small_dataset, small_recipe, with_votes

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import prepare_stills
from fer_edge.data import Dataset
from fer_edge.data.folds import fold_numbers
from fer_edge.train import soft_labels as module
from fer_edge.train.augment import augment_faces
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.degrade import DEGRADATIONS, degrade
from fer_edge.train.recipe import AugmentSpec, TrainRecipe
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.soft_labels import SoftLabels, soft_labels, softened
from fer_edge.train.train import TrainInputs, train_fold, train_model

pytestmark = pytest.mark.train

FOLDS = 2


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return with_votes(small_dataset())


@pytest.fixture(scope="module")
def recipe() -> TrainRecipe:
    small = small_recipe()
    return replace(small, heads=("fer2013", "crowd"), augment=replace(small.augment, degrade=0.3))


@pytest.fixture(scope="module")
def teachers(dataset: Dataset, recipe: TrainRecipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainRun, ...]:
    folder = tmp_path_factory.mktemp("teachers")
    return tuple(
        train_fold(recipe, dataset, folder / f"{fold}", folds=FOLDS, fold=fold, options=ON_CPU) for fold in range(FOLDS)
    )


def test_a_face_is_judged_by_the_teacher_that_never_saw_it(
    teachers: tuple[TrainRun, ...], dataset: Dataset, recipe: TrainRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, asked = dataset.split("train"), {}

    def answer(teacher: object, images: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor]:
        asked[len(asked)] = images.clone()
        return torch.full((len(images), 7), 1 / 7), torch.full((len(images), 8), 1 / 8)

    monkeypatch.setattr(module, "_probabilities", answer)
    soft_labels(teachers, dataset)

    numbers, faces = (
        fold_numbers(train, FOLDS),
        prepare_stills(np.asarray(train.images), replace(recipe.preprocess, median=0)),
    )
    for fold in range(FOLDS):
        assert np.array_equal(asked[fold].numpy(), faces[numbers == fold])


def test_soft_labels_are_distributions_and_a_student_learns_from_them(
    teachers: tuple[TrainRun, ...], dataset: Dataset, recipe: TrainRecipe, tmp_path: Path
) -> None:
    soft = soft_labels(teachers, dataset, views=2)
    for found in (soft.labels, soft.crowd):
        assert torch.allclose(found.sum(dim=1), torch.ones(len(found)), atol=1e-4)

    student = train_model(recipe, dataset, tmp_path / "s", inputs=TrainInputs(teachers=teachers), options=ON_CPU)

    assert [each["training"]["fold"]["fold"] for each in student.record["teacher"]] == [0, 1]
    assert student.record["crowd"]["choose"]["n_first_choice"] > 0


def test_a_missing_fold_is_named(teachers: tuple[TrainRun, ...], dataset: Dataset) -> None:
    with pytest.raises(InputError, match="got 1 of fold 0/2, expected as many for every fold"):
        soft_labels(teachers[:1], dataset)


def test_targets_move_toward_soft_labels_but_not_those_of_negatives() -> None:
    one_hot = torch.eye(8)
    faces = DeviceFaces(
        images=torch.zeros(3, 8, 8, dtype=torch.uint8),
        labels=torch.tensor([0, 1, -1]),
        targets=torch.stack((one_hot[0, :7], one_hot[1, :7], torch.zeros(7))),
        crowd=torch.stack((one_hot[0], torch.zeros(8), one_hot[7])),
    )
    soft = SoftLabels(labels=torch.full((2, 7), 1 / 7), crowd=torch.full((2, 8), 1 / 8))

    found = softened(faces, soft, 0.5)

    assert found.crowd is not None
    assert found.targets[0, 0] == pytest.approx(0.5 + 0.5 / 7)
    assert found.crowd[0, 0] == pytest.approx(0.5 + 0.5 / 8)
    assert torch.allclose(found.crowd[1], torch.full((8,), 1 / 8)), "without votes the teachers alone are the target"
    assert torch.equal(found.crowd[2], one_hot[7])
    assert torch.equal(faces.targets[0], one_hot[0, :7]), "the given targets are unchanged"


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_a_degradation_changes_every_face_and_keeps_its_shape(name: str) -> None:
    faces = 255 * torch.rand(6, 1, 40, 40, generator=torch.Generator().manual_seed(1))

    found = DEGRADATIONS[name](faces.clone(), torch.Generator().manual_seed(2))

    assert found.shape == faces.shape
    assert bool(found.isfinite().all())
    assert bool(((found - faces).abs().mean(dim=(1, 2, 3)) > 1).all())


def test_jpeg_rounding_agrees_with_the_codec() -> None:
    cv2 = pytest.importorskip("cv2")
    ramp = np.linspace(40, 210, 48, dtype=np.float32)
    picture = np.rint(ramp + 20 * np.sin(ramp[:, None] / 9)).astype(np.uint8)
    light = torch.from_numpy(picture).float()[None, None]
    found = DEGRADATIONS["jpeg"](light, torch.Generator().manual_seed(0))[0, 0].numpy()

    differences = []
    for quality in range(3, 41):
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE).astype(np.float32)
        differences.append(np.abs(decoded - found.clip(0, 255)).mean())
    assert min(differences) < 1.0


def test_the_share_of_degraded_faces() -> None:
    faces = torch.full((2000, 8, 8), 128, dtype=torch.uint8)
    light = faces.unsqueeze(1).float() + torch.arange(8.0)
    generator = torch.Generator().manual_seed(0)

    changed = (degrade(light, 0.25, generator) != light).flatten(1).any(dim=1).float().mean()

    assert 0.2 < float(changed) < 0.3
    spec = AugmentSpec(degrade=1.0)
    assert augment_faces(faces[:32], spec, generator).dtype == torch.uint8
