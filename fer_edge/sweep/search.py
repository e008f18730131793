"""Hyper-parameters by Optuna: trials that a killed process leaves behind are gone on with, and others may join in."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer_edge.core.errors import InputError, require
from fer_edge.core.files import claimed, sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.recipes import load_recipe, override
from fer_edge.data import Dataset
from fer_edge.sweep.folder import SweepFolder
from fer_edge.sweep.grid import Axes, Unit, reshaped, run_unit
from fer_edge.sweep.recipe import SearchSpec, SweepRecipe
from fer_edge.sweep.shape_latency import ShapeSpeed
from fer_edge.train.recipe import TrainRecipe

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from fer_edge.train.progress import Reporter

__all__ = ["Searcher", "best_units", "expect_space", "open_study", "search_recipe", "trials_in_other_hands"]

_FOLDER: Final = "folder"
_WHY: Final = "why"
_X: Final = "x"


def search_recipe(spec: SearchSpec, settings: tuple[str, ...], values: Mapping[str, Any]) -> TrainRecipe:
    """The preset with the sweep's settings and a trial's values.

    Args:
        spec: the search.
        settings: of every training of the sweep.
        values: by key of the space.

    Raises:
        InputError: an unknown preset or key, or values that do not go together.
    """
    base = override(load_recipe(TrainRecipe, spec.preset, room="train"), settings)
    keys = [f"{key}={_toml(value)}" for key, value in values.items() if key not in ("width", "tokens")]
    return reshaped(override(base, keys), width=values.get("width", 1.0), tokens=values.get("tokens"))


def expect_space(recipe: SweepRecipe) -> None:
    """Try the space before any work: both ends of every range and every choice, each with the preset's other values.

    Raises:
        InputError: an unknown preset or key, or a value that the preset refuses; the message names the key.
    """
    spec = recipe.search
    assert spec is not None
    for key, each in spec.distributions().items():
        for value in each.choices or (_written(spec, key)["low"], _written(spec, key)["high"]):
            try:
                search_recipe(spec, recipe.train_settings, {key: value})
            except InputError as error:
                raise InputError(f"search.space.{key}: {error}") from error


def open_study(folder: SweepFolder, recipe: SweepRecipe, dataset: Dataset, storage: str | None) -> Study:
    """The study of this search, begun if it is not there; any number of processes may have it open.

    Args:
        folder: the sweep's, in which ``study.db`` is the storage unless another is named.
        recipe: the sweep's.
        dataset: the sweep's.
        storage: a database URL as SQLAlchemy writes it, for machines that share no folder.

    Raises:
        InputError: ``study.db`` is no such file or holds another search, or the storage cannot be used.
        MissingPackageError: Optuna is not installed.
    """
    spec = recipe.search
    assert spec is not None
    optuna = require("optuna", needed_by="a sweep that searches", extra="sweep")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder.path / "study.db"
    name = f"fer-edge {_fingerprint(recipe, dataset)}"
    with _storage_errors(storage or str(file)):
        if storage is None:
            _expect_own(file, name)
        opened = optuna.storages.RDBStorage(
            storage or f"sqlite:///{file}",
            engine_kwargs={} if storage else {"connect_args": {"timeout": 60}},
        )
        pruners: dict[str, Callable[[], Any]] = {
            "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=spec.startup, n_warmup_steps=1),
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(),
            "none": lambda: optuna.pruners.NopPruner(),
        }
        study: Study = optuna.create_study(
            storage=opened,
            study_name=name,
            directions=["maximize"] if spec.objective == "top1" else ["maximize", "minimize"],
            sampler=optuna.samplers.RandomSampler(),  # until a trial has its number: `_suggested`
            pruner=pruners[spec.pruner](),
            load_if_exists=True,
        )
    return study


def trials_in_other_hands(study: Study, folder: SweepFolder) -> list[str]:
    """Trials of this folder that another process is working on now."""
    busy = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "RUNNING" and trial.user_attrs.get(_FOLDER) == folder.id:
            with claimed(folder.trial_place(trial.number)) as ours:
                busy += [] if ours else [f"trial {trial.number}"]
    return busy


def best_units(study: Study, folder: SweepFolder, recipe: SweepRecipe) -> tuple[list[Unit], list[str]]:
    """The search's best network (or all of its front), and what there is to say of those that are not at hand."""
    spec = recipe.search
    assert spec is not None
    if spec.objective == "top1":
        complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        best = sorted(complete, key=lambda trial: trial.values[0])[-1:]
    else:
        best = study.best_trials
    units, notes = [], []
    for trial in best:
        if trial.user_attrs.get(_FOLDER) != folder.id:
            notes.append(f"trial {trial.number} is one of the best, and its run lies in another folder")
            continue
        changed = search_recipe(spec, recipe.train_settings, trial.params)
        called = Path(spec.preset).stem
        axes = Axes(
            preset=called, width=trial.params.get("width", 1.0), tokens=changed.model.tokens, trial=trial.number
        )
        run = folder.trial_place(trial.number) / "run"
        units.append(run_unit(run, name=f"{called}-trial{trial.number}", keep=recipe.keep, axes=axes))
    return units, notes


