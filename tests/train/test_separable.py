"""Depthwise separable convolutions go every way that dense ones go: pruned, narrowed, exported, rounded, read back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training import ON_CPU, small_config, small_dataset, small_recipe, trained_like

from fer_edge.calibrate.calibration import measure_forms
from fer_edge.calibrate.recipe import CalibrationRecipe, GateLimits
from fer_edge.core.bundle import Bundle
from fer_edge.data.sampling import SampleRecipe
from fer_edge.export.from_torch.run import export_run
from fer_edge.graph.cost import graph_macs
from fer_edge.graph.graph import Graph
from fer_edge.model.cost import encoder_macs, parameter_count
from fer_edge.model.fake_quantization import plain_state, quantised, quantisers
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.runtime import Network
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.importance import Ranking
from fer_edge.train.nncf_ranges import calibrate_ranges
from fer_edge.train.recipe import PruneRecipe, SparsitySpec
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.sparsity import two_of_four
from fer_edge.train.structured_pruning import PruneTarget, prune_model
from fer_edge.train.train import train_model
from fer_edge.train.weight_transfer import can_shrink, shrunk

pytestmark = pytest.mark.train

SEPARABLE = small_config("separable")
GENEROUS = GateLimits(max_top1_drop=0.5, max_flip_rate=0.9, max_ece_rise=0.5, min_agreement=0.1, agreement_rows=40)


def faces(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (count, 16, 16), dtype=np.uint8))


@pytest.fixture(scope="module")
def model() -> AttentionCnnBiLstm:
    return trained_like(SEPARABLE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    recipe = replace(small_recipe(), model=SEPARABLE)
    return train_model(recipe, small_dataset(), tmp_path_factory.mktemp("runs") / "separable", options=ON_CPU)


@pytest.fixture(scope="module")
def bundle(run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_run(run, tmp_path_factory.mktemp("bundles") / "separable")


def test_it_has_a_fraction_of_the_weights_and_begins_as_its_shortcuts() -> None:
    assert parameter_count(SEPARABLE) < 0.6 * parameter_count(small_config())
    shallow = AttentionCnnBiLstm(replace(SEPARABLE, blocks=((), (), (), ()))).eval()
    deep = AttentionCnnBiLstm(SEPARABLE).eval()
    deep.load_state_dict(shallow.state_dict(), strict=False)
    assert torch.equal(deep.encoder(faces(2))[0], shallow.encoder(faces(2))[0])


def test_macs_are_the_graphs(run: TrainRun, bundle: Bundle) -> None:
    assert graph_macs(Graph.read(bundle.graph_bytes("fp32", "encoder")), {"N": 1}) == encoder_macs(run.recipe.model)


def test_a_bundle_gives_its_weights_back(run: TrainRun, bundle: Bundle) -> None:
    expected, _ = run.load_model()
    got = BundleWeights(bundle=bundle).load_model()
    with torch.no_grad():
        torch.testing.assert_close(got.encoder(faces(5)), expected.encoder(faces(5)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("importance", ["group-norm", "bn-scale", "random"])
def test_pruning_leaves_depthwise_filters_with_their_channels(model: AttentionCnnBiLstm, importance: str) -> None:
    limits = PruneTarget(macs=0.6).limits(model.config)
    ranking = Ranking(importance=importance)  # type: ignore[arg-type]
    linear = torch.nn.Linear(32, 7)
    pruned, _ = prune_model(model, linear, limits=limits, recipe=PruneRecipe(round_to=4), ranking=ranking)
    assert pruned.config.convolution == "separable"
    assert 0.35 < encoder_macs(pruned.config) / encoder_macs(model.config) <= 0.6
    logits = pruned(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([3, 1]))
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_what_matters_is_what_is_kept(model: AttentionCnnBiLstm) -> None:
    """A network whose other inner channels do nothing computes the same without them."""
    large = AttentionCnnBiLstm(SEPARABLE).eval()
    large.load_state_dict(model.state_dict())
    narrow = replace(SEPARABLE, blocks=((), (8,), (), (24,)))
    for stage, kept in ((1, 8), (3, 24)):
        block = large.encoder.cnn[stage][6]
        silent = torch.randperm(block.width)[kept:]
        for norm in (block.expand[1], block.depthwise[1]):
            norm.weight[silent] = 0.0
            norm.bias[silent] = 0.0
    smaller, _ = shrunk(large, torch.nn.Linear(32, 7), narrow)
    assert smaller.config == narrow
    torch.testing.assert_close(smaller.encoder(faces(4)), large.encoder(faces(4)), atol=1e-4, rtol=0)


def test_a_dense_network_is_no_beginning_of_it() -> None:
    assert can_shrink(SEPARABLE, SEPARABLE)
    assert not can_shrink(SEPARABLE, small_config())


def test_sparsity_leaves_depthwise_convolutions_alone(model: AttentionCnnBiLstm) -> None:
    masks = two_of_four(model.encoder.cnn, SparsitySpec(pattern="2:4", min_channels=16))
    assert masks.layers
    assert all(layer.groups == 1 for layer in masks.layers.values())


def test_rounding_stands_where_nncf_puts_it(model: AttentionCnnBiLstm) -> None:
    rounding = quantised(model.encoder, form="int8")
    calibrate_ranges(model.encoder, rounding, faces(32).numpy(), activation_range="max", batch=16)
    found = quantisers(rounding)
    assert sum(each.channels is not None for each in found.values()) == 1 + 3 * 2 + 2 * 3
    plain = AttentionCnnBiLstm(SEPARABLE).eval().encoder
    plain.load_state_dict(dict(plain_state(rounding)))
    with torch.no_grad():
        torch.testing.assert_close(plain(faces(5)), model.encoder(faces(5)), atol=1e-5, rtol=0)


def test_both_int8_forms_pass_through_the_gate(bundle: Bundle, tmp_path: Path) -> None:
    recipe = CalibrationRecipe(sample=SampleRecipe(size=42), gate=GENEROUS)
    copy = Bundle.open(shutil.copytree(bundle.path, tmp_path / "copy"))
    measure_forms(copy, small_dataset(), recipe=recipe).write()
    names = [variant.name for variant in Bundle.open(copy.path).manifest.variants]
    assert names == ["fp32", "int8", "int8-trt"]
    with Network.open(copy.path, variant="int8") as network:
        assert np.isfinite(network.encode(faces(3).numpy())).all()
