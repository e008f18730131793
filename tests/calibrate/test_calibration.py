"""A bundle through the whole of calibration, with the real NNCF and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import miniature_bundle, noise_dataset

from fer_edge.calibrate.calibration import CalibrationOutcome, measure_forms
from fer_edge.calibrate.recipe import CalibrationRecipe, Candidate, GateLimits, OverflowFixes, SampleRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import BundleError, DataError, GateError, RecipeError
from fer_edge.core.verify import verify_bundle
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
    provenance = written.read_provenance()
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
