"""The sequence head on clips: windows as a camera fills them, features kept, a bundle to begin from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_bundle
from training import ON_CPU, small_dataset, small_recipe

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import prepare_stills
from fer_edge.data import Dataset
from fer_edge.export.from_torch.run import export_run
from fer_edge.train import feature_cache
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.feature_cache import ClipFeatures, FeatureExtractor
from fer_edge.train.linear_probe import face_contexts
from fer_edge.train.loop import no_progress
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.sequence_stage import FrameProbabilities, Windows, draw_windows
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(), dataset, tmp_path_factory.mktemp("runs") / "small", options=ON_CPU)


@pytest.fixture(scope="module")
def bundle(run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_run(run, tmp_path_factory.mktemp("bundles") / "small")


def numbered_clips(clips: int = 64, frames: int = 6) -> ClipFeatures:
    """Features that name their clip and frame; the still itself is frame -1; clip 0's third frame has no label."""
    clip, frame = torch.meshgrid(torch.arange(clips), torch.arange(frames), indexing="ij")
    rows = clip.clone()
    rows[0, 2] = -1
    alone = torch.stack((torch.arange(clips), torch.full((clips,), -1)), dim=1)
    return ClipFeatures(
        features=torch.stack((clip, frame), dim=2).half(),
        stills=alone.half(),
        rows=rows,
        labels=torch.arange(clips),
    )


def probabilities(bank: ClipFeatures) -> FrameProbabilities:
    """Class 0 for frames before the third, 1 for the others, 2 for stills."""
    frames = torch.eye(3)[(torch.arange(bank.rows.shape[1]) >= 3).long()].expand(len(bank), -1, -1)
    return FrameProbabilities(frames=frames.half(), stills=torch.eye(3)[[2]].expand(len(bank.stills), -1).half())


class TestWindows:
    def test_are_filled_as_a_camera_would(self) -> None:
        bank, generator = numbered_clips(), torch.Generator().manual_seed(0)
        sizes, partial, frozen, alone, backwards = set(), 0, 0, 0, 0
        for _ in range(60):
            windows = draw_windows(bank, probabilities(bank), torch.arange(64), 4, generator)
            assert (windows.rows >= 0).all()
            assert torch.equal(windows.features[:, -1, 0].long(), windows.rows), "the newest frame names the target"
            sizes.add(windows.features.shape[1])
            for features, length in zip(windows.features[..., 1].long(), windows.length.tolist(), strict=True):
                steps = len(features)
                assert 1 <= length <= steps
                assert (features[: steps - length + 1] == features[steps - length]).all(), "the oldest is repeated"
                moves = features[steps - length :].diff()
                assert set(moves.tolist()) in ({1}, {-1}, {0}, set())
                partial += length < steps
                frozen += length > 1 and set(moves.tolist()) == {0}
                backwards += set(moves.tolist()) == {-1}
                alone += bool((features == -1).all())
        assert sizes == {1, 2, 3, 4}
        assert min(partial, frozen, backwards, alone) > 100

    def test_a_frame_without_a_label_ends_none(self) -> None:
        bank, generator = numbered_clips(clips=1, frames=6), torch.Generator().manual_seed(1)
        for _ in range(60):
            windows = draw_windows(bank, probabilities(bank), torch.zeros(16, dtype=torch.int64), 4, generator)
            assert not (windows.features[:, -1, 1] == 2).any()

    def test_say_whether_the_expression_changes(self) -> None:
        bank, generator = numbered_clips(), torch.Generator().manual_seed(2)
        bank.rows[32:, 3:] = 5
        seen = set()
        for _ in range(20):
            windows = draw_windows(bank, probabilities(bank), torch.arange(64), 4, generator)
            frames = windows.features[..., 1]
            both = (frames < 3).any(dim=1) & (frames >= 3).any(dim=1) & (windows.features[:, 0, 0] >= 32)
            assert torch.equal(windows.changes, both | (windows.changes & (windows.features[:, 0, 0] == 0)))
            seen |= set(windows.changes.tolist())
        assert seen == {True, False}

    def test_are_guided_by_the_frames_that_show_the_same(self) -> None:
        bank, generator = numbered_clips(), torch.Generator().manual_seed(3)
        bank.rows[:, 3:] = 5
        for _ in range(20):
            windows = draw_windows(bank, probabilities(bank), torch.arange(6, 64), 4, generator)
            newest = windows.features[:, -1, 1]
            said = torch.where(newest < 0, 2, (newest >= 3).long())
            assert torch.equal(windows.soft, torch.eye(3)[said])

    def test_lean_toward_the_guide(self) -> None:
        bank = numbered_clips(clips=3)
        spec = replace(small_recipe().sequence, distil_weight=0.25, alone_distil_weight=0.5, change_weight=0.5)
        windows = Windows(
            features=torch.zeros(3, 2, 2),
            length=torch.tensor([2, 2, 1]),
            rows=torch.tensor([0, 1, 2]),
            changes=torch.tensor([False, True, False]),
            alone=torch.tensor([False, False, True]),
            soft=torch.eye(3)[[1, 1, 1]],
        )
        assert windows.targets(bank, spec).tolist() == [[0.75, 0.25, 0.0], [0.0, 0.5, 0.0], [0.0, 0.5, 0.5]]