@dataclass(frozen=True, kw_only=True)
class Searcher:
    """One process at work on a study.

    Attributes:
        study: the search.
        folder: the sweep's.
        recipe: the sweep's.
        dataset: the sweep's.
        speed: measures the x of a shape.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        reporter: a trial's name -> who is told of its training.
    """

    study: Study
    folder: SweepFolder
    recipe: SweepRecipe
    dataset: Dataset
    speed: ShapeSpeed
    device: str
    reporter: Callable[[str], Reporter]

    @property
    def spec(self) -> SearchSpec:
        """The search."""
        assert self.recipe.search is not None
        return self.recipe.search

    def work(self, *, deadline_s: float | None) -> None:
        """Run trials, those first that an ended process left behind, until there are enough of them.

        Args:
            deadline_s: `time.time()` after which none is begun.

        Raises:
            InputError: a key of the space that the preset does not have.
            OutputError: the folder cannot be written.
        """
        while deadline_s is None or time.time() < deadline_s:
            with self._next_trial() as trial:
                if trial is None:
                    return
                self._run(trial)

    @contextmanager
    def _next_trial(self) -> Iterator[Trial | None]:
        """A trial that this process alone works on while the block runs; None where there are enough."""
        from optuna import Trial

        for left in self._left_behind():
            with claimed(self.folder.trial_place(left.number)) as ours:
                if ours and any(left.number == trial.number for trial in self._left_behind()):
                    yield Trial(self.study, left._trial_id)
                    return
        if len(self.study.get_trials(deepcopy=False)) >= self.spec.trials:
            yield None
            return
        asked = self.study.ask()
        with claimed(self.folder.trial_place(asked.number), wait=True):
            asked.set_user_attr(_FOLDER, self.folder.id)
            yield asked

    def _left_behind(self) -> list[FrozenTrial]:
        """Trials of this folder that have not ended; whoever can claim one's place goes on with it."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.name == "RUNNING" and trial.user_attrs.get(_FOLDER) == self.folder.id
        ]

    def _run(self, trial: Trial) -> None:
        from optuna import TrialPruned
        from optuna.trial import TrialState

        from fer_edge.train.train import open_origin, train_model

        place = self.folder.trial_place(trial.number)
        try:
            values = _suggested(trial, self.spec)
            recipe = search_recipe(self.spec, self.recipe.train_settings, values)
            x = self.speed.x(recipe) if self.spec.measures_x else None
            if x is not None:
                trial.set_user_attr(_X, x)
            if x is not None and self.spec.x_at_most is not None and x > self.spec.x_at_most:
                raise TrialPruned(f"x = {x:.3f} is above {self.spec.x_at_most:g}")
            judge = None if self.spec.objective != "top1" else trial
            report = _Judge(trial=judge, then=self.reporter(f"trial {trial.number}"))
            run = train_model(
                recipe,
                self.dataset,
                place / "run",
                teacher=[open_origin(name) for name in self.spec.teachers],
                resume=True,
                device=self.device,
                report=report,
            )
        except (TrialPruned, InputError) as error:
            given_up = isinstance(error, TrialPruned)
            trial.set_user_attr(_WHY, str(error))
            shutil.rmtree(place / "run", ignore_errors=True)
            self.study.tell(trial, state=TrialState.PRUNED if given_up else TrialState.FAIL)
            return
        choose = run.record["choose"]
        top1 = choose["top1"] if choose["top1_without_leaked"] is None else choose["top1_without_leaked"]
        self.study.tell(trial, top1 if x is None or self.spec.objective == "top1" else [top1, x])


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """A training's reporter that gives the training up where the study says so; `trial` is None where it never does."""

    trial: Trial | None
    then: Reporter

    def step(self, stage: str, done: int, total: int) -> None:
        self.then.step(stage, done, total)

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        from optuna import TrialPruned

        self.then.epoch(stage, figures)
        if self.trial is None or stage != "frames":
            return
        number = int(figures["epoch"])
        known = self.trial.study.get_trials(deepcopy=False)[self.trial.number].intermediate_values
        if number not in known:
            self.trial.report(figures["choose_top1"], number)
        if self.trial.should_prune():
            raise TrialPruned(f"given up after epoch {number} at {figures['choose_top1']:.4f}")


