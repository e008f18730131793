"""Pruned runs: of a run and of a bundle, resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from training import ON_CPU, RESUMED, small_dataset, small_recipe

from fer_edge.cli import main
from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import prepare_stills
from fer_edge.data import Dataset
from fer_edge.export.from_torch.run import export_run
from fer_edge.model.cost import encoder_macs
from fer_edge.train import batch_norm, linear_probe
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.linear_probe import face_contexts
from fer_edge.train.pretrained import load_network
from fer_edge.train.prune import prune_run
from fer_edge.train.recipe import OptimiserSpec, PruneRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun
from fer_edge.train.structured_pruning import PruneTarget
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train

SHORT = PruneRecipe(round_to=4, optimiser=OptimiserSpec(epochs=1, batch_size=32, ema_decay=0.5))
HALF = PruneTarget(macs=0.6)


class StopAfter:
    """Presses Ctrl-C at the n-th time that a step of a stage is told of."""

    def __init__(self, stage: str, times: int) -> None:
        self.stage, self.left = stage, times

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.left -= stage == self.stage
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(epochs=2), dataset, tmp_path_factory.mktemp("runs") / "parent", options=ON_CPU)


@pytest.fixture(scope="module")
def bundle(run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> BundleWeights:
    return BundleWeights(bundle=export_run(run, tmp_path_factory.mktemp("bundles") / "parent"))


@pytest.fixture(scope="module")
def pruned(run: TrainRun, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return prune_run(
        run, tmp_path_factory.mktemp("runs") / "pruned", dataset, target=HALF, recipe=SHORT, options=ON_CPU
    )


def test_a_pruned_run_is_a_run_like_any_other(run: TrainRun, pruned: TrainRun, dataset: Dataset) -> None:
    opened = TrainRun.open(pruned.path)
    model, _ = opened.load_model()
    facts = opened.record["pruning"]
    assert encoder_macs(model.config) == facts["macs_after"] <= 0.6 * encoder_macs(run.recipe.model)
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters_after"]
    assert opened.record["parent"]["choose"] == run.record["choose"]
    with pytest.raises(InputError, match="holds a run already"):
        prune_run(run, pruned.path, dataset, target=HALF, recipe=SHORT, options=ON_CPU)


def test_a_bundle_is_pruned_without_its_run(bundle: BundleWeights, tmp_path: Path) -> None:
    given = ["prune", str(bundle.path), "--parameters", "20_000", "--out", str(tmp_path / "pruned"), "--json"]
    given += ["--data", "synthetic:300@3", "--device", "cpu"]
    for setting in ("round_to=4", "optimiser.epochs=1", "optimiser.batch_size=64"):
        given += ["--set", setting]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    pruned = TrainRun.open(tmp_path / "pruned")
    assert json.loads(done.stdout)["pruning"] == pruned.record["pruning"]
    assert pruned.record["parent"]["sha256"] == bundle.bundle.sha256
    model, _ = pruned.load_model()
    assert sum(parameter.numel() for parameter in model.parameters()) <= 20_000
    assert bool(model.head.lda.fitted)


def test_a_pruned_run_is_trained_on_in_its_own_shape(pruned: TrainRun, tmp_path: Path) -> None:
    place = str(pruned.path)
    given = ["train", place, "--init", place, "--data", "synthetic:300@3", "--device", "cpu"]
    given += ["--out", str(tmp_path / "on"), "--set", "optimiser.epochs=1", "--set", "loss.label_smoothing=0"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    on = TrainRun.open(tmp_path / "on")
    assert on.recipe.model == pruned.recipe.model
    assert on.recipe.augment == pruned.recipe.augment
    assert on.recipe.loss.label_smoothing == 0
    assert on.record["init"]["choose"] == pruned.record["choose"]


def test_a_folder_that_is_neither_run_nor_bundle_names_no_recipe(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["train", str(tmp_path), "--data", "synthetic:300@3", "--out", str(tmp_path / "on")]
    )
    assert done.exit_code == 1
    assert "manifest.json" in done.output
    assert not (tmp_path / "on").exists()


def test_a_bundles_batch_norms_scale_again(bundle: BundleWeights, dataset: Dataset) -> None:
    """Folded scales are all one, by which nothing is ranked; restored they are their filters' deviation."""
    folded, restored = (
        model.encoder.cnn[1][1].weight.detach() for model in (bundle.load_model(), load_network(bundle, dataset).model)
    )
    assert torch.equal(folded, torch.ones_like(folded))
    assert float(restored.std() / restored.mean()) > 0.1


