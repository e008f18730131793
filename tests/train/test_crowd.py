"""The head `crowd`: targets, negatives among the clips, training alone on a frozen encoder, export of both heads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training import ON_CPU, small_dataset, small_recipe, with_votes

from fer_edge.core.bundle import Bundle
from fer_edge.core.crowd import crowd_accuracy
from fer_edge.core.errors import DataError, InputError, RecipeError
from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.labels import CROWD_LABELS, EXPRESSIONS
from fer_edge.core.metrics import softmax
from fer_edge.core.preprocess import prepare_stills
from fer_edge.data import Dataset
from fer_edge.data.negatives import TRAINED_NEGATIVES
from fer_edge.data.sampling import SampleRecipe
from fer_edge.export.from_torch.run import export_run
from fer_edge.export.model_card import model_card
from fer_edge.runtime.inference import Network
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.crowd import crowd_clips, fit_distributions, training_negatives
from fer_edge.train.feature_cache import ClipFeatures
from fer_edge.train.prune import prune_run
from fer_edge.train.qat import qat_run
from fer_edge.train.recipe import OptimiserSpec, PruneRecipe, QatRecipe, TrainRecipe
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.structured_pruning import PruneTarget
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return with_votes(small_dataset())


@pytest.fixture(scope="module")
def recipe() -> TrainRecipe:
    return replace(small_recipe(), heads=("fer2013", "crowd"))


@pytest.fixture(scope="module")
def run(dataset: Dataset, recipe: TrainRecipe, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(recipe, dataset, tmp_path_factory.mktemp("runs") / "both", options=ON_CPU)


@pytest.fixture(scope="module")
def bundle(run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_run(run, tmp_path_factory.mktemp("bundles") / "both")


class TestTargets:
    def test_negatives_and_faces_share_clips(self) -> None:
        count, frames, width = 40, 6, 3
        votes = np.zeros((count, 10), np.uint8)
        votes[:, FERPLUS_VOTES.index("happy")] = 8
        votes[:, FERPLUS_VOTES.index("unknown")] = 2
        votes[0] = 0
        votes[0, FERPLUS_VOTES.index("contempt")] = 10
        faces = ClipFeatures(
            features=torch.ones(count, frames, width).half(),
            stills=torch.ones(count, width).half(),
            rows=torch.arange(count).unsqueeze(1).expand(-1, frames).clone(),
            labels=torch.zeros(count, dtype=torch.int64),
        )
        clips = crowd_clips(faces, votes, torch.full((200, width), -1.0), seed=0)
        assert clips.targets is not None
        assert clips.targets[1].tolist() == pytest.approx([0, 0, 0, 0.8, 0, 0, 0, 0.2])
        assert clips.targets[count].tolist() == [0] * 7 + [1]
        assert (clips.rows[0] == -1).all(), "contempt alone gives no target"
        negative = clips.features[count:, :, 0] < 0
        assert torch.equal(negative, clips.rows[count:] >= count), "the row of a frame is that of what it shows"
        assert negative[:, -1].all(), "a clip ends with its negative"
        assert 0.3 < negative.all(dim=1).float().mean() < 0.7
        assert clips.labels[1] == EXPRESSIONS.index("happy")

    def test_a_share_of_every_trained_kind(self, dataset: Dataset) -> None:
        stills = dataset.split("train")
        made = training_negatives(stills, share=0.2, seed=0)
        each = round(0.2 * len(stills) / len(TRAINED_NEGATIVES))
        assert made.shape == (each * len(TRAINED_NEGATIVES), *stills.images.shape[1:])

    def test_the_probe_recovers_a_distribution(self) -> None:
        generator = torch.Generator().manual_seed(0)
        truth = torch.nn.Linear(5, 8)
        contexts = torch.randn(3000, 5, generator=generator)
        targets = torch.softmax(truth(contexts), dim=1).detach()
        found = torch.softmax(fit_distributions(contexts, targets)(contexts), dim=1)
        assert float((found - targets).detach().abs().max()) < 0.02


class TestTraining:
    def test_both_heads_are_trained_and_recorded(self, run: TrainRun) -> None:
        model, _ = TrainRun.open(run.path).load_model()
        assert model.crowd is not None
        assert model.crowd.classifier.out_features == len(CROWD_LABELS)
        assert model.crowd.lda.projection.shape[1] == 7
        assert bool(model.crowd.lda.fitted)
        assert run.record["crowd"]["choose"]["n_first_choice"] > 0
        assert run.record["class_frequencies"]["crowd"].keys() == set(EXPRESSIONS)

    def test_the_crowd_head_alone_keeps_encoder_and_other_head(
        self, bundle: Bundle, dataset: Dataset, recipe: TrainRecipe, tmp_path: Path
    ) -> None:
        origin = BundleWeights(bundle=bundle)
        alone = train_model(
            replace(recipe, heads=("crowd",), seed=1),
            dataset,
            tmp_path / "crowd",
            inputs=TrainInputs(init=origin, stage="sequence"),
            options=ON_CPU,
        )
        before, (after, _) = origin.load_model(), alone.load_model()
        assert before.crowd is not None
        assert after.crowd is not None
        faces = torch.from_numpy(np.array(prepare_stills(dataset.split("choose").images[:16], recipe.preprocess)))
        with torch.no_grad():
            features = before.encoder(faces)[0]
            assert torch.allclose(features, after.encoder(faces)[0], atol=1e-4)
            windows, length = features.unsqueeze(1), torch.ones(16, dtype=torch.int64)
            assert torch.allclose(before.head(windows, length)[0], after.head(windows, length)[0], atol=1e-4)
            assert not torch.allclose(before.crowd(windows, length)[0], after.crowd(windows, length)[0], atol=1e-2)

    def test_votes_are_required(self, recipe: TrainRecipe, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no FER\+ votes in .*, expected some for the head 'crowd'"):
            train_model(recipe, small_dataset(), tmp_path / "none", options=ON_CPU)

    def test_a_new_encoder_needs_the_other_head_too(
        self, dataset: Dataset, recipe: TrainRecipe, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="heads: got crowd, expected fer2013 too"):
            train_model(replace(recipe, heads=("crowd",)), dataset, tmp_path / "none", options=ON_CPU)

    @pytest.mark.parametrize("heads", [(), ("crowd", "crowd")])
    def test_bad_heads_are_refused(self, heads: tuple[str, ...]) -> None:
        with pytest.raises(RecipeError, match="heads: got"):
            TrainRecipe(heads=heads)  # type: ignore[arg-type]


class TestExport:
    def test_the_bundle_has_both_heads_on_one_encoder(self, run: TrainRun, bundle: Bundle, dataset: Dataset) -> None:
        variant = bundle.variant("fp32")
        assert variant.crowd is not None
        assert variant.crowd.temperature == run.record["crowd"]["temperature"]
        assert set(variant.parity) >= {"encoder", "head", "crowd"}
        assert len(list((bundle.path / "graphs").iterdir())) == 3
        split = dataset.split("choose")
        assert split.votes is not None
        frames = prepare_stills(np.asarray(split.images), bundle.manifest.preprocess)
        with Network.open(bundle, reading="crowd") as network:
            features = network.encode(np.asarray(frames))
            rows = network.probabilities(features[:, None], np.ones(len(features), np.int64))
        recorded = variant.crowd.metrics[split.name]
        measured = crowd_accuracy(rows, split.votes, threshold=variant.crowd.not_judgeable_threshold)
        assert measured.first_choice_top1 == pytest.approx(recorded.first_choice_top1, abs=0.02)
        assert measured.cross_entropy_bits == pytest.approx(recorded.cross_entropy_bits, abs=0.01)

    def test_the_card_has_the_figures_of_both_heads(self, bundle: Bundle) -> None:
        crowd = bundle.variant("fp32").crowd
        assert crowd is not None
        (figures,) = crowd.metrics.values()
        card = model_card(bundle)
        assert f"{figures.first_choice_top1:.2%} of {figures.n_first_choice:,}" in card
        assert "not judgeable" in card

    def test_the_record_is_plain_json(self, run: TrainRun) -> None:
        assert json.loads((run.path / "run.json").read_text())["recipe"]["heads"] == ["fer2013", "crowd"]

    def test_the_head_is_read_back_from_the_bundle(self, run: TrainRun, bundle: Bundle) -> None:
        model, _ = run.load_model()
        again = BundleWeights(bundle=bundle).load_model()
        assert model.crowd is not None
        assert again.crowd is not None
        windows, length = torch.randn(5, 4, model.config.feature_size), torch.tensor([1, 2, 3, 4, 4])
        with torch.no_grad():
            expected, got = (each(windows, length)[0].numpy() for each in (model.crowd, again.crowd))
        assert np.abs(softmax(expected) - softmax(got)).max() < 1e-4


def test_pruning_and_qat_keep_both_heads(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("nncf")
    short = OptimiserSpec(epochs=1, batch_size=64)
    plan = PruneRecipe(optimiser=short)
    pruned = prune_run(run, tmp_path / "pruned", dataset, target=PruneTarget(macs=0.7), recipe=plan, options=ON_CPU)
    assert pruned.record["crowd"]["choose"]["n_first_choice"] > 0

    settings = QatRecipe(optimiser=short, sample=SampleRecipe(size=64))
    rounded = qat_run(pruned, tmp_path / "rounded", dataset, recipe=settings, options=ON_CPU)
    bundle = export_run(rounded, tmp_path / "bundle")

    for name in ("fp32", "int8-qat", "int8-trt-qat"):
        crowd = bundle.variant(name).crowd
        assert crowd is not None
        assert crowd.temperature == rounded.record["crowd"]["temperature"]
