"""The study's trainings: every system with every seed, several at a time, resumable run by run, in a time budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fer_edge.bench.private_log import PRIVATE_SPLIT, append_private, writable_log
from fer_edge.core.errors import InputError
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.metrics import accuracy_report
from fer_edge.core.types import Progress
from fer_edge.data import Dataset, load_dataset
from fer_edge.paper.page import write_study
from fer_edge.paper.recipe import StudyRecipe
from fer_edge.paper.report import Protocol, StudyReport, summarise_study
from fer_edge.paper.results import RunResult, StudyProgress, run_path
from fer_edge.paper.systems import SYSTEMS, System
from fer_edge.paper.training import system_recipe, train_system
from fer_edge.train.device import compute_device
from fer_edge.train.recipe import TrainRecipe, recorded
from fer_edge.train.run_folder import data_facts

__all__ = ["PlannedRun", "StudyOptions", "plan_runs", "publish_study", "read_runs", "run_study"]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training of the study."""

    system: System
    seed: int

    @property
    def name(self) -> str:
        """In progress and file names."""
        return f"{self.system.name}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study runs.

    Attributes:
        budget_s: no training starts after this time; the one under way ends.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        private_log: log of PrivateTest evaluations; the repository's by default.
    """

    budget_s: float | None = None
    device: str = "auto"
    private_log: Path | None = None


def plan_runs(systems: Sequence[System], recipe: StudyRecipe) -> tuple[PlannedRun, ...]:
    """Plan the trainings in order: Tables 1 to 3 seed by seed, then everything beyond them."""
    return tuple(
        PlannedRun(system=system, seed=seed)
        for groups, seeds in ((("tables",), recipe.seeds), (("beyond", "lstm", "size"), recipe.extra_seeds))
        for seed in seeds
        for system in systems
        if system.group in groups
    )


def read_runs(folder: Path, plan: Sequence[PlannedRun], recipe: StudyRecipe, dataset: Dataset) -> dict[str, RunResult]:
    """Read the plan's finished runs by name.

    Raises:
        InputError: a run is damaged, or was trained with another recipe or other data.
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
                f"{path}: got a run of another recipe or other data, expected this study's; choose another --out, or "
                "remove that file"
            )
        found[run.name] = result
    return found


def run_study(
    plan: Sequence[PlannedRun],
    recipe: StudyRecipe,
    data: str,
    out: Path,
    options: StudyOptions,
    *,
    progress: StudyProgress,
) -> dict[str, RunResult]:
    """Train what is missing of the plan.

    Args:
        out: the study's folder: one ``.npz`` of predictions for each run.

    Returns:
        the finished runs by name, earlier ones included; fewer than planned where the budget ran out.

    Raises:
        InputError: the folder holds runs of another study.
        DataError: a split is missing.
        OutputError: the folder or the log cannot be written.
    """
    dataset = load_dataset(data)
    results = read_runs(out, plan, recipe, dataset)
    waiting = [run for run in plan if run.name not in results]
    progress.planned(finished=len(results), total=len(plan))
    private = dataset.roles.get("report") == PRIVATE_SPLIT and bool(waiting)
    log = writable_log(options.private_log) if private else None
    begun = time.monotonic()

    device = compute_device(options.device)
    for run in waiting:
        if options.budget_s is not None and time.monotonic() - begun >= options.budget_s:
            break
        result = _train(run, recipe, dataset, device, progress.step)
        if log is not None:
            _log_evaluation(log, result, dataset)
        result.write(run_path(out, system=result.system, seed=result.seed))
        results[run.name] = result
        progress.finished(run.name, result)
    return results


def publish_study(
    folder: Path, recipe: StudyRecipe, dataset: Dataset, target: Path, *, recipe_name: str, command: str | None = None
) -> StudyReport:
    """Summarise everything that is finished and write JSON and Markdown, over an earlier report.

    Args:
        folder: the study's; it may be unfinished.
        target: folder to write to, for example ``bench/results/paper``.

    Raises:
        InputError: runs of another recipe or other data, or a damaged file.
        OutputError: the target cannot be written.
    """
    protocol = Protocol(
        recipe=encode(recipe),
        recipe_name=recipe_name,
        epochs=recipe.train.optimiser.epochs,
        input_size=recipe.train.preprocess.size,
        seeds=recipe.seeds,
        extra_seeds=recipe.extra_seeds,
        choose=dataset.split("choose").name,
        report=dataset.split("report").name if "report" in dataset.roles else None,
        data=data_facts(dataset),
    )
    report = summarise_study(
        read_runs(folder, plan_runs(tuple(SYSTEMS.values()), recipe), recipe, dataset).values(),
        protocol=protocol,
        device=machine_report().to_json(),
        created=timestamp(),
        command=command,
    )
    write_study(report, target)
    return report


def _train(
    run: PlannedRun, recipe: StudyRecipe, dataset: Dataset, device: torch.device, progress: Progress
) -> RunResult:
    return train_system(
        system_recipe(run.system, recipe.train, run.seed),
        run.system,
        dataset,
        device=device,
        progress=lambda stage, done, total: progress(f"{run.name}: {stage}", done, total),
    )


def _recipe_of(result: RunResult) -> TrainRecipe | None:
    """Return the recipe of a run; settings newer than the run take their defaults. None where none fits."""
    try:
        return recorded(TrainRecipe, result.settings.get("recipe"))
    except InputError:
        return None


def _log_evaluation(log: Path, result: RunResult, dataset: Dataset) -> None:
    found = result.report
    assert found is not None
    summary = accuracy_report(
        found.probabilities, found.labels, dataset=found.dataset, split=found.split, leaked=found.leaked
    )
    append_private(
        log,
        study="paper",
        system=result.system,
        seed=result.seed,
        epochs=result.epochs,
        data_sha256=dataset.split("report").sha256,
        result=summary.to_json(),
    )
