"""Sweep recipes: what they expand to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_edge.core.errors import InputError, RecipeError
from fer_edge.core.recipes import load_recipe, recipe_names
from fer_edge.sweep.grid import plan_units, scaled
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.sweep.run import load_sweep
from fer_edge.train.recipe import TrainRecipe


def told(text: str, folder: Path) -> SweepRecipe:
    (folder / "sweep.toml").write_text(text)
    return load_sweep(str(folder / "sweep.toml"))


def names(recipe: SweepRecipe) -> list[str]:
    return [network.name for unit in plan_units(recipe) for network in unit.networks]


@pytest.mark.parametrize("name", recipe_names("sweep"))
def test_shipped_recipes_can_be_followed(name: str) -> None:
    recipe = load_sweep(name)
    assert plan_units(recipe)


class TestGrid:
    def test_is_every_combination(self, tmp_path: Path, preset: Path) -> None:
        recipe = told(
            f'keep = [0.5, 1.0]\n[grid]\npresets = ["{preset}"]\nwidths = [0.5, 1.0]\ntokens = [1, 4]', tmp_path
        )
        assert names(recipe) == [
            f"small{width}-t{tokens}{keep}" for width in ("-w0.5", "") for tokens in (1, 4) for keep in ("", "-k0.5")
        ]
        narrow = plan_units(recipe)[0]
        assert narrow.recipe is not None
        assert narrow.recipe.model.channels == (8, 8, 8, 8)
        assert narrow.recipe.model.temporal_hidden == 8
        assert narrow.recipe.model.token_grid == 1
        assert [network.axes.keep for network in narrow.networks] == [1.0, 0.5]

    def test_widths_are_rounded_to_what_vector_units_like(self) -> None:
        edge = load_recipe(TrainRecipe, "edge", room="train").model
        narrow = scaled(edge, 0.3)
        assert narrow.channels == (16, 16, 40, 80)
        assert narrow.blocks == ((), (16,), (40,), (80,))
        assert narrow.attention_size == edge.attention_size
        assert scaled(edge, 1.0) == edge
        assert min(scaled(edge, 0.001).channels) == 8

    def test_settings_reach_every_training(self, tmp_path: Path, preset: Path) -> None:
        recipe = told(f'train_settings = ["optimiser.epochs=7"]\n[grid]\npresets = ["{preset}"]', tmp_path)
        (unit,) = plan_units(recipe)
        assert unit.recipe is not None
        assert unit.recipe.optimiser.epochs == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "networks: got none"),
        ("providers = []\nbundles = ['base']", "providers: got ()"),
        ("bundles = ['base', 'base']", "each once"),
        ("bundles = ['base']\nkeep = [0.5]", "bundles are measured as they are"),
        ("[grid]\npresets = []", "presets"),
        ("[grid]\npresets = ['edge']\nwidths = []", "widths"),
        ("[grid]\npresets = ['edge']\nwidths = [0.0]", "factors above 0"),
        ("[grid]\npresets = ['edge']\ntokens = [5]", "square numbers"),
        ("[grid]\npresets = ['edge']\nwidth = [1.0]", "did you mean 'widths'"),
        ("precisions = ['int4']\n[grid]\npresets = ['edge']", "one of fp32, int8, int8-trt"),
        ("keep = [1.5]\n[grid]\npresets = ['edge']", "shares above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        told(text, tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "sweep.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\npresets = ['egde']", "did you mean 'edge'"),
        ("train_settings = ['optimiser.epoch=3']\n[grid]\npresets = ['edge']", "did you mean 'epochs'"),
        ("[grid]\npresets = ['edge']\ntokens = [16]", "edge-t16: input_size: got 48"),
        ("[grid]\npresets = ['edge']\nwidths = [0.01, 0.02]", "are one shape"),
        ("runs = ['nowhere']", "is no training run"),
        ("runs = ['.']\nbundles = ['base']", "is no training run"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, InputError)) as caught:
        plan_units(told(text, tmp_path))
    assert message in str(caught.value)


def test_two_networks_of_one_name_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "base"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(RecipeError, match="two networks of the sweep are called 'base'"):
        plan_units(SweepRecipe(bundles=("base",), runs=(str(run),)))
