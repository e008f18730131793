"""Work shared through Optuna's storage: any number of processes take trials from it; interrupted ones are repeated."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fer_edge.core.errors import InputError, require
from fer_edge.sweep.build import Builder, SweepFolder
from fer_edge.sweep.grid import Unit

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = [
    "STALE_AFTER_S",
    "build_queued",
    "database_url",
    "enqueue",
    "first_number",
    "open_queue",
    "open_study",
    "run_trials",
    "running",
]

STALE_AFTER_S: Final = 60
"""A trial without a heartbeat for this long belongs to a killed process; the next process repeats it."""

_HEARTBEAT_S: Final = 10
_UNIT: Final = "unit"
_FIRST: Final = "first"
_REASON: Final = "reason"

Objective: TypeAlias = "Callable[[Trial], float | Sequence[float]]"


def open_study(name: str, url: str, *, directions: Sequence[str] = ("maximize",), pruner: Any = None) -> Study:
    """Open a study, or create it; any number of processes may have it open.

    Args:
        name: of the study.
        url: of the database, as SQLAlchemy writes it.
        directions: one for each objective, ``"maximize"`` or ``"minimize"``.
        pruner: Optuna's; its default otherwise.

    Raises:
        InputError: the database cannot be used.
        MissingPackageError: Optuna is not installed.
    """
    optuna = require("optuna", needed_by="a sweep that builds networks", extra="sweep")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage_errors(url), _stable_warnings():
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {},
            heartbeat_interval=_HEARTBEAT_S,
            grace_period=STALE_AFTER_S,
            heartbeat_stale_trial_callback=_repeat,
        )
        study: Study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(directions),
            sampler=optuna.samplers.RandomSampler(),
            pruner=pruner,
            load_if_exists=True,
        )
    return study


def run_trials(
    study: Study,
    objective: Objective,
    *,
    trials: int,
    deadline_s: float | None,
    catch: tuple[type[Exception], ...] = (),
) -> None:
    """Run waiting trials, then new ones until the study has enough, all processes together.

    Args:
        study: where trials come from.
        objective: gives the value or values of a trial.
        trials: total to reach; 0 runs waiting trials only.
        deadline_s: `time.time()` after which no trial starts.
        catch: errors that fail one trial; others end the run.
    """
    import optuna

    expected: tuple[type[Exception], ...] = (optuna.TrialPruned, *catch)

    def attempt(trial: Trial) -> float | Sequence[float]:
        try:
            return objective(trial)
        except expected as error:
            trial.set_user_attr(_REASON, str(error))
            raise
        except KeyboardInterrupt:
            _repeat(study, study.get_trials(deepcopy=False)[trial.number])
            raise

    while deadline_s is None or time.time() < deadline_s:
        with _stable_warnings():
            optuna.storages.fail_stale_trials(study)
        known = [trial for trial in study.get_trials(deepcopy=False) if not _interrupted(trial)]
        if len(known) >= trials and all(trial.state.name != "WAITING" for trial in known):
            return
        study.optimize(attempt, n_trials=1, catch=catch)


def running(study: Study) -> list[str]:
    """Name the units and trials that other processes are working on."""
    return [
        trial.user_attrs.get(_UNIT) or f"trial {trial.number}"
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name == "RUNNING"
    ]


def first_number(trial: Trial | FrozenTrial) -> int:
    """Return the number of the trial that this one repeats, or its own."""
    return int(trial.user_attrs.get(_FIRST, trial.number))


def open_queue(folder: SweepFolder) -> Study:
    """Open the queue of a sweep's units.

    Raises:
        InputError: ``study.db`` cannot be used.
        MissingPackageError: Optuna is not installed.
    """
    return open_study("networks", database_url(folder.path))


def database_url(folder: Path) -> str:
    """Return the URL of a sweep's own database."""
    return f"sqlite:///{folder / 'study.db'}"


def enqueue(queue: Study, units: Iterable[str]) -> None:
    """Queue units by name, except those that are queued or being built."""
    pending = {
        trial.user_attrs.get(_UNIT)
        for trial in queue.get_trials(deepcopy=False)
        if trial.state.name in ("WAITING", "RUNNING")
    }
    for name in units:
        if name not in pending:
            queue.enqueue_trial({}, user_attrs={_UNIT: name})


def build_queued(
    queue: Study, units: Mapping[str, Unit], builder: Builder, *, deadline_s: float | None, note: Callable[[str], None]
) -> None:
    """Build queued units until none waits or the deadline has passed.

    Raises:
        InputError: a unit's folder holds results of other settings.
        OutputError: the folder cannot be written.
    """
    import optuna

    def objective(trial: Trial) -> float:
        name = str(trial.user_attrs.get(_UNIT))
        # Two processes that started together may have queued a unit twice.
        earlier = any(
            other.number < trial.number and other.state.name in ("WAITING", "RUNNING")
            for other in queue.get_trials(deepcopy=False)
            if other.user_attrs.get(_UNIT) == name
        )
        if name not in units or earlier:
            raise optuna.TrialPruned("not in the recipe, or queued twice")
        builder.build(units[name])
        note(f"{name}: built")
        return 0.0

    run_trials(queue, objective, trials=0, deadline_s=deadline_s)


def _repeat(study: Study, trial: FrozenTrial) -> None:
    """Queue an interrupted trial again: with its values and reports, and under its first number."""
    from optuna.trial import TrialState, create_trial

    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=trial.intermediate_values,
            user_attrs={**trial.user_attrs, _FIRST: first_number(trial)},
        )
    )


def _interrupted(trial: FrozenTrial) -> bool:
    return trial.state.name == "FAIL" and _REASON not in trial.user_attrs


@contextlib.contextmanager
def _stable_warnings() -> Iterator[None]:
    """Silence Optuna's note that heartbeats, in use since version 2.9, may change."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextlib.contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"storage: got {url} ({reason}), expected a database URL, or a study.db that Optuna wrote; remove it"
        ) from error
