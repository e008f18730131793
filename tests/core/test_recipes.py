from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from fer_edge.core.errors import RecipeError
from fer_edge.core.json import expect
from fer_edge.core.recipe_overrides import override
from fer_edge.core.recipes import load_recipe, recipe_names


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        expect(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    epochs: int
    name: str = "plain"
    widths: tuple[int, ...] = (8, 16)
    patience: int | None = None
    mirror: bool = True
    weights: Mapping[str, float] = field(default_factory=dict)
    optimiser: Optimiser = Optimiser()
    teacher: Optimiser | None = None


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Recipe]:
    def write_and_load(text: str) -> Recipe:
        path = tmp_path / "own.toml"
        path.write_text(text)
        return load_recipe(Recipe, str(path), room="train")

    return write_and_load


def test_every_kind_of_value(load: Callable[[str], Recipe]) -> None:
    recipe = load(
        """
        epochs = 3
        widths = [4, 4, 8]
        patience = 2
        mirror = false
        weights = { happy = 1, sad = 2.5 }
        optimiser.learning_rate = 1
        [teacher]
        schedule = "constant"
        """
    )
    assert recipe == Recipe(
        epochs=3,
        widths=(4, 4, 8),
        patience=2,
        mirror=False,
        weights={"happy": 1.0, "sad": 2.5},
        optimiser=Optimiser(learning_rate=1.0),
        teacher=Optimiser(schedule="constant"),
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("epochs = 3\nepoch = 4\n", 2, ["epoch:", "'epochs'"]),
        ("# a note\n\nepochs = 3\n[optimiser]\nlearning_rte = 1\n", 5, ["optimiser.learning_rte", "'learning_rate'"]),
        ('epochs = "3"\n', 1, ["epochs", "'3'", "whole number"]),
        ("epochs = true\n", 1, ["epochs", "whole number"]),
        ("epochs = 3.5\n", 1, ["epochs", "whole number"]),
        ("epochs = 3\noptimiser.learning_rate = nan\n", 2, ["optimiser.learning_rate", "finite"]),
        ("epochs = 3\nwidths = [\n  8,\n  'wide',\n]\n", 2, ["widths[1]", "'wide'"]),
        ("epochs = 3\n\n[optimiser]\nschedule = 'cosin'\n", 4, ["optimiser.schedule", "'cosine'", "'constant'"]),
        ("epochs = 3\noptimiser = 4\n", 2, ["optimiser"]),
        ("epochs = 3\n[optimiser]\nlearning_rate = -1\n", 3, ["optimiser.learning_rate", "above 0"]),
        ("epochs = 3\nname = 'x\n'\n", 2, ["not valid TOML"]),
    ],
)
def test_a_wrong_line_is_named(load: Callable[[str], Recipe], text: str, line: int, words: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load(text)
    message = str(caught.value)
    assert "own.toml" in message
    assert f"line {line}" in message
    for word in words:
        assert word in message


def test_a_missing_key_is_named(load: Callable[[str], Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"own\.toml.*epochs.*missing"):
        load("name = 'x'\n")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RecipeError, match=r"nowhere/own\.toml.*No such file"):
        load_recipe(Recipe, "nowhere/own.toml", room="train")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"name = '\xff'\n")
    with pytest.raises(RecipeError, match=r"own\.toml is not UTF-8"):
        load_recipe(Recipe, str(path), room="train")


class TestShipped:
    @pytest.fixture(autouse=True)
    def _shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "train" / "recipes"
        folder.mkdir(parents=True)
        (folder / "quick.toml").write_text("epochs = 1\n")
        (folder / "edge.toml").write_text("epochs = 30\n")
        (folder / "README.md").write_text("no recipe\n")
        monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)

    def test_names(self) -> None:
        assert recipe_names("train") == ("edge", "quick")
        assert recipe_names("bench") == ()

    def test_found_by_name(self) -> None:
        assert load_recipe(Recipe, "edge", room="train") == Recipe(epochs=30)

    def test_the_nearest_name_is_offered(self) -> None:
        with pytest.raises(RecipeError, match=r"no train recipe is called 'edg'.*'edge'"):
            load_recipe(Recipe, "edg", room="train")

    def test_a_far_name_lists_them_all(self) -> None:
        with pytest.raises(RecipeError, match="edge, quick"):
            load_recipe(Recipe, "../../secret", room="train")


class TestOverride:
    recipe = Recipe(epochs=3, patience=5, weights={"happy": 1.0})

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            (["epochs=4", "epochs=5"], Recipe(epochs=5, patience=5, weights={"happy": 1.0})),
            (["name=fast and small"], Recipe(epochs=3, patience=5, weights={"happy": 1.0}, name="fast and small")),
            (["name=10.30", "weights={}"], Recipe(epochs=3, patience=5, name="10.30")),
            (['name="10.30"', "weights={}"], Recipe(epochs=3, patience=5, name="10.30")),
            (["patience=none", "mirror=false"], Recipe(epochs=3, weights={"happy": 1.0}, mirror=False)),
            (["weights.sad = 2"], Recipe(epochs=3, patience=5, weights={"happy": 1.0, "sad": 2.0})),
            (["widths=[1]", "weights={}"], Recipe(epochs=3, patience=5, widths=(1,))),
            (
                ["optimiser.schedule=constant", "teacher.learning_rate=2", "weights={}", "patience=none"],
                Recipe(epochs=3, optimiser=Optimiser(schedule="constant"), teacher=Optimiser(learning_rate=2.0)),
            ),
        ],
    )
    def test_values_take_their_place(self, settings: list[str], expected: Recipe) -> None:
        assert override(self.recipe, settings) == expected

    def test_the_original_stays(self) -> None:
        override(self.recipe, ["weights.sad=2", "epochs=9"])
        assert self.recipe == Recipe(epochs=3, patience=5, weights={"happy": 1.0})

    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ("epochs", ["'epochs'", "key=value"]),
            ("=3", ["key=value"]),
            ("optimiser..learning_rate=3", ["key=value"]),
            ("epoch=3", ["epoch", "'epochs'"]),
            ("optimizer.learning_rate=3", ["optimizer", "'optimiser'"]),
            ("epochs.first=3", ["'epochs'", "not a table"]),
            ("epochs=many", ["epochs", "'many'", "whole number"]),
            ("optimiser.learning_rate=-1", ["optimiser.learning_rate", "above 0"]),
        ],
    )
    def test_what_does_not_fit_is_named(self, setting: str, words: list[str]) -> None:
        with pytest.raises(RecipeError) as caught:
            override(self.recipe, [setting])
        for word in ["--set", *words]:
            assert word in str(caught.value)
