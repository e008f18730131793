from __future__ import annotations

from pathlib import Path

import pytest

from fer_edge.calibrate.recipe import CalibrationRecipe, OverflowFixes
from fer_edge.errors import InputError
from fer_edge.recipes import load_recipe, override, recipe_names


def load(name_or_path: str = "default") -> CalibrationRecipe:
    return load_recipe(CalibrationRecipe, name_or_path, room="calibrate")


def test_the_shipped_recipe_states_the_defaults_and_the_limits_of_the_protocol() -> None:
    recipe = load()
    assert recipe == CalibrationRecipe()
    assert recipe.forms == ("int8", "int8-trt")
    limits = recipe.gate
    assert (limits.max_top1_drop, limits.max_flip_rate, limits.max_ece_rise) == (0.005, 0.03, 0.01)
    assert (limits.min_agreement, limits.agreement_rows) == (0.97, 10_000)
    assert recipe_names("calibrate") == ("default",)


def test_each_form_has_an_overflow_fix_of_its_own() -> None:
    fixes = OverflowFixes(int8="first_layer_only")
    assert (fixes.of("int8"), fixes.of("int8-trt")) == ("first_layer_only", "disable")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ptq.presett=mixed", "did you mean 'preset'"),
        ("sample.size=0", "sample.size: got 0, expected 1 or more"),
        ("gate.min_agreement=97", "gate.min_agreement: got 97.0, expected a fraction"),
        ("overflow_fix.int8=half", "one of 'disable', 'first_layer_only', 'enable'"),
        ("ptq.smooth_quant=2", "expected 0 to 1"),
        ("forms=[]", "forms: got"),
        ('forms=["int8","int8"]', "each form once"),
        ("parent=int8", "expected a float variant"),
        ("ptq.preset=mixed", "TensorRT takes symmetric INT8 only"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        override(load(), [setting])


def test_mixed_zero_points_are_for_int8_alone() -> None:
    recipe = override(load(), ['forms=["int8"]', "ptq.preset=mixed"])
    assert recipe.ptq.preset == "mixed"


def test_a_recipe_of_ones_own_names_its_faults_by_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('forms = ["int8"]\n\n[gate]\nmax_flip_rate = "3 %"\n')
    with pytest.raises(InputError, match=r"mine\.toml, line 4: gate\.max_flip_rate"):
        load(str(path))
