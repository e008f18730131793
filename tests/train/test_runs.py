"""Whole small trainings: resumed runs, pruned runs, data-parallel steps, bad input."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import small_config, small_dataset, small_recipe

from fer_edge.data import Dataset
from fer_edge.errors import InputError
from fer_edge.model.cost import encoder_macs
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.prune import prune_model, prune_run
from fer_edge.train.recipe import OptimiserSpec, PruneRecipe
from fer_edge.train.run import TrainRun
from fer_edge.train.trainer import train_model

pytestmark = pytest.mark.train


class StopAfter:
    """Presses Ctrl-C at a step of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self.place = (stage, step)

    def step(self, stage: str, done: int, total: int) -> None:
        if (stage, done) == self.place:
            raise KeyboardInterrupt

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        pass


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(epochs=3), dataset, tmp_path_factory.mktemp("runs") / "unbroken", device="cpu")


def test_a_finished_run_holds_what_export_needs(run: TrainRun) -> None:
    opened = TrainRun.open(run.path)
    assert opened.done
    assert opened.recipe == run.recipe
    assert not (run.path / "checkpoint.safetensors").exists()
    assert len(opened.record["history"]) == 3
    assert opened.record["history"][-1]["loss"] < opened.record["history"][0]["loss"]
    assert 0 < opened.record["temperature"] <= 20
    assert set(opened.record["top1_by_window"]) == {"still_1", "still_4", "clip_1", "clip_4", "clip_averaged_4"}
    assert str(run.path) not in (run.path / "run.json").read_text()
    model, _ = opened.load_model()
    assert bool(model.head.lda.fitted)


@pytest.mark.parametrize("place", [("frames", 4), ("frames", 13), ("context", 2), ("classifier", 1)])
def test_a_broken_run_resumes_to_the_same_end(
    place: tuple[str, int], run: TrainRun, dataset: Dataset, tmp_path: Path
) -> None:
    recipe = small_recipe(epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train_model(recipe, dataset, tmp_path / "run", device="cpu", report=StopAfter(*place))
    resumed = train_model(recipe, dataset, tmp_path / "run", resume=True, device="cpu")
    expected, got = (load_file(path / "model.safetensors") for path in (run.path, resumed.path))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    timeless = [
        [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in each.record["history"]]
        for each in (resumed, run)
    ]
    assert timeless[0] == timeless[1]


def test_a_run_is_not_trained_over(run: TrainRun, dataset: Dataset) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        train_model(small_recipe(), dataset, run.path, device="cpu")
    with pytest.raises(InputError, match="other settings"):
        train_model(small_recipe(epochs=9), dataset, run.path, resume=True, device="cpu")


def test_damaged_runs_are_named(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run\.json"):
        TrainRun.open(tmp_path)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_model(small_recipe(), dataset, broken, device="cpu", report=StopAfter("frames", 1))
    with pytest.raises(InputError, match="is not finished"):
        TrainRun.open(broken).load_model()


def test_a_split_that_is_missing_is_named(dataset: Dataset, tmp_path: Path) -> None:
    alone = replace(dataset, roles={"train": dataset.roles["train"]})
    with pytest.raises(InputError, match="no split to choose on"):
        train_model(small_recipe(), alone, tmp_path / "run", device="cpu")


@pytest.mark.parametrize("importance", ["group-norm", "bn-scale"])
@pytest.mark.parametrize("share", [0.7, 0.45])
def test_pruning_meets_the_target_with_a_dense_model(importance: str, share: float) -> None:
    torch.manual_seed(0)
    model = AttentionCnnBiLstm(small_config()).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.1, 1.0)
    recipe = PruneRecipe(importance=importance, round_to=4)  # type: ignore[arg-type]
    pruned = prune_model(model, torch.nn.Linear(32, 7), macs=share, recipe=recipe)
    before, after = pruned.macs
    assert before == encoder_macs(model.config)
    assert share - 0.2 < after / before <= share
    widths = (*pruned.config.channels, *(width for stage in pruned.config.blocks for width in stage))
    assert all(width % 4 == 0 for width in widths)
    assert pruned.config.spatial_hidden < model.config.spatial_hidden
    assert pruned.temporary.in_features == pruned.config.feature_size
    logits = pruned.model.eval()(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([3, 1]))
    assert torch.isfinite(logits).all()


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
    recipe = PruneRecipe(round_to=8, recurrent=1.0)
    pruned = prune_model(model, torch.nn.Linear(32, 7), macs=0.5, recipe=recipe)
    assert pruned.config.spatial_hidden == 8
    kept = torch.arange(1, 32, 2)
    features = torch.zeros(2, 3, 32)
    features[..., kept] = torch.randn(2, 3, 16)
    length = torch.tensor([3, 2])
    with torch.no_grad():
        expected = model.head(features, length)[0]
        got = pruned.model.eval().head(features[..., kept], length)[0]
    assert torch.allclose(got, expected, atol=1e-5)


def test_a_pruned_run_is_a_run_like_any_other(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    recipe = PruneRecipe(round_to=4, optimiser=OptimiserSpec(epochs=1, batch_size=32, ema_decay=0.5))
    pruned = prune_run(run, tmp_path / "pruned", dataset, macs=0.6, recipe=recipe, device="cpu")
    opened = TrainRun.open(pruned.path)
    model, _ = opened.load_model()
    assert encoder_macs(model.config) == opened.record["pruning"]["macs_after"]
    assert opened.record["pruning"]["macs_after"] <= 0.6 * encoder_macs(run.recipe.model)
    assert opened.record["parent"]["choose"] == run.record["choose"]


@pytest.mark.parametrize("share", [0.0, 1.0, 1.7, 1e-4])
def test_impossible_targets_are_refused(share: float) -> None:
    with pytest.raises(InputError, match="--macs"):
        prune_model(AttentionCnnBiLstm(small_config()), torch.nn.Linear(32, 7), macs=share, recipe=PruneRecipe())


def test_two_processes_take_the_step_that_one_takes(tmp_path: Path) -> None:
    """Loss and gradients of a global batch, batch norm in evaluation mode, by one process and by two under gloo."""
    script = Path(__file__).with_name("parallel_step.py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    subprocess.run(command, env=environment, check=True, timeout=120)
    peers = [
        subprocess.Popen(command, env={**environment, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [peer.wait(timeout=120) for peer in peers] == [0, 0]
    alone, together = (load_file(tmp_path / f"step-{world}.safetensors") for world in (1, 2))
    assert alone.keys() == together.keys()
    for name, gradient in alone.items():
        assert torch.allclose(together[name], gradient, atol=1e-6), name


def test_a_run_can_start_from_and_follow_another(run: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
    recipe = replace(run.recipe, optimiser=replace(run.recipe.optimiser, epochs=1, learning_rate=1e-9))
    further = train_model(recipe, dataset, tmp_path / "run", init=run, teacher=run, device="cpu")
    assert further.record["init"] == further.record["teacher"] == run.identity
    before, after = (load_file(path / "model.safetensors") for path in (run.path, further.path))
    name = "model/encoder.cnn.0.0.weight"
    assert torch.allclose(after[name], before[name], atol=1e-4)
    other = replace(recipe, model=replace(recipe.model, dense_growth=16))
    with pytest.raises(InputError, match="another shape"):
        train_model(other, dataset, tmp_path / "other", init=run, device="cpu")
