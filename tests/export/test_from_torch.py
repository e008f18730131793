"""A run to a bundle to a target's files: parity, refusals, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from training import ON_CPU, small_dataset, small_recipe

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, InputError, OutputError
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.provenance import read_provenance
from fer_edge.export.from_torch.graphs import TRACED_FRAMES, check_graphs, network_graphs
from fer_edge.export.from_torch.run import export_run, run_outputs
from fer_edge.export.model_card import model_card
from fer_edge.export.parity.outputs import compare_outputs, require_parity
from fer_edge.export.parity.stages import check_parity
from fer_edge.export.selection import choose_target
from fer_edge.export.target import export_target
from fer_edge.graph.cost import graph_macs
from fer_edge.graph.graph import Graph
from fer_edge.model.cost import encoder_macs, head_macs
from fer_edge.runtime import Network, Recognizer
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train
SPLIT = small_dataset().split("choose").name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return train_model(small_recipe(), small_dataset(), tmp_path_factory.mktemp("runs") / "small", options=ON_CPU)


@pytest.fixture(scope="module")
def bundle(run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_run(run, tmp_path_factory.mktemp("bundles") / "small")


def test_the_bundle_computes_what_torch_computes(run: TrainRun, bundle: Bundle) -> None:
    model, _ = run.load_model()
    stills = small_dataset().split("choose")
    frames = prepare_stills(np.asarray(stills.images[:11]), bundle.manifest.preprocess)
    lengths = np.array([3, 1], np.int64)
    with Network.open(bundle) as network, torch.no_grad():
        features = network.encode(frames)
        expected = model.encoder(torch.from_numpy(frames))[0]
        np.testing.assert_allclose(features, expected.numpy(), atol=1e-4)
        logits = network.logits(features[:6].reshape(2, 3, -1), lengths)
        expected = model.head(expected[:6].reshape(2, 3, -1), torch.from_numpy(lengths))[0]
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_the_manifest_says_where_the_weights_come_from(run: TrainRun, bundle: Bundle) -> None:
    manifest = bundle.manifest
    training = read_provenance(bundle).training
    assert training["data"] == run.record["data"]
    assert training["recipe"]["seed"] == 0
    assert manifest.variants[0].metrics[SPLIT].to_json() == run.record["choose"]
    assert manifest.variants[0].parity["encoder"]["max_abs_diff"] <= 1e-4
    shapes = manifest.variants[0].parity["encoder"]["shapes"]
    assert [TRACED_FRAMES, 16, 16] not in shapes
    assert len(shapes) >= 3
    assert (manifest.preprocess.size, manifest.preprocess.median) == (16, 3)


def test_torchs_outputs_are_recorded_and_the_chain_begins_with_them(run: TrainRun, bundle: Bundle) -> None:
    frames = prepare_stills(np.asarray(small_dataset().split("choose").images[:16]), bundle.manifest.preprocess)
    for torch_network in (None, run_outputs(run)):
        report = check_parity(bundle, frames, described="faces", torch=torch_network, engines={})
        assert (report.stages[0].stage, report.stages[0].passed) == ("torch -> ONNX", True)


def test_macs_of_the_graph_are_those_of_the_configuration(run: TrainRun, bundle: Bundle) -> None:
    encoder, head = (Graph.read(bundle.graph_bytes("fp32", part)) for part in ("encoder", "head"))
    assert graph_macs(encoder, {"N": 1}) == encoder_macs(run.recipe.model)
    assert graph_macs(head, {"B": 1, "T": 4}) == head_macs(run.recipe.model, 4)


def test_a_difference_above_the_tolerance_is_refused(run: TrainRun, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="at most the tolerance 1e-12"):
        export_run(run, tmp_path / "bundle", tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_the_tolerance_grows_with_the_logits_and_still_refuses_a_wrong_weight(run: TrainRun) -> None:
    model, _ = run.load_model()
    last = [layer for layer in model.head.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= 300  # as a pruned network's, whose logits grew
        last.bias += 200
    graphs = network_graphs(model)
    parity = check_graphs(model, graphs, 1e-4)
    assert parity["head"].max_relative_diff <= 1e-5
    for part in ("encoder", "head"):
        graph = onnx.load_from_string(graphs[part])
        floats = [each for each in graph.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
        planted = max(floats, key=lambda each: np.prod(each.dims))
        values = onnx.numpy_helper.to_array(planted).copy()
        values.reshape(-1)[values.size // 2] += 2 * np.abs(values).max()
        planted.CopyFrom(onnx.numpy_helper.from_array(values, planted.name))
        with pytest.raises(GateError, match=f"the exported {part} against torch"):
            check_graphs(model, {**graphs, part: graph.SerializeToString()}, 1e-4)


def test_a_bundle_that_stands_is_not_replaced_unasked(run: TrainRun, bundle: Bundle) -> None:
    before = bundle.sha256
    with pytest.raises(OutputError):
        export_run(run, bundle.path)
    assert Bundle.open(bundle.path).sha256 == before


def test_nan_weights_are_refused(run: TrainRun, tmp_path: Path) -> None:
    from safetensors.torch import load_file, safe_open, save_file

    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "run.json").write_bytes((run.path / "run.json").read_bytes())
    with safe_open(str(run.path / "model.safetensors"), "pt") as handle:
        facts = handle.metadata()
    tensors = load_file(run.path / "model.safetensors")
    tensors["model/encoder.shortcut.bias"][0] = torch.nan
    save_file(tensors, copy / "model.safetensors", facts)
    with pytest.raises(InputError, match=r"'model/encoder\.shortcut\.bias' holds NaN"):
        export_run(TrainRun.open(copy), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("target", ["cpu", "openvino"])
def test_a_target_is_written_and_agrees(target: str, bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip({"cpu": "onnxruntime", "openvino": "openvino"}[target])
    report = export_target(bundle, target=target, out=tmp_path / "files", clip=True)
    assert report.parity.max_abs_diff <= 1e-3
    assert report.bundle_sha256 == bundle.sha256
    written = {path.name for path in (tmp_path / "files").iterdir()}
    assert written == {file.name for file in report.files} | {"target.json"}
    assert json.loads((tmp_path / "files" / "target.json").read_text())["target"] == choose_target(target)


def test_parity_sees_a_wrong_shape_and_a_nan() -> None:
    good = {"logits": np.zeros((2, 7))}
    with pytest.raises(GateError, match="expected shape"):
        compare_outputs([(good, {"logits": np.zeros((2, 6))})], [(2,)])
    with pytest.raises(GateError, match="NaN"):
        compare_outputs([(good, {"logits": np.full((2, 7), np.nan)})], [(2,)])
    parity = compare_outputs([(good, {"logits": np.eye(2, 7)})], [(2,)])
    assert parity.label_agreement == 0.5
    with pytest.raises(GateError, match="differ by up to 1"):
        require_parity(parity, tolerance=0.5, what="this")


def test_the_card_holds_the_manifests_figures(bundle: Bundle) -> None:
    card = model_card(bundle)
    report = bundle.manifest.variants[0].metrics[SPLIT]
    for words in (f"{report.top1:.2%}", f"{report.macro_f1:.2%}", "Art. 5(1)(f)", bundle.manifest.licence):
        assert words in card
    assert f"chosen on the split {SPLIT}" in card


def test_card_and_manifest_claim_only_data_that_were_used(run: TrainRun, bundle: Bundle, tmp_path: Path) -> None:
    [facts] = bundle.manifest.data
    assert (facts.dataset, facts.sha256) == (run.record["data"]["dataset"], run.record["data"]["sha256"])
    assert bundle.manifest.licence == "not stated"
    texts = (model_card(bundle), (bundle.path / "manifest.json").read_text())
    assert not any(word in text for text in texts for word in ("FER2013", "PublicTest", "PrivateTest", "web search"))
    stated = export_run(run, tmp_path / "stated", licence="CC BY 4.0")
    assert "**Licence of the weights.** CC BY 4.0" in model_card(stated)


def test_the_exported_bundle_recognises(bundle: Bundle) -> None:
    with Recognizer(bundle, quality=None) as recognizer:
        estimate = recognizer.recognize(np.asarray(small_dataset().split("choose").images[0]))
    assert sum(estimate.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
