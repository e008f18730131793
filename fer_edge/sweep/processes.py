"""The processes of a sweep: each takes units and trials from the queue until none is left."""

from __future__ import annotations

import concurrent.futures
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_edge.bench.peers import PeerTable
from fer_edge.core.json import expect
from fer_edge.core.types import Progress
from fer_edge.core.workers import open_workers, sent_progress
from fer_edge.data import Dataset, load_dataset
from fer_edge.data.dataset import Role
from fer_edge.sweep.build import Builder, SweepFolder
from fer_edge.sweep.grid import Unit, plan_units
from fer_edge.sweep.queue import build_queued, enqueue, open_queue, running
from fer_edge.sweep.recipe import SweepRecipe

if TYPE_CHECKING:
    from fer_edge.train.loop import EpochReport

__all__ = ["Built", "SweepOptions", "SweepTask", "build_networks"]

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep runs.

    Attributes:
        jobs: processes to start; each takes its share of the CPUs.
        budget_s: no training starts after this time; finished networks are measured.
        remeasure: ignore measurements that are in the folder.
        device: of the trainings: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        split: to measure on; the search never sees ``"report"``.
        peers: models of others, for the plot.
        storage: database URL of the search; the folder's ``study.db`` by default.
        private_log: log of PrivateTest evaluations; the repository's by default.
    """

    recipe_name: str
    jobs: int = 1
    budget_s: float | None = None
    remeasure: bool = False
    device: str = "auto"
    split: Role = "choose"
    peers: PeerTable | None = None
    storage: str | None = None
    private_log: Path | None = None
    command: str | None = None

    def __post_init__(self) -> None:
        expect(self.jobs >= 1, "jobs", self.jobs, "1 or more")


@dataclass(frozen=True, kw_only=True)
class SweepTask:
    """What every process of a sweep is given.

    Attributes:
        deadline_s: `time.time()` after which no training starts.
    """

    recipe: SweepRecipe
    data: str
    out: Path
    options: SweepOptions
    deadline_s: float | None


@dataclass(frozen=True, kw_only=True)
class Built:
    """The state of a sweep once this process has no work left.

    Attributes:
        units: of the recipe, and the search's best ones.
        notes: on networks of the search that are in another folder.
        running: units and trials that other processes work on.
    """

    units: tuple[Unit, ...]
    notes: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


def build_networks(task: SweepTask, dataset: Dataset, folder: SweepFolder, *, progress: Progress, note: Note) -> Built:
    """Build the grid, run the search, and build the search's best networks, as far as the deadline allows.

    Raises:
        InputError: the folder holds networks of other settings, or the storage cannot be used.
        OutputError: the folder cannot be written.
    """
    recipe, units, jobs = task.recipe, plan_units(task.recipe), task.options.jobs
    queue = open_queue(folder)
    enqueue(queue, [unit.name for unit in units if folder.is_unbuilt(unit, recipe)])
    if jobs == 1:
        _work(task, dataset, folder, progress, note)
    else:
        with open_workers(jobs, lambda event: (note if len(event) == 1 else progress)(*event)) as workers:
            given = (task, workers.threads, workers.events)
            futures = [workers.pool.submit(_work_in_process, *given) for _ in range(jobs)]
            for ended in concurrent.futures.as_completed(futures):
                ended.result()
    busy = running(queue)
    if recipe.search is None or busy:
        return Built(units=units, running=tuple(busy))
    from fer_edge.sweep.search import best_units, open_search

    study = open_search(folder, recipe, dataset, task.options.storage)
    if busy := running(study):
        return Built(units=units, running=tuple(busy))
    best, notes = best_units(study, folder, recipe)
    enqueue(queue, [unit.name for unit in best if folder.is_unbuilt(unit, recipe)])
    # Exporting takes seconds, but pruning is a training.
    deadline_s = task.deadline_s if recipe.keep != (1.0,) else None
    builder = _builder(task, dataset, folder, progress, note)
    build_queued(queue, {unit.name: unit for unit in best}, builder, deadline_s=deadline_s, note=note)
    return Built(units=(*units, *best), notes=tuple(notes), running=tuple(running(queue)))


def _work(task: SweepTask, dataset: Dataset, folder: SweepFolder, progress: Progress, note: Note) -> None:
    recipe = task.recipe
    builder = _builder(task, dataset, folder, progress, note)
    units = {unit.name: unit for unit in plan_units(recipe)}
    build_queued(open_queue(folder), units, builder, deadline_s=task.deadline_s, note=note)
    if recipe.search is not None:
        from fer_edge.sweep.search import Search, open_search
        from fer_edge.sweep.shape_latency import ShapeLatency

        latency = ShapeLatency(recipe=recipe, dataset=dataset)
        study = open_search(folder, recipe, dataset, task.options.storage)
        Search(study=study, builder=builder, latency=latency).run(deadline_s=task.deadline_s)


def _work_in_process(task: SweepTask, threads: int, events: Any) -> None:
    """Work in one of several processes; the first one answers Ctrl-C and terminates the others."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a trial under way is queued again
    torch.set_num_threads(threads)
    dataset = load_dataset(task.data)
    folder = SweepFolder.open(task.out, task.recipe, recipe_name=task.options.recipe_name, dataset=dataset)
    _work(task, dataset, folder, sent_progress(events), lambda text: events.put((text,)))


def _builder(task: SweepTask, dataset: Dataset, folder: SweepFolder, progress: Progress, note: Note) -> Builder:
    from fer_edge.train.run_folder import RunOptions

    def options(work: str) -> RunOptions:
        def on_epoch(report: EpochReport) -> None:
            top1 = f"{report.score:.2%} (best {report.best_score:.2%})"
            note(f"{work}: epoch {report.epoch}, choose top-1 {top1}")

        def steps(stage: str, done: int, total: int) -> None:
            progress(f"{work}: {stage}", done, total)

        return RunOptions(resume=True, device=task.options.device, progress=steps, on_epoch=on_epoch)

    return Builder(folder=folder, recipe=task.recipe, dataset=dataset, options=options, progress=progress)
