"""The work of a sweep that precedes its measurement, by one process or by several in the same folder."""

from __future__ import annotations

import concurrent.futures
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fer_edge.core.workers import open_workers
from fer_edge.data import Dataset, load_dataset
from fer_edge.sweep.build import Builder, calibration_of, unmade
from fer_edge.sweep.folder import SweepFolder
from fer_edge.sweep.grid import Unit, plan_units
from fer_edge.sweep.recipe import SweepRecipe

if TYPE_CHECKING:
    from optuna import Study

    from fer_edge.train.progress import Reporter

__all__ = ["SweepProgress", "Task", "build_units", "builder_of", "training_steps", "work_off"]


class SweepProgress(Protocol):
    """Receives a sweep's progress; the CLI draws it."""

    def step(self, work: str, stage: str, done: int, total: int) -> None:
        """A training, a calibration or a measurement moved on."""

    def said(self, text: str) -> None:
        """Something that is worth a line."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a process is told to work off.

    Attributes:
        recipe: the sweep's.
        recipe_name: its name or path.
        data: the data set's spec.
        out: the sweep's folder.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        storage: of the search; None is the folder's own.
        deadline_s: `time.time()` after which no training is begun.
    """

    recipe: SweepRecipe
    recipe_name: str
    data: str
    out: Path
    device: str
    storage: str | None
    deadline_s: float | None


def work_off(task: Task, dataset: Dataset, folder: SweepFolder, *, jobs: int, progress: SweepProgress) -> None:
    """Build the grid's units and run the search's trials, as far as time allows.

    Units that another process is working on are left to it.

    Args:
        task: what to do.
        dataset: the sweep's.
        folder: the sweep's.
        jobs: processes at the same time, each with its share of the cores.
        progress: told of everything.

    Raises:
        InputError: the folder holds another sweep's networks, or the search cannot be gone on with.
        OutputError: the folder cannot be written.
    """
    if jobs == 1:
        _labour(task, dataset, folder, progress)
        return
    with open_workers(jobs, lambda event: getattr(progress, event[0])(*event[1:])) as workers:
        running = [workers.pool.submit(_labour_elsewhere, task, workers.threads, workers.events) for _ in range(jobs)]
        for ended in concurrent.futures.as_completed(running):
            ended.result()


def build_units(
    units: tuple[Unit, ...], builder: Builder, *, deadline_s: float | None, progress: SweepProgress
) -> None:
    """Build every unit that nobody else is working on, in order, and begin none after the deadline.

    Raises:
        InputError: a unit's folder holds what other settings made.
        OutputError: it cannot be written.
    """
    for unit in units:
        if deadline_s is not None and time.time() >= deadline_s:
            return
        if not unmade(builder.folder, unit, builder.recipe):
            continue
        with builder.folder.claim(unit) as ours:
            if not ours:
                progress.said(f"{unit.name} is in another process's hands")
                continue
            builder.build(unit)
        progress.said(f"{unit.name} is made")


def builder_of(task: Task, dataset: Dataset, folder: SweepFolder, progress: SweepProgress) -> Builder:
    """What this process makes networks with."""
    return Builder(
        folder=folder,
        recipe=task.recipe,
        dataset=dataset,
        device=task.device,
        reporter=training_steps(progress),
        say=lambda what, done, total: progress.step(what, "", done, total),
    )


def _labour(task: Task, dataset: Dataset, folder: SweepFolder, progress: SweepProgress) -> None:
    recipe = task.recipe
    builder = builder_of(task, dataset, folder, progress)
    build_units(plan_units(recipe), builder, deadline_s=task.deadline_s, progress=progress)
    if recipe.search is not None:
        from fer_edge.sweep.search import open_study

        _search(task, dataset, folder, open_study(folder, recipe, dataset, task.storage), progress)


def _search(task: Task, dataset: Dataset, folder: SweepFolder, study: Study, progress: SweepProgress) -> None:
    from fer_edge.sweep.search import Searcher
    from fer_edge.sweep.shape_latency import ShapeSpeed

    recipe = task.recipe
    assert recipe.search is not None
    speed = ShapeSpeed(
        dataset=dataset,
        precision=recipe.search.precision,
        provider=recipe.providers[0],
        threads=recipe.threads,
        timing=recipe.timing,
        calibration=calibration_of(recipe),
    )
    searcher = Searcher(
        study=study,
        folder=folder,
        recipe=recipe,
        dataset=dataset,
        speed=speed,
        device=task.device,
        reporter=training_steps(progress),
    )
    searcher.work(deadline_s=task.deadline_s)


def training_steps(progress: SweepProgress) -> Callable[[str], Reporter]:
    """A piece of work's name -> a training's reporter that tells of it under this name."""
    return lambda work: _Steps(work=work, progress=progress)


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """A training's reporter that names the work."""

    work: str
    progress: SweepProgress

    def step(self, stage: str, done: int, total: int) -> None:
        self.progress.step(self.work, stage, done, total)

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        self.progress.said(
            f"{self.work}: epoch {figures['epoch']:.0f}, choose top-1 {figures['choose_top1']:.2%} "
            f"(best {figures['best_top1']:.2%})"
        )


class _Sent:
    """Progress that goes through a queue to the process that draws it, a step at most every second."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._last_s = 0.0

    def step(self, work: str, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._last_s >= 1:
            self._last_s = now
            self._events.put(("step", work, stage, done, total))

    def said(self, text: str) -> None:
        self._events.put(("said", text))


def _labour_elsewhere(task: Task, threads: int, events: Any) -> None:
    """The work of one process of several; Ctrl-C is the first one's to answer."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    dataset = load_dataset(task.data)
    folder = SweepFolder.open(task.out, task.recipe, recipe_name=task.recipe_name, dataset=dataset)
    _labour(task, dataset, folder, _Sent(events))
