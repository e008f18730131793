"""Target recipes: the shipped ones, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_edge.core.errors import RecipeError
from fer_edge.core.recipe_overrides import override
from fer_edge.export.recipe import load_target
from fer_edge.export.selection import choose_target, target_names
from fer_edge.export.target import BACKENDS

SHIPPED = {
    "cpu-arm", "cpu-x86", "cuda", "desktop-tensorrt", "jetpack5", "jetson-orin-agx", "jetson-orin-nano", "jetson-thor",
    "openvino", "rtx-desktop", "triton",
}  # fmt: skip


@pytest.mark.parametrize("name", target_names())
def test_a_shipped_recipe_is_whole(name: str) -> None:
    recipe = load_target(name)
    assert recipe.kind in BACKENDS
    assert recipe.summary[0] != " "
    assert choose_target(name) == name


def test_every_target_of_the_guide_ships() -> None:
    assert set(target_names()) >= SHIPPED


@pytest.mark.parametrize(
    ("name", "flavour", "precision"),
    [
        ("jetpack5", "8.5", "int8-fp16"),
        ("jetson-orin-nano", "10.3", "int8-fp16"),
        ("jetson-orin-agx", "10.3", "int8-fp16"),
        ("jetson-thor", "10.13", "int8-fp16"),
        ("desktop-tensorrt", "11", "int8-fp16"),
        ("rtx-desktop", "rtx", "fp16"),
    ],
)
def test_tensorrt_targets_name_their_flavour(name: str, flavour: str, precision: str) -> None:
    recipe = load_target(name)
    assert (recipe.flavour, recipe.precision) == (flavour, precision)
    assert recipe.tensorrt is not None
    assert recipe.lstm == "unrolled"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jetson-orin-nanno", "got 'jetson-orin-nanno', .*did you mean jetson-orin-nano"),
        ("desktop-tensort", "did you mean desktop-tensorrt"),
        ("zzz", "expected one of cpu-arm, cpu-x86"),
    ],
)
def test_an_unknown_target_names_the_nearest(name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        choose_target(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "summary = 'a'\nkind = 'tensorrt'\nprovider = 'tensorrt'\nprecision = 'fp16'",
            "flavour: got None, expected one of",
        ),
        (
            "summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\nflavour = '10.3'",
            "line 4: flavour: got '10.3', expected none",
        ),
        (
            "summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\nprecission = 'fp16'",
            "line 4: precission: unknown.*'precision'",
        ),
        (
            "summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\nprecision = 'fp16'",
            "line 4: precision: got 'fp16', expected 'vari",
        ),
        (
            "summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\nlstm = 'rolled'",
            "line 4: lstm: got 'rolled', expected one of 'loop'",
        ),
        (
            "summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\n[shapes]\nframes = {min = 4, max = 2}",
            "line 5: shapes.frames.min",
        ),
        ("summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\n[shapes]\ntime = {opt = 2}", "min: got"),
        ("summary = 'a'\nkind = 'ort'\nprovider = 'cpu'\ncompute_capabilities = [86]", "expected none: the kind 'ort'"),
        ("summary = ''\nkind = 'ort'\nprovider = 'cpu'", "line 1: summary"),
        ("kind = 'ort'", "summary: missing"),
        ("kind = ", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_named_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        load_target(str(path))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("shapes.dynamic=true", "unrolling needs a fixed number of steps"),
        ("shapes.time={min = 1, opt = 4, max = 16}", "unrolling needs a fixed number of steps"),
        ("compute_capabilities=[86]", "only TensorRT-RTX builds for other GPUs"),
        ("dla_core=2", "dla_core: got 2, expected 0 or 1"),
        ("flavour='9.9'", "flavour: got '9.9', expected one of 8.5"),
        ("workspace_mib=0", "workspace_mib"),
        ("opset=99", "opset"),
    ],
)
def test_values_that_do_not_fit_each_other(setting: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        override(load_target("jetson-orin-nano"), [setting])


def test_flavours_without_an_accelerator_take_no_dla_core() -> None:
    for name in ("jetson-thor", "rtx-desktop", "desktop-tensorrt"):
        with pytest.raises(RecipeError, match="has no accelerator"):
            override(load_target(name), ["dla_core=0"])