def test_a_bundles_probe_is_fitted(bundle: BundleWeights, dataset: Dataset) -> None:
    parent, recipe = load_network(bundle, dataset), bundle.recipe
    faces = DeviceFaces.load(
        dataset.split("train"), recipe.preprocess, recipe.loss, torch.device("cpu"), classes=recipe.model.classes
    )
    said = parent.probe(face_contexts(parent.model, faces.images)).argmax(dim=1)
    own = parent.classifier(faces.images).logits.argmax(dim=1)
    fitted, trained = (float((each == faces.labels).float().mean()) for each in (said, own))
    assert fitted > max(0.3, trained)


def test_the_fine_tuning_may_differ_from_the_parents_training(
    run: TrainRun, bundle: BundleWeights, dataset: Dataset, tmp_path: Path
) -> None:
    loss = replace(run.recipe.loss, label_smoothing=0.0)
    recipe = replace(SHORT, loss=loss, augment=replace(run.recipe.augment, mix=0.0, erase=0.05))
    out = tmp_path / "run"
    tuned = prune_run(run, out, dataset, target=HALF, recipe=recipe, teachers=(bundle, run), options=ON_CPU)
    assert tuned.recipe.loss == loss
    assert tuned.recipe.augment == recipe.augment
    assert tuned.recipe.optimiser.epochs == 1
    assert tuned.record["teacher"] == [bundle.identity, run.identity]
    assert tuned.record["parent"]["weights_sha256"] == run.identity["weights_sha256"]
    with pytest.raises(InputError, match="other settings"):
        prune_run(run, out, dataset, target=HALF, recipe=recipe, options=RESUMED)  # follows another


@pytest.mark.parametrize("place", [("frames", 3), ("classifier", 1)])
def test_it_is_resumed_to_the_same_end(
    place: tuple[str, int], run: TrainRun, pruned: TrainRun, dataset: Dataset, tmp_path: Path
) -> None:
    out, report = tmp_path / "run", StopAfter(*place)
    with pytest.raises(KeyboardInterrupt):
        prune_run(run, out, dataset, target=HALF, recipe=SHORT, options=RunOptions(device="cpu", progress=report))
    resumed = prune_run(run, out, dataset, target=HALF, recipe=SHORT, options=RESUMED)
    expected, got = (load_file(each.path / "model.safetensors") for each in (pruned, resumed))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_it_is_not_resumed_to_another_end(run: TrainRun, pruned: TrainRun, dataset: Dataset) -> None:
    other = PruneTarget(macs=0.5)
    with pytest.raises(InputError, match="other settings"):
        prune_run(run, pruned.path, dataset, target=other, recipe=SHORT, options=RESUMED)


def test_sorted_data_show_a_bundle_every_class(
    bundle: BundleWeights, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As class folders are read: the first faces are all of one expression."""
    train = dataset.split("train")
    ordered = train.subset(np.argsort(train.labels, kind="stable"))
    by_class = replace(dataset, splits={**dataset.splits, train.name: ordered})
    monkeypatch.setattr(linear_probe, "_FACES", 60)
    classifier = linear_probe.probe_of_faces(bundle.load_model(), by_class, bundle.recipe)
    assert classifier.weight.shape[0] == 7
    monkeypatch.setattr(batch_norm, "REFITTED_FACES", 60)
    faces = batch_norm.training_faces(by_class, bundle.preprocess).numpy()
    everyone = prepare_stills(np.asarray(ordered.images), bundle.preprocess)
    classes = {int(label) for face in faces for label in ordered.labels[(everyone == face).all(axis=(1, 2))]}
    assert classes == set(range(7))


def test_nothing_asked_is_nothing_done(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no target"):
        prune_run(run, tmp_path / "pruned", dataset, target=PruneTarget(), options=ON_CPU)
    assert not (tmp_path / "pruned").exists()
