"""Networks that tell other expressions apart: CK+'s own seven, from training to the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import ON_CPU, small_dataset, small_recipe
from trees import write_cropped_ckplus

from fer_edge.bench import BenchOptions, Timing, run_bench
from fer_edge.bench.clips import run_clips
from fer_edge.core.errors import DataError
from fer_edge.core.label_sets import CKPLUS_EMOTIONS
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data import Dataset, load_dataset
from fer_edge.data.ckplus import split_by_subject
from fer_edge.export.from_torch.run import export_run
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.train.prune import prune_run
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.structured_pruning import PruneTarget
from fer_edge.train.train import TrainInputs, train_model

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    names = {f"S{10 + person:03}_{place:03}": name for person in range(4) for place, name in enumerate(CKPLUS_EMOTIONS)}
    tree = write_cropped_ckplus(tmp_path_factory.mktemp("ckplus"), names)
    return split_by_subject(load_dataset(f"ckplus:{tree}?labels=official"), fold=0, folds=4)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(
        small_recipe(epochs=1), small_dataset(), tmp_path_factory.mktemp("runs") / "ours", options=ON_CPU
    )


@pytest.fixture(scope="module")
def run(official: Dataset, ours: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    """From the weights of a network that tells our seven apart."""
    out = tmp_path_factory.mktemp("runs") / "official"
    return train_model(
        small_recipe(epochs=1, batch_size=16), official, out, inputs=TrainInputs(init=ours), options=ON_CPU
    )


def test_the_bundle_says_what_its_outputs_mean(run: TrainRun, official: Dataset, tmp_path: Path) -> None:
    assert run.labels == CKPLUS_EMOTIONS
    assert list(run.record["choose"]["per_class"]) == list(CKPLUS_EMOTIONS)
    bundle = export_run(run, tmp_path / "official")
    assert bundle.manifest.labels == CKPLUS_EMOTIONS
    with Recognizer(bundle, quality=None) as recognizer:
        estimate = recognizer.recognize(official.split("report").images[0])
    assert set(estimate.probabilities) == set(CKPLUS_EMOTIONS)
    timing = Timing.choose(quick=True, rounds=1, batch=2, idle_s=None)
    report = run_bench([bundle], data=official, options=BenchOptions(timing=timing))
    assert report.variants[0].accuracy is not None
    assert "contempt" in report.variants[0].accuracy.report.per_class
    with pytest.raises(DataError, match="expected those of the bundle official: angry, contempt"):
        run_bench([bundle], data=small_dataset(), options=BenchOptions(timing=timing))


def test_what_cannot_be_mixed(run: TrainRun, ours: TrainRun, official: Dataset, tmp_path: Path) -> None:
    assert ours.labels == EXPRESSIONS
    inputs = TrainInputs(teachers=(ours,))
    with pytest.raises(DataError, match=r"those of the teacher .*: angry, disgust"):
        train_model(small_recipe(epochs=1), official, tmp_path / "taught", inputs=inputs, options=ON_CPU)
    inputs = TrainInputs(init=ours, stage="sequence")
    with pytest.raises(DataError, match=r"those of the network .*: angry, disgust"):
        train_model(small_recipe(), official, tmp_path / "head", inputs=inputs, options=ON_CPU)
    bundle = export_run(ours, tmp_path / "ours")
    with pytest.raises(DataError, match=r"those of the bundle 'ours': angry, disgust"):
        run_clips(bundle, official)
    with pytest.raises(DataError, match="expected those of"):
        prune_run(run, tmp_path / "pruned", small_dataset(), target=PruneTarget(macs=0.5), options=ON_CPU)
