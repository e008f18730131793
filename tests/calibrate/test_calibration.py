"""A bundle through the whole of calibration, with the real NNCF and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import miniature_bundle, noise_dataset, with_crowd, with_votes
from onnx import numpy_helper

from fer_edge.calibrate.calibration import CalibrationOutcome, measure_forms
from fer_edge.calibrate.recipe import CalibrationRecipe, Candidate, GateLimits, OverflowFixes, SampleRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.crowd import crowd_accuracy, vote_shares
from fer_edge.core.errors import BundleError, DataError, GateError, RecipeError
from fer_edge.core.evaluate import evaluate
from fer_edge.core.metrics import fit_temperature, softmax
from fer_edge.core.provenance import read_provenance
from fer_edge.core.verify import verify_bundle
from fer_edge.data import leaked_rows
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import unsigned_nodes
from fer_edge.runtime.inference import Network

GENEROUS = GateLimits(
    max_top1_drop=0.2, max_flip_rate=0.2, max_ece_rise=0.2, min_agreement=0.8, agreement_rows=60, agreement_seed=1
)
RECIPE = CalibrationRecipe(
    sample=SampleRecipe(size=42), overflow_fix=OverflowFixes(int8="disable", int8_trt="disable"), gate=GENEROUS
)
ONE_FORM = CalibrationRecipe(forms=("int8",), sample=RECIPE.sample, gate=GENEROUS)


def files_of(bundle: Bundle) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(bundle.path.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return miniature_bundle(tmp_path_factory.mktemp("calibrated") / "bundle")


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[int, int]]:
    return {}


@pytest.fixture(scope="module")
def outcome(given: Bundle, told: dict[str, tuple[int, int]]) -> CalibrationOutcome:
    def progress(what: str, done: int, total: int) -> None:
        told[what] = (done, total)

    measured = measure_forms(given, noise_dataset(), recipe=RECIPE, progress=progress)
    measured.write()
    return measured


@pytest.fixture(scope="module")
def written(given: Bundle, outcome: CalibrationOutcome) -> Bundle:
    assert outcome.passed
    return Bundle.open(given.path)


def test_the_bundle_holds_both_forms_beside_the_parent(given: Bundle, written: Bundle) -> None:
    assert [variant.name for variant in written.manifest.variants] == ["fp32", "int8", "int8-trt"]
    assert written.variant("fp32") == given.variant("fp32")
    for form in ("int8", "int8-trt"):
        variant = written.variant(form)
        assert (variant.precision, variant.parent) == ("int8", "fp32")
        assert variant.unknown_threshold == 0.25
        for file, before in zip(variant.graphs, given.variant("fp32").graphs, strict=True):
            assert (file.opset, file.ir_version) == (17, 8)
            assert (file.parameters, file.macs) == (before.parameters, before.macs)
    assert verify_bundle(written.path).ok


def test_only_the_form_for_tensorrt_is_signed(written: Bundle) -> None:
    unsigned = {form: unsigned_nodes(Graph.read(written.graph_bytes(form, "encoder"))) for form in ("int8", "int8-trt")}
    assert unsigned["int8"]
    assert unsigned["int8-trt"] == ()


def test_sequence_weights_are_stored_as_each_engine_takes_them(written: Bundle) -> None:
    for form, reader in (("int8", "Cast"), ("int8-trt", "DequantizeLinear")):
        head = Graph.read(written.graph_bytes(form, "head"))
        readers = {node.op_type for node in head.nodes if node.input and node.input[0] == "frames_R_int8"}
        assert readers == {reader}
        floats = {tensor.name for tensor in head.initializers.values() if tensor.data_type == 1}
        assert {"lda", "classes", "class_bias"} <= floats, "from the LDA on everything stays float"


def test_both_forms_run_and_agree_with_the_parent(written: Bundle) -> None:
    frames = noise_dataset().split("choose").images
    labels = {}
    for form in ("fp32", "int8", "int8-trt"):
        with Network.open(written, variant=form) as network:
            features = network.encode(np.ascontiguousarray(frames))
            labels[form] = network.logits(features[:, None], np.ones(len(frames), np.int64)).argmax(axis=1)
    assert (labels["int8"] == labels["fp32"]).mean() > 0.9
    assert (labels["int8-trt"] == labels["fp32"]).mean() > 0.9


def test_the_manifest_says_how_each_form_was_made(written: Bundle, outcome: CalibrationOutcome) -> None:
    made = written.variant("int8-trt").how_made
    assert made["overflow_fix"] == "disable"
    assert made["gate"]["passed"] is True
    names = [check["name"] for check in made["gate"]["checks"]]
    assert names == ["max_top1_drop", "max_flip_rate", "max_ece_rise"] * 2 + ["min_agreement"]
    assert [check["on"] for check in made["gate"]["checks"]][::3] == [
        "PublicTest, T = 1, without leaked rows",
        "PublicTest, T = 4, without leaked rows",
        "60 rows of Training outside the sample, T = 1",
    ]
    provenance = read_provenance(written)
    assert provenance.training == {"data": "noise"}
    assert provenance.calibration["int8-trt"]["recipe"]["sample"]["size"] == 42
    assert set(provenance.calibration) == {"int8", "int8-trt"}
    assert provenance.calibration["int8"]["sample"] == outcome.sample.summary()
    assert provenance.calibration["int8"]["chosen_on"] == {"split": "PublicTest", "n": 70, "leaked_left_out": 5}
    assert "nncf" in provenance.calibration["int8"]["versions"]


def test_metrics_and_temperature_are_each_forms_own(written: Bundle, outcome: CalibrationOutcome) -> None:
    int8, signed = (written.variant(form) for form in ("int8", "int8-trt"))
    assert int8.temperature != signed.temperature
    assert int8.metrics["PublicTest"].n == 70
    assert int8.metrics["PublicTest"].n_without_leaked == 65
    assert int8.parity["against"] == "fp32"
    assert 0 < int8.parity["mean_abs_logit_diff"] < int8.parity["max_abs_logit_diff"]
    assert int8.parity["rows"] == 70 + 70 + 60
    assert outcome.parent.metrics["PublicTest"].n == 70


def test_progress_names_each_step_and_reaches_its_end(
    outcome: CalibrationOutcome, told: dict[str, tuple[int, int]]
) -> None:
    assert {"quantizing int8", "fp32 on PublicTest", "int8-trt on Training outside the sample"} <= set(told)
    assert all(done == total for done, total in told.values())


def test_a_form_that_loses_too_much_changes_nothing(tmp_path: Path) -> None:
    """An outlier channel takes all 255 steps of its tensor: the others, which carry the label, are rounded away."""
    bundle = miniature_bundle(tmp_path / "bundle", outlier=1e4)
    before = files_of(bundle)
    outcome = measure_forms(bundle, noise_dataset(), recipe=ONE_FORM)
    assert not outcome.passed
    with pytest.raises(GateError, match=r"int8: max_flip_rate 0\.\d+, limit 0\.2000, on PublicTest, T = 1"):
        outcome.write()
    assert files_of(bundle) == before


def test_a_bundle_that_changed_meanwhile_is_not_overwritten(tmp_path: Path, outcome: CalibrationOutcome) -> None:
    """The outcome was measured on the bundle as it was opened; by now it holds the forms already."""
    with pytest.raises(BundleError, match="was changed since it was opened"):
        outcome.write()


def test_candidates_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    recipe = CalibrationRecipe(sample=RECIPE.sample, gate=GENEROUS, candidates=(Candidate(name="a"),))
    with pytest.raises(RecipeError, match="compare_candidates"):
        measure_forms(miniature_bundle(tmp_path / "bundle"), noise_dataset(), recipe=recipe)


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    recipe = CalibrationRecipe(parent="fp16", sample=RECIPE.sample, gate=GENEROUS)
    with pytest.raises(BundleError, match="fp16"):
        measure_forms(bundle, noise_dataset(), recipe=recipe)


def test_a_choosing_split_of_leaked_rows_alone_is_refused(tmp_path: Path) -> None:
    bundle = miniature_bundle(tmp_path / "bundle")
    with pytest.raises(DataError, match="got 10 rows of PublicTest, all of them in the training split too"):
        measure_forms(bundle, noise_dataset(choose=10, leaked=10), recipe=ONE_FORM)


@pytest.fixture
def two_heads(tmp_path: Path) -> Bundle:
    return with_crowd(miniature_bundle(tmp_path / "two"))


class TestTwoHeads:
    def test_both_heads_are_gated_and_written(self, two_heads: Bundle) -> None:
        data = with_votes(noise_dataset())
        outcome = measure_forms(two_heads, data, recipe=ONE_FORM)
        outcome.write()
        checked = [check.on for check in outcome.forms[0].gate.checks]
        assert checked[::3] == [
            "PublicTest, T = 1, without leaked rows",
            "PublicTest, T = 4, without leaked rows",
            "PublicTest, T = 1, without leaked rows, crowd",
            "PublicTest, T = 4, without leaked rows, crowd",
            "60 rows of Training outside the sample, T = 1, crowd",
        ]
        written = Bundle.open(two_heads.path)
        before, after = written.variant("fp32").crowd, written.variant("int8").crowd
        assert before is not None
        assert after is not None
        assert after.graph.size_bytes < before.graph.size_bytes
        assert after.not_judgeable_threshold == 0.9
        assert verify_bundle(two_heads.path).ok
        split = data.split("choose")
        assert split.votes is not None
        with Network.open(written, variant="int8", reading="crowd") as network:
            logits = evaluate(network, split.images, written.manifest.preprocess).by_window[1]
        kept = ~leaked_rows(data, split)
        assert after.temperature == pytest.approx(fit_temperature(logits[kept], vote_shares(split.votes)[kept]))
        expected = crowd_accuracy(softmax(logits, temperature=after.temperature), split.votes, threshold=0.9)
        assert after.metrics["PublicTest"].first_choice_top1 == pytest.approx(expected.first_choice_top1)
        assert after.metrics["PublicTest"].cross_entropy_bits == pytest.approx(expected.cross_entropy_bits)

    def test_a_crowd_head_that_loses_too_much_fails_the_gate(
        self, two_heads: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def other_head(graph: Graph, *, form: str) -> None:
            graph.initializers["classes"].CopyFrom(
                numpy_helper.from_array(-graph.constant("classes"), "classes")  # type: ignore[operator]
            )

        monkeypatch.setattr("fer_edge.calibrate.int8_variants.compress_head", other_head)
        outcome = measure_forms(two_heads, noise_dataset(), recipe=ONE_FORM)
        failed = {check.on for check in outcome.forms[0].gate.checks if not check.passed}
        assert "60 rows of Training outside the sample, T = 1, crowd" in failed
        assert all(on.endswith("crowd") for on in failed)
