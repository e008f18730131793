"""The networks of a sweep recipe: shipped bundles, finished runs, and the grid's trainings with pruned variants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Final

from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import InputError, RecipeError
from fer_edge.core.recipe_overrides import override
from fer_edge.core.recipes import load_recipe
from fer_edge.model.config import ModelConfig
from fer_edge.sweep.recipe import EVERY_BUNDLE, GridSpec, SweepRecipe
from fer_edge.train.recipe import TrainRecipe

__all__ = ["Axes", "Network", "Unit", "plan_units", "pruned_variants", "reshaped", "scaled"]

_ROUND_TO: Final = 8


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A network's coordinates in the grid; None where the recipe does not set that axis.

    Attributes:
        width: factor on its widths.
        keep: share of the encoder's multiply-accumulates after pruning.
    """

    preset: str | None = None
    width: float | None = None
    tokens: int | None = None
    keep: float | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """One set of weights, exported to one bundle."""

    name: str
    axes: Axes


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One training, finished run or bundle, with the networks derived from it.

    Attributes:
        name: also of its folder.
        networks: the unpruned one first.
        recipe: of the training; None where nothing is trained.
        teachers: runs or bundles to distil from.
        run: folder of a finished run.
        bundle: folder or shipped name of a bundle.
    """

    name: str
    networks: tuple[Network, ...]
    recipe: TrainRecipe | None = None
    teachers: tuple[str, ...] = ()
    run: Path | None = None
    bundle: str | None = None


def plan_units(recipe: SweepRecipe) -> tuple[Unit, ...]:
    """List bundles, runs, then the grid.

    Raises:
        RecipeError: an unknown preset or setting, a width or token count that does not fit the preset, two networks of
            one name, or ``"*"`` where no bundle is shipped.
        InputError: a run folder without a run.
        BundleError: a bundle that is missing or damaged.
    """
    units = [*_bundles(recipe.bundles)]
    units += [_run_unit(Path(run), recipe.keep) for run in recipe.runs]
    if recipe.grid is not None:
        units += _grid(recipe.grid, recipe)
    names: set[str] = set()
    for network in (network for unit in units for network in unit.networks):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", network.name):
            raise RecipeError(
                f"network name: got {network.name!r}, expected letters, digits, dots and dashes, 64 at most; "
                "rename the folder"
            )
        if network.name in names:
            raise RecipeError(f"two networks of the sweep are called {network.name!r}; rename a folder, or drop one")
        names.add(network.name)
    return tuple(units)


def pruned_variants(name: str, axes: Axes, keep: Sequence[float]) -> tuple[Network, ...]:
    """Return one network for each share that pruning keeps, the largest first."""
    return tuple(
        Network(name=name + (f"-k{share:g}" if share != 1 else ""), axes=replace(axes, keep=share))
        for share in sorted(keep, reverse=True)
    )


def reshaped(recipe: TrainRecipe, *, width: float = 1.0, tokens: int | None = None) -> TrainRecipe:
    """Return a training recipe with scaled widths and another number of region tokens.

    Raises:
        InputError: the number of tokens does not fit the feature map.
    """
    model = scaled(recipe.model, width)
    if tokens is not None:
        model = replace(model, token_grid=isqrt(tokens))
    return replace(recipe, model=model)


def scaled(config: ModelConfig, width: float) -> ModelConfig:
    """Multiply every channel count and hidden width by `width`, rounded to multiples of 8, at least 8.

    A width of 1 changes nothing.
    """
    if width == 1:
        return config

    def of(count: int) -> int:
        return max(_ROUND_TO, _ROUND_TO * round(width * count / _ROUND_TO))

    return replace(
        config,
        channels=tuple(of(count) for count in config.channels),
        blocks=tuple(tuple(of(count) for count in stage) for stage in config.blocks),
        spatial_hidden=of(config.spatial_hidden),
        temporal_hidden=of(config.temporal_hidden),
    )


def _bundles(names: Sequence[str]) -> Iterator[Unit]:
    every = zoo_names()
    if EVERY_BUNDLE in names and not every:
        raise RecipeError(f"bundles: got {EVERY_BUNDLE!r}, but no bundle is shipped; name folders")
    for name in dict.fromkeys(each for given in names for each in (every if given == EVERY_BUNDLE else (given,))):
        called = Bundle.open(name).manifest.name
        yield Unit(name=called, networks=(Network(name=called, axes=Axes()),), bundle=name)


def _run_unit(run: Path, keep: Sequence[float]) -> Unit:
    if not (run / "run.json").is_file():
        raise InputError(f"runs: got {run}, which is no training run (no run.json); give the --out of fer-edge train")
    name = run.resolve().name
    return Unit(name=name, networks=pruned_variants(name, Axes(), keep), run=run)


def _grid(grid: GridSpec, recipe: SweepRecipe) -> Iterator[Unit]:
    shapes: dict[TrainRecipe, str] = {}
    for preset in grid.presets:
        base = override(load_recipe(TrainRecipe, preset, room="train"), recipe.train_settings)
        called = Path(preset).stem if preset.endswith(".toml") else preset
        for width in grid.widths:
            for tokens in grid.tokens or (None,):
                name = called + (f"-w{width:g}" if width != 1 else "") + (f"-t{tokens}" if tokens else "")
                try:
                    changed = reshaped(base, width=width, tokens=tokens)
                except (InputError, RecipeError) as error:
                    raise RecipeError(f"{name}: {error}") from error
                if (other := shapes.setdefault(changed, name)) != name:
                    raise RecipeError(
                        f"{other} and {name} are one shape, because widths are rounded to multiples of {_ROUND_TO}; "
                        "drop one of them from the grid"
                    )
                axes = Axes(preset=called, width=width, tokens=changed.model.tokens)
                networks = pruned_variants(name, axes, recipe.keep)
                yield Unit(name=name, networks=networks, recipe=changed, teachers=grid.teachers)
