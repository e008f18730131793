"""What is exported computes what was trained, in fewer steps, and can be taken back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from onnx import load_model_from_string
from training import ON_CPU, small_config, small_dataset, small_recipe

from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.provenance import read_provenance
from fer_edge.export.from_torch.graphs import graph_files, network_graphs
from fer_edge.export.from_torch.run import export_run
from fer_edge.model.config import ModelConfig
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.model.deploy import deployed_encoder, deployed_head
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train

GRIDS = {"cells": small_config(), "one each": replace(small_config(), token_grid=small_config().map_size)}


def drawn(config: ModelConfig) -> AttentionCnnBiLstm:
    """A network in which nothing is one or nought: every weight and every statistic counts."""
    generator = torch.Generator().manual_seed(3)
    model = AttentionCnnBiLstm(config).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.2 + 0.3 * torch.rand(tensor.shape, generator=generator))
    return model


@pytest.mark.parametrize("config", GRIDS.values(), ids=GRIDS)
def test_deployed_parts_compute_the_same(config: ModelConfig) -> None:
    model, generator = drawn(config), torch.Generator().manual_seed(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    faces = torch.randint(0, 256, (5, config.input_size, config.input_size), generator=generator, dtype=torch.uint8)
    windows = torch.randn(3, 6, config.feature_size, generator=generator)
    length = torch.tensor([1, 4, 6])
    with torch.no_grad():
        pairs = [
            (model.encoder(faces), deployed_encoder(model.encoder, config)(faces)),
            (model.head(windows, length), deployed_head(model.head, config)(windows, length)),
        ]
    for expected, got in pairs:
        for one, other in zip(expected, got, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_its_graphs_have_no_step_that_weights_can_take_over() -> None:
    encoder, head = (load_model_from_string(graph).graph for graph in network_graphs(drawn(small_config())).values())
    kinds = [Counter(node.op_type for node in graph.node) for graph in (encoder, head)]
    assert not any(kind["Mul"] + kind["Sub"] + kind["AveragePool"] for kind in kinds)
    assert kinds[0]["Add"] == 1 + sum(map(len, small_config().blocks))  # shortcuts: the BiLSTM's, and one a block
    layers = small_config().dense_layers
    assert kinds[1]["Gemm"] == 1 + layers + 1  # query, one a layer, classifier
    assert not kinds[1]["Concat"] + kinds[1]["BatchNormalization"]
    assert [kind["MatMul"] for kind in kinds] == [4, 2]  # regions, shortcut, products and means; products and means
    assert not any("shortcut.bias" in tensor.name for tensor in encoder.initializer)


def test_the_costs_of_a_shape_are_those_of_its_graphs() -> None:
    config = small_config()
    files = graph_files(network_graphs(drawn(config)), window=7)
    assert (files["encoder"].macs, files["head"].macs) == (encoder_macs(config), head_macs(config, 7))


def test_a_mean_that_lies_outside_the_discriminants_comes_back_as_one_that_does_the_same(tmp_path: Path) -> None:
    run = train_model(small_recipe(), small_dataset(), tmp_path / "run", options=ON_CPU)
    trained, _ = run.load_model()
    bundle = export_run(run, tmp_path / "bundle")
    model = BundleWeights(bundle=bundle).load_model()
    lda, was = model.head.lda, trained.head.lda
    assert not torch.allclose(lda.mean, was.mean, atol=1e-3)
    torch.testing.assert_close(lda.mean @ lda.projection, was.mean @ was.projection, rtol=1e-4, atol=1e-4)
    products = [part.key.weight.T @ part.query.weight for part in (model.head.attention, trained.head.attention)]
    torch.testing.assert_close(*products, rtol=1e-4, atol=1e-5)

    given = ["export", str(bundle.path), "--out", str(tmp_path / "again"), "--name", "again"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    again = Bundle.open(tmp_path / "again")
    old, new = bundle.variant("fp32"), again.variant("fp32")
    assert (again.manifest.name, new.metrics, new.temperature) == ("again", old.metrics, old.temperature)
    assert new.how_made["exported_again_from"] == bundle.sha256
    assert read_provenance(again).training == read_provenance(bundle).training
    assert max(new.parity[part]["max_abs_diff"] for part in ("encoder", "head")) <= 1e-4
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 1
    assert Bundle.open(tmp_path / "again").sha256 == again.sha256
