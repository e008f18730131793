"""Float layers chosen by what they cost, until the gate passes; NNCF's own search beside the ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from miniature import miniature_bundle, noise_dataset

from fer_edge.calibrate.calibration import CalibrationOutcome, measure_forms
from fer_edge.calibrate.evaluation import FloatParent
from fer_edge.calibrate.gate import GateCheck, GateReport
from fer_edge.calibrate.mixed_precision import gate_use
from fer_edge.calibrate.recipe import CalibrationRecipe, Form, GateLimits, MixedRecipe, SampleRecipe, SensitivityRecipe
from fer_edge.calibrate.sensitivity import LayerCost, LayerMeasurement
from fer_edge.core.bundle import Bundle
from fer_edge.data.sampling import draw_sample
from fer_edge.graph.graph import Graph
from fer_edge.graph.qdq import unsigned_nodes

GENEROUS = GateLimits(
    max_top1_drop=0.2, max_flip_rate=0.2, max_ece_rise=0.2, min_agreement=0.8, agreement_rows=60, agreement_seed=1
)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that the gate refuses: an outlier channel behind the last convolution takes all 255 steps."""
    return miniature_bundle(tmp_path_factory.mktemp("spoilt") / "bundle", outlier=1e4)


@pytest.fixture(scope="module")
def costs(spoilt: Bundle) -> tuple[LayerCost, ...]:
    """Of every layer alone: the real ones, measured once."""
    recipe = recipe_of("int8", MixedRecipe())
    dataset = noise_dataset()
    source = FloatParent(bundle=spoilt, variant=spoilt.variant("fp32"))
    frames = source.frames(draw_sample(dataset, size=14, seed=0).stills)
    return LayerMeasurement(source, dataset.split("choose"), frames, recipe=recipe, form="int8").layers()


def recipe_of(form: Form, mixed: MixedRecipe) -> CalibrationRecipe:
    return CalibrationRecipe(
        forms=(form,),
        sample=SampleRecipe(size=42),
        gate=GENEROUS,
        mixed=mixed,
        sensitivity=SensitivityRecipe(rows=40),
    )


def outcome(bundle: Bundle, form: Form, mixed: MixedRecipe) -> CalibrationOutcome:
    return measure_forms(bundle, noise_dataset(), recipe=recipe_of(form, mixed))


def float_convolutions(found: CalibrationOutcome) -> list[str]:
    graph = Graph.read(found.forms[0].graphs.encoder)
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    return [node.name for node in convolutions if graph.producer(node.input[1]) is None]


def account(found: CalibrationOutcome) -> dict[str, Any]:
    return dict(found.forms[0].variant.how_made["mixed"])


def test_the_most_sensitive_layers_are_left_float_until_the_gate_passes(
    spoilt: Bundle, costs: tuple[LayerCost, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_edge.calibrate.mixed_precision.LayerMeasurement.layers", lambda self: costs)
    found = outcome(spoilt, "int8", MixedRecipe(method="sensitivity"))
    assert found.passed
    assert account(found)["float_layers"] == ["averagepool/pooled", "conv/last_out"]
    assert [step["passed"] for step in account(found)["tried"]] == [False, False, True]
    assert float_convolutions(found) == ["conv/last_out"]
    made = found.forms[0].variant.how_made["recipe"]["ptq"]["float_nodes"]
    assert list(made) == ["averagepool/pooled", "conv/last_out"]


def test_no_more_layers_than_the_recipe_allows(
    spoilt: Bundle, costs: tuple[LayerCost, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_edge.calibrate.mixed_precision.LayerMeasurement.layers", lambda self: costs)
    found = outcome(spoilt, "int8", MixedRecipe(method="sensitivity", max_layers=1))
    assert not found.passed


def test_nncfs_search_judges_the_signed_form(spoilt: Bundle) -> None:
    found = outcome(spoilt, "int8-trt", MixedRecipe(method="accuracy-control"))
    assert found.passed
    assert unsigned_nodes(Graph.read(found.forms[0].graphs.encoder)) == ()
    assert {"conv/last_out"} < set(account(found)["float_layers"]), "more than the ranking leaves float"
    assert account(found)["float_layers"] == float_convolutions(found)
    assert not account(found)["tried"][0]["passed"]


def test_a_form_that_passes_is_left_alone(tmp_path: Path) -> None:
    found = outcome(miniature_bundle(tmp_path / "bundle"), "int8", MixedRecipe(method="sensitivity"))
    assert found.passed
    assert "mixed" not in found.forms[0].variant.how_made


def test_the_share_of_a_limit_that_is_used() -> None:
    def check(name: str, measured: float, limit: float) -> GateCheck:
        return GateCheck(name=name, on="rows", measured=measured, limit=limit, passed=True)

    def use(*checks: GateCheck) -> float:
        return gate_use(GateReport(checks=checks, paired={}))

    assert use(check("max_top1_drop", -0.01, 0.005), check("max_flip_rate", 0.015, 0.03)) == pytest.approx(0.5)
    assert use(check("min_agreement", 0.985, 0.97)) == pytest.approx(0.5)
    assert use(check("min_agreement", 1.0, 0.97)) == 0
    assert use(check("max_ece_rise", 0.001, 0.0)) > 1
