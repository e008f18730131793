"""A recipe as a list of networks: which are trained, which are pruned from which, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Final

from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import InputError
from fer_edge.core.recipes import load_recipe, override
from fer_edge.model.config import ModelConfig
from fer_edge.sweep.recipe import EVERY_BUNDLE, GridSpec, SweepRecipe
from fer_edge.train.recipe import TrainRecipe

__all__ = ["Axes", "Network", "Unit", "plan_units", "reshaped", "run_unit", "scaled"]

_ROUND_TO: Final = 8


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Where in the grid a network stands; None where it was not placed by an axis.

    Attributes:
        preset: the training recipe.
        width: factor on its widths.
        tokens: region tokens.
        keep: share of the encoder's multiply-accumulates that pruning kept.
        trial: the search's number.
    """

    preset: str | None = None
    width: float | None = None
    tokens: int | None = None
    keep: float | None = None
    trial: int | None = None


@dataclass(frozen=True, kw_only=True)
class Network:
    """One set of weights: a bundle, once it is made."""

    name: str
    axes: Axes


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one process works on at a time: one training (or what stands for it) and everything made of it.

    Attributes:
        name: also its folder's.
        networks: what comes of it, first the one that is not pruned.
        recipe: what to train.
        teachers: runs or bundles to distil it from.
        run: a finished run's folder, where nothing is to be trained.
        bundle: a bundle's folder or shipped name, which is taken as it is.
    """

    name: str
    networks: tuple[Network, ...]
    recipe: TrainRecipe | None = None
    teachers: tuple[str, ...] = ()
    run: Path | None = None
    bundle: str | None = None


def plan_units(recipe: SweepRecipe) -> tuple[Unit, ...]:
    """Everything but the search's networks, which are not known before it has ended: bundles, runs, then the grid.

    Raises:
        InputError: an unknown preset or setting, a width or token count that does not fit the preset, two networks of
            one name, no shipped bundle where all are asked for, or a run that is none.
        BundleError: a bundle that is missing or damaged.
    """
    units = [*_bundles(recipe.bundles)]
    units += [run_unit(Path(run), name=Path(run).resolve().name, keep=recipe.keep) for run in recipe.runs]
    if recipe.grid is not None:
        units += _grid(recipe.grid, recipe)
    names: set[str] = set()
    for network in (network for unit in units for network in unit.networks):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", network.name):
            raise InputError(f"{network.name!r} cannot name a network: letters, digits, dots and dashes, 64 at most")
        if network.name in names:
            raise InputError(
                f"two networks of the sweep are called {network.name!r}; rename a folder, or leave one out"
            )
        names.add(network.name)
    return tuple(units)


def run_unit(run: Path, *, name: str, keep: Sequence[float], axes: Axes | None = None) -> Unit:
    """A finished run, and what pruning makes of it.

    Raises:
        InputError: the folder holds no run.
    """
    if not (run / "run.json").is_file():
        raise InputError(f"{run} is no training run: it holds no run.json; expected the --out of fer-edge train")
    return Unit(name=name, networks=_kept(name, axes or Axes(), keep), run=run)


def reshaped(recipe: TrainRecipe, *, width: float = 1.0, tokens: int | None = None) -> TrainRecipe:
    """A training recipe with other widths and another number of region tokens.

    Raises:
        InputError: a number of tokens that does not fit the feature map.
    """
    model = scaled(recipe.model, width)
    if tokens is not None:
        model = replace(model, token_grid=isqrt(tokens))
    return replace(recipe, model=model)


def scaled(config: ModelConfig, width: float) -> ModelConfig:
    """Every channel count and hidden width times `width`, rounded to multiples of 8, at least 8; 1 changes nothing."""
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
    for name in dict.fromkeys(each for given in names for each in (every if given == EVERY_BUNDLE else (given,))):
        called = Bundle.open(name).manifest.name
        yield Unit(name=called, networks=(Network(name=called, axes=Axes()),), bundle=name)
    if names and not zoo_names() and EVERY_BUNDLE in names:
        raise InputError(
            f"bundles: {EVERY_BUNDLE!r} stands for every shipped bundle, and none is shipped; name folders"
        )


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
                except InputError as error:
                    raise InputError(f"{name}: {error}") from error
                if (other := shapes.setdefault(changed, name)) != name:
                    raise InputError(
                        f"{other} and {name} are one shape, because widths are rounded to multiples of {_ROUND_TO}; "
                        "leave one of them out of the grid"
                    )
                axes = Axes(preset=called, width=width, tokens=changed.model.tokens)
                yield Unit(name=name, networks=_kept(name, axes, recipe.keep), recipe=changed, teachers=grid.teachers)


def _kept(name: str, axes: Axes, keep: Sequence[float]) -> tuple[Network, ...]:
    shares = sorted(keep, reverse=True)
    return tuple(
        Network(name=name + (f"-k{share:g}" if share != 1 else ""), axes=replace(axes, keep=share)) for share in shares
    )
