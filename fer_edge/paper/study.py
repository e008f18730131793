"""A whole study: every system with every seed, several at a time, resumable run by run, within a time budget."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from fer_edge.bench.private_log import PRIVATE_SPLIT, append_private, writable_log
from fer_edge.core.errors import InputError
from fer_edge.core.json import decode
from fer_edge.core.machine import repository_commit
from fer_edge.core.manifest import timestamp
from fer_edge.core.metrics import accuracy_report
from fer_edge.core.workers import open_workers
from fer_edge.data import Dataset, load_dataset
from fer_edge.paper.recipe import StudyRecipe
from fer_edge.paper.results import RunResult, run_path
from fer_edge.paper.systems import SYSTEMS, System
from fer_edge.paper.training import system_recipe, train_system
from fer_edge.train.distributed import compute_device
from fer_edge.train.recipe import TrainRecipe

__all__ = ["PlannedRun", "StudyProgress", "plan_runs", "read_runs", "run_study", "weights_path"]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training of the study."""

    system: System
    seed: int

    @property
    def name(self) -> str:
        """As progress and files call it."""
        return f"{self.system.name}-seed{self.seed}"


class StudyProgress(Protocol):
    """Receives a study's progress; the CLI draws it."""

    def planned(self, *, finished: int, total: int) -> None:
        """So many runs of the plan are on disk already."""

    def step(self, run: str, stage: str, done: int, total: int) -> None:
        """A run moved on."""

    def finished(self, run: str, result: RunResult) -> None:
        """A run ended and is on disk."""


def plan_runs(systems: Sequence[System], recipe: StudyRecipe) -> tuple[PlannedRun, ...]:
    """What to train, in order: Tables 1 to 3 seed by seed, then everything beyond them."""
    return tuple(
        PlannedRun(system=system, seed=seed)
        for groups, seeds in ((("tables",), recipe.seeds), (("beyond", "lstm", "size"), recipe.extra_seeds))
        for seed in seeds
        for system in systems
        if system.group in groups
    )


def weights_path(folder: Path, *, system: str, seed: int) -> Path:
    """Where a run's weights lie, beside its predictions."""
    return run_path(folder, system=system, seed=seed).with_suffix(".safetensors")


def read_runs(folder: Path, plan: Sequence[PlannedRun], recipe: StudyRecipe, dataset: Dataset) -> dict[str, RunResult]:
    """The plan's finished runs by name.

    Raises:
        InputError: a run is damaged, or was made with another recipe or other data.
    """
    found = {}
    for run in plan:
        path = run_path(folder, system=run.system.name, seed=run.seed)
        if not path.exists():
            continue
        result = RunResult.read(path)
        same_recipe = _recipe_of(result) == system_recipe(run.system, recipe.train, run.seed)
        if not same_recipe or result.settings.get("data", {}).get("sha256") != dataset.sha256:
            raise InputError(
                f"{path} was made with another recipe or other data; a study has one protocol: "
                "choose another --out, or remove that file"
            )
        found[run.name] = result
    return found


def _recipe_of(result: RunResult) -> TrainRecipe | None:
    """What a run was trained by; settings that are younger than the run have their defaults. None where none fits."""
    try:
        return decode(TrainRecipe, result.settings.get("recipe"))
    except InputError:
        return None


