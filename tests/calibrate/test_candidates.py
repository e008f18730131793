"""Candidates compared, and the rule that takes one of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from miniature import miniature_bundle, noise_dataset

from fer_edge.calibrate.candidates import CandidateResult, Comparison, compare_candidates, ranked
from fer_edge.calibrate.recipe import CalibrationRecipe, Candidate, ChoiceRecipe, GateLimits, SampleRecipe
from fer_edge.core.errors import GateError, RecipeError
from fer_edge.core.provenance import read_provenance
from fer_edge.core.verify import verify_bundle

GENEROUS = GateLimits(
    max_top1_drop=0.2, max_flip_rate=0.2, max_ece_rise=0.2, min_agreement=0.8, agreement_rows=60, agreement_seed=1
)
RECIPE = CalibrationRecipe(
    sample=SampleRecipe(size=21),
    gate=GENEROUS,
    choice=ChoiceRecipe(max_ece_rise=0.2, agreement_rows=30),
    candidates=(
        Candidate(name="plain"),
        Candidate(name="percentile", set=('forms=["int8"]', "ptq.activation_range=percentile")),
        Candidate(name="balanced", set=("sample.choice=balanced", 'forms=["int8"]')),
    ),
)
RESULT = CandidateResult(
    name="a", set=(), form="int8", top1=0.7, top1_drop=0.0, flip_rate=0.02, only_parent_right=1, only_form_right=1,
    mcnemar_p=1.0, ece=0.02, ece_rise=0.0, temperature=1.0, agreement=1.0, mean_abs_logit_diff=0.1, size_bytes=10,
    gate_passed=True, within=True, quantize_s=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    bundle = miniature_bundle(tmp_path_factory.mktemp("candidates") / "bundle")
    return compare_candidates(bundle, noise_dataset(), recipe=RECIPE)


def test_every_candidate_is_measured_in_the_forms_it_makes(comparison: Comparison) -> None:
    assert [(each.name, each.form) for each in comparison.results] == [
        ("plain", "int8"), ("plain", "int8-trt"), ("percentile", "int8"), ("balanced", "int8"),
    ]  # fmt: skip
    assert all(0 < each.mean_abs_logit_diff < 0.5 for each in comparison.results)
    assert len({each.mean_abs_logit_diff for each in comparison.results}) == 4
    assert comparison.rows["n"] == 65


def test_agreement_rows_lie_outside_every_sample(comparison: Comparison) -> None:
    assert comparison.rows["agreement"]["size"] == 30
    assert comparison.outcome.provenance["int8"]["agreement_rows"]["size"] == 60


def test_the_chosen_go_through_the_whole_gate_and_can_be_written(comparison: Comparison) -> None:
    comparison.require_chosen()
    best = ranked([each for each in comparison.results if each.form == "int8"])[0]
    assert comparison.chosen == {"int8": best.name, "int8-trt": "plain"}
    assert comparison.outcome.passed
    bundle = comparison.outcome.write()
    assert verify_bundle(bundle.path).ok
    assert read_provenance(bundle).calibration["int8"]["choice"]["chosen"] == comparison.chosen
    assert read_provenance(bundle).calibration["int8"]["recipe"]["candidates"] == []


def test_where_none_may_ship_the_nearest_is_named(comparison: Comparison) -> None:
    nothing = dataclasses.replace(comparison, chosen={"int8": "plain"})
    with pytest.raises(GateError, match=r"int8-trt: got 1 candidates, .* nearest is 'plain', flips 0\.\d+"):
        nothing.require_chosen()


def test_the_fewest_flips_win_within_the_limits() -> None:
    few = dataclasses.replace(RESULT, name="few", flip_rate=0.01, top1=0.69)
    out = dataclasses.replace(RESULT, name="out", flip_rate=0.0, within=False)
    assert [each.name for each in ranked([out, RESULT, few])] == ["few", "a"]


def test_a_form_that_no_candidate_makes_is_refused(tmp_path: Path) -> None:
    only = (Candidate(name="int8 alone", set=('forms=["int8"]',)),)
    recipe = dataclasses.replace(RECIPE, candidates=only)
    with pytest.raises(RecipeError, match="got none of the form 'int8-trt'"):
        compare_candidates(miniature_bundle(tmp_path / "bundle"), noise_dataset(), recipe=recipe)
