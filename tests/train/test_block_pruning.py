"""Residual blocks that add the same to every face go, and what is left computes the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from click.testing import CliRunner
from training import ON_CPU, small_config, small_dataset, small_recipe, trained_like

from fer_edge.cli import main
from fer_edge.export.from_torch.run import export_run
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.block_pruning import block_activities, without_blocks
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train


def faces(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@torch.no_grad()
def with_idle_blocks(convolution: Literal["dense", "separable"]) -> AttentionCnnBiLstm:
    """Stages 1 and 3 have an idle block behind one that works, stage 2 has one behind its convolution."""
    config = replace(small_config(convolution), blocks=((), (16, 8), (8,), (32, 16)))
    model = trained_like(config)
    for stage, layer in ((1, 1), (2, 0), (3, 1)):
        block = [part for part in model.encoder.cnn[stage].children() if hasattr(part, "branch")][layer]
        block.reduce[1].weight.zero_()
        block.reduce[1].bias.uniform_(-0.3, 0)
    return model


@pytest.mark.parametrize("convolution", ["dense", "separable"])
@torch.no_grad()
def test_without_idle_blocks_the_network_computes_the_same(convolution: Literal["dense", "separable"]) -> None:
    model, sample = with_idle_blocks(convolution), faces(24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    activities = block_activities(model, sample, size=7)
    assert [block.name.rpartition(".")[0] for block in activities] == ["cnn.1", "cnn.1", "cnn.2", "cnn.3", "cnn.3"]
    assert [block.share < 1e-4 for block in activities] == [False, True, True, False, True]
    assert min(activities[0].share, activities[3].share) > 0.2
    shallower = without_blocks(model, [block for block in activities if block.share < 0.2])
    assert shallower.config == replace(model.config, blocks=((), (16,), (), (32,)))
    for expected, got in zip(model.encoder(sample), shallower.encoder(sample), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_prune_leaves_idle_blocks_out_and_says_where_there_are_none(tmp_path: Path) -> None:
    run = train_model(small_recipe(epochs=1), small_dataset(), tmp_path / "run", options=ON_CPU)
    model, _ = run.load_model()
    shares = [block.share for block in block_activities(model.eval(), faces(64))]
    assert max(shares) < 1, "an epoch does not wake the blocks"
    given = ["prune", str(run.path), "--data", "synthetic:300@3", "--device", "cpu", "--json"]
    given += ["--set", "optimiser.epochs=1", "--set", "optimiser.batch_size=64"]
    done = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "shallow"), "--idle-blocks", "1.0"])
    assert done.exit_code == 0, done.output
    shallow = TrainRun.open(tmp_path / "shallow")
    assert shallow.recipe.model.blocks == ((), (), (), ())
    assert json.loads(done.stdout)["pruning"]["idle_blocks"] == 1.0
    assert shallow.record["pruning"]["macs_after"] < shallow.record["pruning"]["macs_before"]

    done = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "none"), "--idle-blocks", "1e-9"])
    assert done.exit_code == 1
    assert "no residual block of" in done.stderr
    assert "cnn.1.3" in done.stderr
    assert not (tmp_path / "none").exists()


def test_what_is_left_may_stay_as_it_is(tmp_path: Path) -> None:
    run = train_model(small_recipe(epochs=1), small_dataset(), tmp_path / "run", options=ON_CPU)
    bundle = export_run(run, tmp_path / "bundle")
    given = ["prune", str(bundle.path), "--data", "synthetic:300@3", "--device", "cpu", "--idle-blocks", "1.0"]
    given += ["--set", "fine_tune=false"]
    done = CliRunner().invoke(main, [*given, "--macs", "0.5", "--out", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "expected --idle-blocks alone" in done.stderr
    done = CliRunner().invoke(main, [*given, "--teacher", str(run.path), "--out", str(tmp_path / "none")])
    assert done.exit_code == 1
    assert "fine_tune=false: got the teacher" in done.stderr
    done = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "shallow")])
    assert done.exit_code == 0, done.output
    shallow, parent = TrainRun.open(tmp_path / "shallow").load_model()[0].head, run.load_model()[0].head
    for name, value in parent.bilstm.state_dict().items():
        torch.testing.assert_close(shallow.bilstm.state_dict()[name], value)
    again = export_run(TrainRun.open(tmp_path / "shallow"), tmp_path / "again")
    assert again.variant("fp32").encoder.macs < bundle.variant("fp32").encoder.macs