def run_study(
    plan: Sequence[PlannedRun],
    recipe: StudyRecipe,
    data: str,
    out: Path,
    *,
    jobs: int = 1,
    budget_s: float | None = None,
    device: str = "auto",
    private_log: Path | None = None,
    progress: StudyProgress,
) -> dict[str, RunResult]:
    """Train what of the plan is not on disk yet.

    Args:
        plan: the runs, in order.
        recipe: the protocol.
        data: the data set's spec.
        out: the study's folder: one ``.npz`` of predictions and one ``.safetensors`` of weights a run.
        jobs: trainings at the same time, each with its share of the processor's cores.
        budget_s: after this time no run is begun; those under way end.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        private_log: where looks at PrivateTest go on record; the repository's log by default.
        progress: told of everything.

    Returns:
        the finished runs by name, earlier ones included; fewer than planned where the budget ran out.

    Raises:
        InputError: the folder holds runs of another study, or a split is missing.
        OutputError: the folder or the log cannot be written.
    """
    if jobs < 1:
        raise InputError(f"jobs: got {jobs}, expected 1 or more")
    dataset = load_dataset(data)
    results = read_runs(out, plan, recipe, dataset)
    waiting = [run for run in plan if run.name not in results]
    progress.planned(finished=len(results), total=len(plan))
    looks = dataset.roles.get("report") == PRIVATE_SPLIT and bool(waiting)
    log = writable_log(private_log) if looks else None
    place = compute_device(device)
    begun = time.monotonic()

    def take(result: RunResult) -> None:
        if log is not None:
            _log_look(log, result, dataset)
        result.write(run_path(out, system=result.system, seed=result.seed))
        name = f"{result.system}-seed{result.seed}"
        results[name] = result
        progress.finished(name, result)

    def next_run() -> PlannedRun | None:
        spent = budget_s is not None and time.monotonic() - begun >= budget_s
        return waiting.pop(0) if waiting and not spent else None

    if jobs == 1:
        while (run := next_run()) is not None:
            reporter = _Steps(run.name, progress.step)
            weights = weights_path(out, system=run.system.name, seed=run.seed)
            take(
                train_system(
                    run.system, run.seed, recipe.train, dataset, device=place, weights=weights, report=reporter.step
                )
            )
        return results
    with _workers(jobs, data, recipe, str(place), progress) as submit:
        running: set[concurrent.futures.Future[RunResult]] = set()
        while True:
            while len(running) < jobs and (run := next_run()) is not None:
                running.add(submit(run, weights_path(out, system=run.system.name, seed=run.seed)))
            if not running:
                return results
            ended, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                take(future.result())


def _log_look(log: Path, result: RunResult, dataset: Dataset) -> None:
    found = result.report
    assert found is not None
    summary = accuracy_report(
        found.probabilities, found.labels, dataset=found.dataset, split=found.split, leaked=found.leaked
    )
    append_private(
        log,
        {
            "date": timestamp(),
            "commit": repository_commit(log.parent),
            "study": "paper",
            "system": result.system,
            "seed": result.seed,
            "epochs": result.epochs,
            "data_sha256": dataset.split("report").sha256,
            "result": summary.to_json(),
        },
    )


class _Steps:
    """A training's reporter that names the run."""

    def __init__(self, run: str, send: Callable[[str, str, int, int], None], *, every_s: float = 0.0) -> None:
        self._run, self._send, self._every_s = run, send, every_s
        self._last = 0.0

    def step(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last >= self._every_s:
            self._last = now
            self._send(self._run, stage, done, total)

    def epoch(self, stage: str, figures: Any) -> None:
        """An epoch alone is no news here."""


@contextlib.contextmanager
def _workers(
    jobs: int, data: str, recipe: StudyRecipe, device: str, progress: StudyProgress
) -> Iterator[Callable[[PlannedRun, Path], concurrent.futures.Future[RunResult]]]:
    """A pool of training processes; one that is interrupted is ended, not waited for."""
    with open_workers(
        jobs, lambda step: progress.step(*step), begin=_begin_worker, given=(data, recipe, device)
    ) as workers:
        yield lambda run, weights: workers.pool.submit(_work, run.system.name, run.seed, weights)


@dataclass(frozen=True, kw_only=True)
class _Worker:
    recipe: StudyRecipe
    dataset: Dataset
    device: torch.device
    steps: Any


@functools.cache
def _worker_state() -> list[_Worker]:
    return []


def _begin_worker(data: str, recipe: StudyRecipe, device: str, threads: int, steps: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(threads)
    state = _Worker(recipe=recipe, dataset=load_dataset(data), device=torch.device(device), steps=steps)
    _worker_state().append(state)


def _work(system: str, seed: int, weights: Path) -> RunResult:
    (state,) = _worker_state()
    reporter = _Steps(f"{system}-seed{seed}", lambda *step: state.steps.put(step), every_s=1.0)
    return train_system(
        SYSTEMS[system],
        seed,
        state.recipe.train,
        state.dataset,
        device=state.device,
        weights=weights,
        report=reporter.step,
    )
