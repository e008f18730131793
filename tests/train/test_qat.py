"""Quantization-aware training: what is rounded and how, whole small runs, the way out through export and the gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from training import ON_CPU, RESUMED, StopAfter, small_config, small_dataset, small_recipe, trained_like

from fer_edge.calibrate.calibration import measure_forms
from fer_edge.calibrate.recipe import CalibrationRecipe, GateLimits
from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import DataError, GateError, InputError
from fer_edge.core.int8_forms import FORMS, Form
from fer_edge.core.tensorrt_flavours import FLAVOURS
from fer_edge.core.verify import verify_bundle
from fer_edge.data import Dataset
from fer_edge.data.sampling import SampleRecipe
from fer_edge.export.from_torch.run import export_run
from fer_edge.export.model_card import model_card
from fer_edge.export.preflight import check_bundle
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import unsigned_nodes
from fer_edge.model.deploy import fold_batch_norm
from fer_edge.model.fake_quantization import Quantiser, plain_state, quantised, quantisers, set_form
from fer_edge.model.network import AttentionCnnBiLstm, FrameEncoder
from fer_edge.runtime.inference import choose_variant
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.nncf_ranges import NNCF_VERSION, calibrate_ranges
from fer_edge.train.qat import load_quantised, qat_run
from fer_edge.train.recipe import OptimiserSpec, QatRecipe, SequenceTraining
from fer_edge.train.run_folder import RunOptions, TrainRun
from fer_edge.train.train import train_model

pytestmark = pytest.mark.train

OPTIMISER = OptimiserSpec(epochs=2, batch_size=32, learning_rate=1e-3, warmup_epochs=0.2, ema_decay=0.8)
KEPT = QatRecipe(sample=SampleRecipe(size=64), rows=96, head="keep", optimiser=OPTIMISER)
GENEROUS = GateLimits(max_top1_drop=0.5, max_flip_rate=0.9, max_ece_rise=0.5, min_agreement=0.1, agreement_rows=40)
RECIPE = CalibrationRecipe(sample=SampleRecipe(size=42), gate=GENEROUS)


def noise(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(0, 256, (count, 16, 16), dtype=np.uint8))


@pytest.fixture(scope="module")
def model() -> AttentionCnnBiLstm:
    return trained_like()


@pytest.fixture(scope="module")
def rounding(model: AttentionCnnBiLstm) -> FrameEncoder:
    encoder = quantised(model.encoder, form="int8")
    calibrate_ranges(model.encoder, encoder, noise(32).numpy(), activation_range="max", batch=16)
    return encoder


class TestRounding:
    def test_folding_changes_nothing(self, model: AttentionCnnBiLstm) -> None:
        folded = fold_batch_norm(model.encoder)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(noise(5)), model.encoder(noise(5)), atol=1e-5, rtol=0)

    def test_the_plain_weights_come_back(self, model: AttentionCnnBiLstm, rounding: FrameEncoder) -> None:
        plain = AttentionCnnBiLstm(small_config()).eval().encoder
        plain.load_state_dict(dict(plain_state(rounding)))
        torch.testing.assert_close(plain(noise(5)), model.encoder(noise(5)), atol=1e-5, rtol=0)

    def test_nncf_quantizes_where_we_round_and_ranges_are_the_values_own(
        self, model: AttentionCnnBiLstm, rounding: FrameEncoder
    ) -> None:
        found = quantisers(rounding)
        # Eight convolutions' weights; the input, every rectifier and both summands of two residual additions.
        assert sum(each.channels is not None for each in found.values()) == 8
        assert sum(each.channels is None for each in found.values()) == 1 + 4 + 2 * 3
        assert [name for name, each in found.items() if each.channels is None and each.signed] == [
            "normalise.1", "cnn.1.3.reduce.1", "cnn.3.3.reduce.1",
        ]  # fmt: skip
        weight = rounding.get_parameter("cnn.2.0.weight")
        torch.testing.assert_close(
            found["cnn.2.0.quantiser"].log_range.exp(), weight.flatten(1).abs().amax(dim=1), rtol=1e-4, atol=0
        )
        largest = model.encoder.normalise(noise(32)).abs().max()
        assert float(found["normalise.1"].log_range.exp().detach()) == pytest.approx(float(largest), rel=0.02)

    @pytest.mark.parametrize(("form", "weights", "activations"), [("int8", 63, 255), ("int8-trt", 127, 127)])
    def test_steps_of_each_form(
        self, form: Form, weights: int, activations: int, model: AttentionCnnBiLstm, rounding: FrameEncoder
    ) -> None:
        set_form(rounding, form)
        for quantiser in quantisers(rounding).values():
            wanted = weights if quantiser.channels is not None else 127 if quantiser.signed else activations
            assert quantiser.high == wanted
        convolution = rounding.get_submodule("cnn.1.0")
        with torch.no_grad():
            steps = convolution.quantiser(convolution.weight) / convolution.quantiser.scale.reshape(-1, 1, 1, 1)  # type: ignore[union-attr, operator]
        assert float((steps - steps.round()).abs().max()) < 1e-3
        assert int(steps.abs().max().round()) == weights
        with torch.no_grad():
            difference = (rounding(noise(8))[0] - model.encoder(noise(8))[0]).abs().mean()
        assert 0 < float(difference) < 0.02

    def test_gradients_pass_within_the_range_and_reach_it(self) -> None:
        quantiser = Quantiser(signed=True)
        quantiser.set_range(torch.tensor(1.0))
        x = torch.tensor([0.3, -0.2, 5.0], requires_grad=True)
        quantiser(x).sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [1.0, 1.0, 0.0]
        assert quantiser.log_range.grad is not None
        assert float(quantiser.log_range.grad.sum()) > 0, "a wider range would give the clipped value more"

    def test_an_unknown_layer_is_named(self, model: AttentionCnnBiLstm) -> None:
        other = trained_like().encoder
        other.cnn[0].append(torch.nn.Sigmoid())  # type: ignore[operator]
        with pytest.raises(InputError, match="got a layer Sigmoid"):
            quantised(other, form="int8")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def parent(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    recipe = replace(
        small_recipe(epochs=1),
        sequence=SequenceTraining(
            window=4, clip_frames=4, clean=1.0, context_epochs=1, classifier_epochs=2, batch_size=64
        ),
    )
    return train_model(recipe, dataset, tmp_path_factory.mktemp("runs") / "float", options=ON_CPU)


@pytest.fixture(scope="module")
def run(parent: TrainRun, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    return qat_run(parent, tmp_path_factory.mktemp("runs") / "qat", dataset, recipe=KEPT, options=ON_CPU)


@pytest.fixture(scope="module")
def bundle(run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_run(run, tmp_path_factory.mktemp("bundles") / "small")


class TestRuns:
    def test_the_record_says_how(self, run: TrainRun, parent: TrainRun) -> None:
        opened = TrainRun.open(run.path)
        assert opened.done
        assert opened.record["qat"]["nncf"] == NNCF_VERSION
        assert opened.record["qat"]["recipe"]["form"] == "int8"
        assert opened.record["qat"]["calibrated_on"]["size"] == 64
        assert opened.record["parent"] == parent.identity
        assert opened.record["quantised"]["form"] == "int8"
        assert opened.record["quantised"]["temperature"] > 0
        assert len(opened.record["history"]) == 2

    def test_weights_and_ranges_are_learnt_and_the_kept_head_is_not(self, run: TrainRun, parent: TrainRun) -> None:
        model, _ = run.load_model()
        before, _ = parent.load_model()
        head, old = model.head.state_dict(), before.head.state_dict()
        assert all(torch.equal(head[name], old[name]) for name in old)
        learnt = quantisers(load_quantised(run, "int8"))
        start = quantised(before.encoder, form="int8")
        moved = [
            float((each.log_range - quantisers(start)[name].log_range).detach().abs().max())
            for name, each in learnt.items()
            if each.channels is not None
        ]
        assert min(moved) > 1e-4
        folded = fold_batch_norm(before.encoder)
        assert not torch.equal(model.encoder.cnn[1][0].weight, folded.cnn[1][0].weight)  # type: ignore[index, union-attr]

    def test_a_broken_run_resumes_to_the_same_end(
        self, run: TrainRun, parent: TrainRun, dataset: Dataset, tmp_path: Path
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            qat_run(
                parent,
                tmp_path / "run",
                dataset,
                recipe=KEPT,
                options=RunOptions(device="cpu", progress=StopAfter("frames", 5)),
            )
        resumed = qat_run(parent, tmp_path / "run", dataset, recipe=KEPT, options=RESUMED)
        for file in ("model.safetensors", "quantised.safetensors"):
            expected, got = (load_file(path / file) for path in (run.path, resumed.path))
            assert all(torch.equal(got[name], expected[name]) for name in expected)
        other = replace(KEPT, form="int8-trt")
        with pytest.raises(InputError, match="began with other settings"):
            qat_run(parent, tmp_path / "run", dataset, recipe=other, options=RESUMED)

    def test_a_bundle_can_begin_it_and_the_head_is_refitted(
        self, bundle: Bundle, dataset: Dataset, tmp_path: Path
    ) -> None:
        recipe = replace(KEPT, head="refit", form="int8-trt", optimiser=replace(OPTIMISER, epochs=1))
        run = qat_run(BundleWeights(bundle=bundle), tmp_path / "run", dataset, recipe=recipe, options=ON_CPU)
        old = BundleWeights(bundle=bundle).load_model().head.state_dict()
        head = run.load_model()[0].head.state_dict()
        assert not torch.equal(head["lda.projection"], old["lda.projection"])
        assert run.record["parent"]["sha256"] == bundle.sha256
        assert run.record["quantised"]["form"] == "int8-trt"

    def test_the_command_prints_the_run(self, run: TrainRun, parent: TrainRun, dataset: Dataset) -> None:
        """Of a run that is done already, so that nothing is trained again."""
        words = ["qat", str(parent.path), "--data", "synthetic:300@3", "--out", str(run.path), "--resume"]
        changed = ("sample.size=64", "rows=96", "head=keep", "optimiser.epochs=2", "optimiser.batch_size=32")
        rates = ("optimiser.learning_rate=1e-3", "optimiser.ema_decay=0.8", "optimiser.warmup_epochs=0.2")
        settings = [word for each in (*changed, *rates, "optimiser.weight_decay=0.05") for word in ("--set", each)]
        shown = CliRunner().invoke(main, [*words, *settings])
        assert shown.exit_code == 0, shown.output
        assert "rounded as int8: top-1" in shown.output
        told = CliRunner().invoke(main, [*words, *settings, "--json"])
        assert json.loads(told.stdout)["quantised"]["form"] == "int8"
        unknown = CliRunner().invoke(main, [*words, "--set", "heads=keep"])
        assert unknown.exit_code == 1
        assert "did you mean 'head'" in unknown.output

    def test_bad_input_is_named(self, parent: TrainRun, dataset: Dataset, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="rows: got 9,999"):
            qat_run(parent, tmp_path / "run", dataset, recipe=replace(KEPT, rows=9999), options=ON_CPU)
        many = replace(KEPT, sample=SampleRecipe(size=9999))
        with pytest.raises(DataError, match=r"fewer than the 9,999.*sample\.size"):
            qat_run(parent, tmp_path / "run", dataset, recipe=many, options=ON_CPU)
        with pytest.raises(InputError, match=r"quantised\.safetensors"):
            load_quantised(parent, "int8")
        assert not (tmp_path / "run").exists()


class TestWayOut:
    @pytest.mark.parametrize("form", FORMS)
    def test_the_graph_computes_what_torch_computes(self, form: Form, bundle: Bundle) -> None:
        parity = bundle.variant(f"{form}-qat").parity["encoder"]
        assert parity["mean_abs_diff"] < 1e-4
        assert parity["max_abs_diff"] < 5e-3  # a value on the boundary of a step may round either way
        assert [7, 16, 16] in parity["shapes"]

    @pytest.mark.parametrize("form", FORMS)
    def test_scales_are_those_learnt_one_a_filter(self, form: Form, run: TrainRun, bundle: Bundle) -> None:
        graph = Graph.read(bundle.graph_bytes(f"{form}-qat", "encoder"))
        learnt = quantisers(load_quantised(run, form))
        wanted = [each.scale.detach().numpy() for each in learnt.values() if each.channels is not None]
        convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
        assert len(convolutions) == len(wanted)
        for node, scale in zip(convolutions, wanted, strict=True):
            source = graph.producer(node.input[1])
            assert source is not None
            values = graph.constant(source.input[0])
            assert values is not None
            assert values.dtype == np.int8
            assert np.abs(values.astype(int)).max() <= (63 if form == "int8" else 127)
            np.testing.assert_allclose(graph.constant(source.input[1]), scale, rtol=1e-5)
        activations = {float(graph.constant(node.input[1])) for node in graph.nodes if node.op_type == "QuantizeLinear"}
        expected = [float(each.scale.detach()) for each in learnt.values() if each.channels is None]
        assert sorted(activations) == pytest.approx(sorted(expected), rel=1e-5)

    def test_from_the_lstm_on_the_graph_is_float(self, bundle: Bundle) -> None:
        graph = Graph.read(bundle.graph_bytes("int8-qat", "encoder"))
        after = graph.descendants(node for node in graph.nodes if node.op_type in ("LSTM", "MatMul"))
        assert not [node.name for node in after if node.op_type == "QuantizeLinear"]

    def test_the_form_for_tensorrt_is_signed_and_taken_by_every_tensorrt(self, bundle: Bundle) -> None:
        assert unsigned_nodes(Graph.read(bundle.graph_bytes("int8-qat", "encoder")))
        assert unsigned_nodes(Graph.read(bundle.graph_bytes("int8-trt-qat", "encoder"))) == ()
        verdicts = check_bundle(bundle, rows=FLAVOURS, variants=("int8-trt-qat",))
        assert [verdict.target for verdict in verdicts if not verdict.accepted] == []

    def test_nothing_takes_them_before_the_gate(self, bundle: Bundle) -> None:
        assert [variant.name for variant in bundle.manifest.variants] == ["fp32", "int8-qat", "int8-trt-qat"]
        assert "Not judged by the gate yet" in model_card(bundle)
        assert choose_variant(bundle.manifest) == "fp32"

    def test_the_gate_judges_them_and_gives_them_their_names(
        self, run: TrainRun, dataset: Dataset, tmp_path: Path
    ) -> None:
        bundle = export_run(run, tmp_path / "bundle")
        strict = replace(RECIPE, gate=replace(GENEROUS, min_agreement=1.0, max_flip_rate=0.0, max_top1_drop=0.0))
        with pytest.raises(GateError):
            measure_forms(bundle, dataset, recipe=strict).write()
        assert Bundle.open(bundle.path).sha256 == bundle.sha256
        learnt = {form: bundle.variant(f"{form}-qat") for form in FORMS}
        measure_forms(bundle, dataset, recipe=RECIPE).write()
        judged = Bundle.open(bundle.path)
        assert [variant.name for variant in judged.manifest.variants] == ["fp32", "int8", "int8-trt"]
        for form in FORMS:
            variant = judged.variant(form)
            costs = [(graph.parameters, graph.macs) for graph in variant.graphs]  # the card names the variant
            assert costs == [(graph.parameters, graph.macs) for graph in learnt[form].graphs]
            assert variant.how_made["method"].startswith("quantization-aware training")
            assert variant.how_made["trained_under"] == "int8"
            assert variant.how_made["gate"]["passed"] is True
        assert verify_bundle(judged.path).ok
        assert choose_variant(judged.manifest) == "int8"
        with pytest.raises(InputError, match="no variant 'int8-qat'"):
            measure_forms(judged, dataset, recipe=replace(RECIPE, method="qat"))

    def test_ptq_is_still_to_be_had(self, bundle: Bundle, dataset: Dataset) -> None:
        recipe = replace(RECIPE, method="ptq", forms=("int8",))
        outcome = measure_forms(bundle, dataset, recipe=recipe)
        assert outcome.forms[0].variant.how_made["method"].startswith("post-training")
        assert outcome.forms[0].variant.encoder != bundle.variant("int8-qat").encoder