class TestTheBank:
    def test_is_kept_for_the_next_head(
        self, run: TrainRun, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path))
        monkeypatch.setattr(feature_cache, "_PART", 64)
        model, _ = run.load_model()
        stills, device = dataset.split("train"), torch.device("cpu")
        first = FeatureExtractor(model, run.recipe, device, no_progress).training_clips(stills)
        assert len(list(tmp_path.rglob("*.safetensors"))) == -(-len(stills) // 64)
        (damaged,) = list(tmp_path.rglob("0000064.safetensors"))
        damaged.write_bytes(b"cut short")
        again = FeatureExtractor(model, run.recipe, device, no_progress).training_clips(stills)
        assert torch.equal(first.features, again.features)
        assert torch.equal(first.rows, again.rows)
        assert damaged.stat().st_size > 100, "what was damaged is encoded anew"

    def test_holds_what_the_encoder_says(self, run: TrainRun, dataset: Dataset) -> None:
        model, _ = run.load_model()
        stills = dataset.split("train")
        faces = FeatureExtractor(model, run.recipe, torch.device("cpu"), no_progress)
        images = np.asarray(stills.images[:6]).reshape(2, 3, *stills.images.shape[1:])
        frames = torch.from_numpy(prepare_stills(np.asarray(stills.images[:6]), run.recipe.preprocess))
        with torch.no_grad():
            expected = model.encoder(frames)[0].reshape(2, 3, -1)
        assert torch.allclose(faces(images), expected, atol=1e-4)


class TestFromABundle:
    def test_the_weights_come_back(self, run: TrainRun, bundle: Bundle) -> None:
        expected, _ = run.load_model()
        got = BundleWeights(bundle=bundle).load_model()
        frames = torch.randint(0, 256, (5, 16, 16), dtype=torch.uint8)
        length = torch.tensor([2, 1])
        with torch.no_grad():
            for before, after in zip(expected.encoder(frames), got.encoder(frames), strict=True):
                assert torch.allclose(before, after, atol=1e-4)
            windows = expected.encoder(frames[:4])[0].reshape(2, 2, -1)
            assert torch.allclose(expected.head(windows, length)[0], got.head(windows, length)[0], atol=1e-4)
        assert bool(got.head.lda.fitted)

    def test_other_weights_are_refused(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fer_edge.train.bundle_weights._GATES", (0, 1, 2, 3))
        with pytest.raises(InputError, match="differ from the graph's by"):
            BundleWeights(bundle=bundle).load_model()

    def test_another_architecture_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="got no model of this version"):
            BundleWeights(bundle=tiny_bundle(tmp_path / "tiny")).load_model()

    def test_the_head_alone(self, bundle: Bundle, dataset: Dataset, tmp_path: Path) -> None:
        origin = BundleWeights(bundle=bundle)
        alone = train_model(
            small_recipe(),
            dataset,
            tmp_path / "head",
            inputs=TrainInputs(init=origin, stage="sequence"),
            options=ON_CPU,
        )
        record = TrainRun.open(alone.path).record
        assert record["stage"] == "sequence"
        assert record["init"]["sha256"] == bundle.sha256
        assert record["init"]["training"]["data"] == record["data"]
        assert set(record["top1_by_window"]) == {"still_1", "still_4", "clip_1", "clip_4", "clip_averaged_4"}
        model, probe = alone.load_model()
        given = origin.load_model()
        images = np.asarray(dataset.split("train").images[:64])
        faces = torch.from_numpy(np.array(prepare_stills(images, alone.recipe.preprocess)))
        with torch.no_grad():
            for before, after in zip(given.encoder(faces), model.encoder(faces), strict=True):
                assert torch.allclose(before, after, atol=1e-4)
        for name in ("bilstm.lstm.weight_ih_l0", "lda.projection", "classifier.weight"):
            assert not torch.equal(model.head.state_dict()[name], given.head.state_dict()[name]), name

        # What goes on from this run does not know that it began with a bundle: nothing may be missing in it.
        folded, restored = (each.encoder.cnn[1][1].running_var for each in (given, model))
        assert torch.allclose(folded, torch.ones_like(folded), atol=1e-3)
        assert not torch.allclose(restored, torch.ones_like(restored), atol=0.1)
        labels = torch.from_numpy(np.array(dataset.split("train").labels[:64]))
        said = probe(face_contexts(model, faces)).argmax(dim=1)
        assert float((said == labels).float().mean()) > 0.3

    def test_needs_an_encoder(self, bundle: Bundle, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expected --init for the encoder"):
            train_model(
                small_recipe(), dataset, tmp_path / "none", inputs=TrainInputs(stage="sequence"), options=ON_CPU
            )
        origin = BundleWeights(bundle=bundle)
        other = replace(small_recipe(), preprocess=replace(small_recipe().preprocess, median=0))
        with pytest.raises(InputError, match="another shape or preprocessing"):
            train_model(
                other, dataset, tmp_path / "other", inputs=TrainInputs(init=origin, stage="sequence"), options=ON_CPU
            )

    def test_as_a_teacher(self, bundle: Bundle, dataset: Dataset, tmp_path: Path) -> None:
        origin = BundleWeights(bundle=bundle)
        taught = train_model(
            small_recipe(epochs=1), dataset, tmp_path / "taught", inputs=TrainInputs(teachers=(origin,)), options=ON_CPU
        )
        assert taught.record["teacher"] == origin.identity

    def test_is_told_of_once_beside_its_run(
        self, run: TrainRun, bundle: Bundle, dataset: Dataset, tmp_path: Path
    ) -> None:
        origin = BundleWeights(bundle=bundle)
        taught = train_model(
            small_recipe(epochs=1),
            dataset,
            tmp_path / "both",
            inputs=TrainInputs(teachers=(origin, run)),
            options=ON_CPU,
        )
        assert taught.record["teacher"] == [origin.identity, run.identity]
        first, second = taught.training["teacher"]
        assert first == origin.identity
        assert second == {key: value for key, value in run.identity.items() if key != "training"}
