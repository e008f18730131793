"""Hyper-parameter search: Optuna draws the values, the sweep's builder trains; slow shapes are skipped untrained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_edge.core.errors import InputError, RecipeError, require
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.recipes import load_recipe, override
from fer_edge.data import Dataset
from fer_edge.sweep.build import BUILD_ERRORS, Builder, SweepFolder
from fer_edge.sweep.grid import Axes, Unit, pruned_variants, reshaped
from fer_edge.sweep.queue import database_url, first_number, open_study, run_trials
from fer_edge.sweep.recipe import SearchSpec, SweepRecipe
from fer_edge.sweep.shape_latency import ShapeLatency
from fer_edge.train.recipe import TrainRecipe

if TYPE_CHECKING:
    from optuna import Study, Trial

    from fer_edge.train.loop import EpochReport, OnEpoch

__all__ = ["Search", "best_units", "check_space", "open_search", "search_recipe"]


def search_recipe(spec: SearchSpec, settings: tuple[str, ...], values: Mapping[str, Any]) -> TrainRecipe:
    """Return the preset with the sweep's settings and a trial's values.

    Raises:
        RecipeError: an unknown preset or key.
        InputError: values that do not fit each other.
    """
    base = override(load_recipe(TrainRecipe, spec.preset, room="train"), settings)
    keys = [f"{key}={_toml(value)}" for key, value in values.items() if key not in ("width", "tokens")]
    return reshaped(override(base, keys), width=values.get("width", 1.0), tokens=values.get("tokens"))


def check_space(recipe: SweepRecipe) -> None:
    """Try both ends of every range and every choice, each with the preset's other values.

    Raises:
        RecipeError: an unknown preset or key, or a value that the preset refuses; the message names the key.
    """
    spec = recipe.search
    assert spec is not None
    written = spec.written()
    for key, each in spec.distributions().items():
        for value in each.choices or (written[key]["low"], written[key]["high"]):
            try:
                search_recipe(spec, recipe.train_settings, {key: value})
            except (InputError, RecipeError) as error:
                raise RecipeError(f"search.space.{key}: {error}") from error


def open_search(folder: SweepFolder, recipe: SweepRecipe, dataset: Dataset, storage: str | None) -> Study:
    """Open the study of this search, or create it.

    Args:
        folder: the sweep's; its ``study.db`` is the storage unless `storage` is given.
        storage: a database URL, for machines that share no folder.

    Raises:
        InputError: ``study.db`` holds another search, or the storage cannot be used.
        MissingPackageError: Optuna is not installed.
    """
    spec = recipe.search
    assert spec is not None
    optuna = require("optuna", needed_by="a sweep that searches", extra="sweep")
    pruners: dict[str, Any] = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=spec.startup, n_warmup_steps=1),
        "halving": optuna.pruners.SuccessiveHalvingPruner(),
        "none": optuna.pruners.NopPruner(),
    }
    name = f"search {_fingerprint(recipe, dataset)}"
    study = open_study(
        name,
        storage or database_url(folder.path),
        directions=["maximize"] if spec.objective == "top1" else ["maximize", "minimize"],
        pruner=pruners[spec.pruner],
    )
    if storage is None:
        names = optuna.get_all_study_names(database_url(folder.path))
        if others := [each for each in names if each.startswith("search ") and each != name]:
            raise InputError(
                f"{folder.path}: got the study of another search ({others[0]}): its space, preset or data differ from "
                "the recipe's; choose another --out"
            )
    return study


def best_units(study: Study, folder: SweepFolder, recipe: SweepRecipe) -> tuple[list[Unit], list[str]]:
    """Return the units of the best trial (or of the whole front), and notes on those whose run is not in the folder."""
    spec = recipe.search
    assert spec is not None
    if spec.objective == "top1":
        complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        best = sorted(complete, key=lambda trial: trial.values[0])[-1:]
    else:
        best = study.best_trials
    units, notes = [], []
    for trial in best:
        unit = _unit(recipe, trial.params, number=first_number(trial))
        if (folder.run_path(unit) / "run.json").exists():
            units.append(unit)
        else:
            notes.append(f"trial {first_number(trial)} is one of the best; its run is in another folder")
    return units, notes


@dataclass(frozen=True, kw_only=True)
class Search:
    """One process's part in a search.

    Attributes:
        builder: trains.
        latency: measures the x of a shape.
    """

    study: Study
    builder: Builder
    latency: ShapeLatency

    def run(self, *, deadline_s: float | None) -> None:
        """Run trials until there are enough of them.

        Args:
            deadline_s: `time.time()` after which no trial starts.

        Raises:
            OutputError: the folder cannot be written.
        """
        run_trials(self.study, self._value, trials=self._spec.trials, deadline_s=deadline_s, catch=BUILD_ERRORS)

    @property
    def _spec(self) -> SearchSpec:
        assert self.builder.recipe.search is not None
        return self.builder.recipe.search

    def _value(self, trial: Trial) -> float | list[float]:
        from optuna import TrialPruned

        spec = self._spec
        unit = _unit(self.builder.recipe, _draw(trial, spec), number=first_number(trial))
        assert unit.recipe is not None
        x = self.latency.x(unit.recipe) if spec.measures_x else None
        if x is not None:
            trial.set_user_attr("x", x)
            if spec.x_at_most is not None and x > spec.x_at_most:
                raise TrialPruned(f"x = {x:.3f} is above {spec.x_at_most:g}")
        judge = _Judge(trial=trial if spec.objective == "top1" else None, then=self.builder.options(unit.name).on_epoch)
        try:
            run = self.builder.train(unit, on_epoch=judge)
        except (TrialPruned, *BUILD_ERRORS):
            shutil.rmtree(self.builder.folder.run_path(unit), ignore_errors=True)
            raise
        choose = run.record["choose"]
        top1: float = choose["top1"] if choose["top1_without_leaked"] is None else choose["top1_without_leaked"]
        return top1 if x is None or spec.objective == "top1" else [top1, x]


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """An `OnEpoch` that stops a training when the study prunes it; never where `trial` is None."""

    trial: Trial | None
    then: OnEpoch | None

    def __call__(self, report: EpochReport) -> None:
        from optuna import TrialPruned

        if self.then is not None:
            self.then(report)
        if self.trial is None or report.score is None:
            return
        known = self.trial.study.get_trials(deepcopy=False)[self.trial.number].intermediate_values
        if report.epoch not in known:  # a resumed training repeats no report
            self.trial.report(report.score, report.epoch)
        if self.trial.should_prune():
            raise TrialPruned(f"pruned after epoch {report.epoch} at {report.score:.4f}")


def _unit(recipe: SweepRecipe, values: Mapping[str, Any], *, number: int) -> Unit:
    spec = recipe.search
    assert spec is not None
    changed = search_recipe(spec, recipe.train_settings, values)
    preset = Path(spec.preset).stem
    name = f"{preset}-trial{number}"
    axes = Axes(preset=preset, width=values.get("width", 1.0), tokens=changed.model.tokens, trial=number)
    networks = pruned_variants(name, axes, recipe.keep)
    return Unit(name=name, networks=networks, recipe=changed, teachers=spec.teachers)


def _draw(trial: Trial, spec: SearchSpec) -> dict[str, Any]:
    """Draw a trial's values; a repeated trial keeps those it has.

    The sampler's seed depends on the trial's number, which the storage assigns: no two processes draw the same values,
    and their number does not change them.
    """
    from optuna.samplers import TPESampler

    trial.study.sampler = TPESampler(seed=spec.seed + first_number(trial), n_startup_trials=spec.startup)
    values: dict[str, Any] = {}
    written = spec.written()
    for key, each in spec.distributions().items():
        if each.choices:
            values[key] = trial.suggest_categorical(key, [_scalar(choice) for choice in each.choices])
            continue
        assert each.low is not None
        assert each.high is not None
        if all(isinstance(written[key][end], int) for end in ("low", "high")):
            step = int(each.step or 1)
            values[key] = trial.suggest_int(key, int(each.low), int(each.high), log=each.log, step=step)
        else:
            values[key] = trial.suggest_float(key, each.low, each.high, log=each.log, step=each.step)
    return values


def _scalar(choice: Any) -> Any:
    """Return a choice as Optuna stores it: a list as its TOML text, which `override` reads back."""
    return choice if isinstance(choice, (bool, int, float, str)) else _toml(choice)


def _toml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fingerprint(recipe: SweepRecipe, dataset: Dataset) -> str:
    """Hash everything that a trial's value depends on."""
    spec = recipe.search
    assert spec is not None
    inputs = {
        "search": {key: value for key, value in asdict(spec).items() if key != "trials"},
        "preset": encode(search_recipe(spec, recipe.train_settings, {})),
        "data": dataset.sha256,
    }
    return sha256_bytes(json.dumps(inputs, sort_keys=True).encode())[:16]