def _suggested(trial: Trial, spec: SearchSpec) -> dict[str, Any]:
    """A trial's values, drawn where it has none yet.

    The sampler is seeded by the trial's number, which the storage gives out: so no two processes draw alike, and one
    that goes on where another ended draws what that one would have drawn.
    """
    import optuna

    trial.study.sampler = optuna.samplers.TPESampler(seed=spec.seed + trial.number, n_startup_trials=spec.startup)
    drawn = optuna.Trial(trial.study, trial._trial_id)
    values: dict[str, Any] = {}
    for key, each in spec.distributions().items():
        if each.choices:
            values[key] = drawn.suggest_categorical(key, [_scalar(choice) for choice in each.choices])
            continue
        assert each.low is not None
        assert each.high is not None
        raw = _written(spec, key)
        if all(isinstance(raw[end], int) for end in ("low", "high")):
            step = int(each.step or 1)
            values[key] = drawn.suggest_int(key, int(each.low), int(each.high), log=each.log, step=step)
        else:
            values[key] = drawn.suggest_float(key, each.low, each.high, log=each.log, step=each.step)
    return values


def _written(spec: SearchSpec, key: str) -> Mapping[str, Any]:
    """A distribution as the recipe writes it: 1 and 1.0 are different there."""
    node: Any = spec.space
    if key in node:
        return dict(node[key])
    for part in key.split("."):
        node = node[part]
    return dict(node)


def _scalar(choice: Any) -> Any:
    """Optuna stores scalars: a list goes in as its TOML text, which `override` reads back."""
    return choice if isinstance(choice, (bool, int, float, str)) else _toml(choice)


def _toml(value: Any) -> str:
    """A value as TOML writes it; a text as it is, which `override` takes without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def _fingerprint(recipe: SweepRecipe, dataset: Dataset) -> str:
    """Tells searches apart: all that a trial's value depends on, but not how many there shall be."""
    spec = recipe.search
    assert spec is not None
    told = {
        "search": {key: value for key, value in asdict(spec).items() if key != "trials"},
        "preset": encode(search_recipe(spec, recipe.train_settings, {})),
        "data": dataset.sha256,
    }
    return sha256_bytes(json.dumps(told, sort_keys=True).encode())[:16]


def _expect_own(file: Path, name: str) -> None:
    """Refuse a file that is another search's, before Optuna writes anything into it.

    Raises:
        InputError: it is no study, or another one.
    """
    if not file.exists() or not file.stat().st_size:
        return
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
        if "studies" not in tables:
            raise InputError(f"{file} is a database, but none of Optuna's; move it away, or choose another --out")
        names = {row[0] for row in database.execute("select study_name from studies")}
    if names and name not in names:
        raise InputError(
            f"{file} holds another search ({', '.join(sorted(names))}): its space, its preset or its data differ "
            "from this recipe's; move it away, or choose another --out"
        )


@contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, ImportError, RuntimeError) as error:
        told = str(error).strip().splitlines()[0]
        raise InputError(
            f"{what} cannot be used for the search ({told}); expected a file that Optuna wrote, or a database URL"
        ) from error
