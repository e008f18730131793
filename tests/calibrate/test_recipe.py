from __future__ import annotations

from pathlib import Path

import pytest

from fer_edge.calibrate.recipe import CalibrationRecipe, Candidate, ChoiceRecipe, OverflowFixes
from fer_edge.core.errors import RecipeError
from fer_edge.core.recipe_overrides import override
from fer_edge.core.recipes import load_recipe, recipe_names


def load(name_or_path: str = "default") -> CalibrationRecipe:
    return load_recipe(CalibrationRecipe, name_or_path, room="calibrate")


def test_the_shipped_recipe_states_the_defaults_and_the_limits_of_the_protocol() -> None:
    recipe = load()
    assert recipe == CalibrationRecipe()
    assert recipe.forms == ("int8", "int8-trt")
    limits = recipe.gate
    assert (limits.max_top1_drop, limits.max_flip_rate, limits.max_ece_rise) == (0.005, 0.03, 0.01)
    assert (limits.min_agreement, limits.agreement_rows) == (0.97, 10_000)
    assert recipe_names("calibrate") == ("default", "float-layers")


def test_each_form_has_an_overflow_fix_of_its_own() -> None:
    fixes = OverflowFixes(int8="first_layer_only")
    assert (fixes.of("int8"), fixes.of("int8-trt")) == ("first_layer_only", "disable")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ptq.batchs=4", "did you mean 'batch'"),
        ("sample.size=0", "sample.size: got 0, expected 1 or more"),
        ("gate.min_agreement=97", "gate.min_agreement: got 97.0, expected a fraction"),
        ("overflow_fix.int8=half", "one of 'disable', 'first_layer_only', 'enable'"),
        ("forms=[]", "forms: got"),
        ('forms=["int8","int8"]', "each form once"),
        ("parent=int8", "expected a float variant"),
        ("sample.choice=hard", "one of 'stratified', 'balanced'"),
        ("sensitivity.rows=0", "expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        override(load(), [setting])


def test_the_first_convolution_may_stay_float() -> None:
    recipe = load("float-layers")
    assert recipe.choice == ChoiceRecipe(), "INT8 must be no worse calibrated than FP32"
    ways = {candidate.name: recipe.of_candidate(candidate) for candidate in recipe.candidates}
    assert ways["whole"] == recipe.of_candidate(Candidate(name="as it is"))
    for name, way in ways.items():
        assert way.ptq.float_nodes == (() if "whole" in name else ("cnn.0.0",)), name
        assert way.ptq.bias_correction == ("bias-correction" in name), name
        assert way.ptq.activation_range == ("mean" if "mean" in name else "histogram"), name
        assert way.sample.choice == ("balanced" if "balanced" in name else "stratified"), name
        assert way.sample.size == (128 if "sample-128" in name else 512), name


def test_a_candidate_that_does_not_fit_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"

    def refused(text: str, words: str) -> None:
        path.write_text(text)
        with pytest.raises(RecipeError, match=words):
            load(str(path))

    refused('[[candidates]]\nname = "a"\nset = ["ptq.bias_corection=true"]\n', r"candidates\[0\].*did you mean")
    refused('[[candidates]]\nname = "a"\n[[candidates]]\nname = "a"\n', "each name once")


def test_a_recipe_of_ones_own_names_its_faults_by_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('forms = ["int8"]\n\n[gate]\nmax_flip_rate = "3 %"\n')
    with pytest.raises(RecipeError, match=r"mine\.toml, line 4: gate\.max_flip_rate"):
        load(str(path))
