"""A whole sweep: build, search, measure, and the front that comes of it; gone on with by calling it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fer_edge.bench.peers import PeerTable
from fer_edge.bench.report import BenchReport
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.recipes import load_recipe
from fer_edge.data import Dataset
from fer_edge.data.dataset import Role
from fer_edge.sweep.build import calibration_of, require_packages, unmade
from fer_edge.sweep.folder import SweepFolder
from fer_edge.sweep.grid import Axes, Unit, plan_units
from fer_edge.sweep.measure import Bench, expect_providers, variants_of
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.sweep.report import SweepReport, front_of, measurement_of, peer_points, point_of
from fer_edge.sweep.work import SweepProgress, Task, build_units, builder_of, work_off

__all__ = ["JSON_NAME", "load_sweep", "run_sweep"]

JSON_NAME = "pareto.json"
"""The report's file in a sweep's folder."""

_PEERS_DATA = "fer2013"


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A bundle that is to be measured, and where in the grid it stands."""

    bundle: Bundle
    axes: Axes


def load_sweep(name_or_path: str) -> SweepRecipe:
    """A shipped sweep recipe or a file of one's own.

    Raises:
        InputError: as `load_recipe`.
    """
    return load_recipe(SweepRecipe, name_or_path, room="sweep")


def run_sweep(
    recipe: SweepRecipe,
    data: str,
    dataset: Dataset,
    out: Path,
    *,
    recipe_name: str,
    jobs: int = 1,
    budget_s: float | None = None,
    again: bool = False,
    device: str = "auto",
    split: Role = "choose",
    peers: PeerTable | None = None,
    storage: str | None = None,
    private_log: Path | None = None,
    command: str | None = None,
    progress: SweepProgress,
) -> SweepReport | None:
    """Do what of a sweep is not done yet, and measure all of it.

    Every stage of every network is kept once it is done, and trainings go on at their last epoch, so that the same call
    goes on where a process ended. Several processes may call it with one folder: each takes what no other has in hands,
    and the last one to end measures.

    Args:
        recipe: what to sweep over.
        data: the data set's spec, which further processes load for themselves.
        dataset: the same, loaded.
        out: the sweep's folder.
        recipe_name: the recipe's name or path, for the record.
        jobs: processes to start; each takes its share of the cores.
        budget_s: after this time no training is begun; what is done by then is measured.
        again: measure even what lies measured in the folder.
        device: of the trainings: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        split: what the points are measured on; the search never sees ``"report"``.
        peers: others' models, for the picture.
        storage: database URL of the search.
        private_log: where looks at PrivateTest go on record; the repository's log by default.
        command: for the record.
        progress: told of everything.

    Returns:
        the report, which is also written; None where nothing is there to be measured yet, or other processes are still
        at work and will measure.

    Raises:
        InputError: a recipe that cannot be followed, a folder of another sweep or on other data, a foreign study.
        BundleError: a bundle that is missing or damaged.
        SessionError: a provider that is not to be had.
        MissingPackageError: a package that the sweep needs.
        OutputError: the folder cannot be written.
    """
    if jobs < 1:
        raise InputError(f"jobs: got {jobs}, expected 1 or more")
    deadline_s = None if budget_s is None else time.time() + budget_s
    units = _checked(recipe, dataset)
    folder = SweepFolder.open(out, recipe, recipe_name=recipe_name, dataset=dataset)
    waiting = sum(unmade(folder, unit, recipe) for unit in units)
    progress.said(f"{len(units)} networks or trainings, {len(units) - waiting} of them done already")
    task = Task(
        recipe=recipe,
        recipe_name=recipe_name,
        data=data,
        out=out,
        device=device,
        storage=storage,
        deadline_s=deadline_s,
    )
    if waiting or recipe.search is not None:
        work_off(task, dataset, folder, jobs=jobs, progress=progress)
    busy = [unit.name for unit in units if unit.bundle is None and folder.in_other_hands(unit)]
    notes: list[str] = []
    if recipe.search is not None and not busy:
        found, notes, busy = _found(task, dataset, folder, progress)
        units = (*units, *found)
    if busy:
        progress.said(f"not measured yet: {', '.join(busy)} in another process's hands, and the last one measures")
        return None
    members, missing = _members(units, folder, recipe)
    if not members:
        if missing and not any(unmade(folder, unit, recipe) for unit in units):
            raise InputError(f"the sweep has nothing to measure: {'; '.join(missing)}")
        progress.said("nothing to measure yet; the same command goes on")
        return None
    bench = Bench(
        folder=folder,
        recipe=recipe,
        dataset=dataset,
        split=split,
        private_log=private_log,
        command=command,
        again=again,
        say=lambda what, done, total: progress.step(what, "", done, total),
    )
    measured = {provider: bench.measure(provider, [each.bundle for each in members]) for provider in recipe.providers}
    report = _report(
        recipe, dataset, members, measured,
        recipe_name=recipe_name, split=split, peers=peers, command=command, missing=(*notes, *missing),
    )  # fmt: skip
    report.write(out / JSON_NAME)
    return report


def _checked(recipe: SweepRecipe, dataset: Dataset) -> tuple[Unit, ...]:
    """The plan, once everything that can be known to fail has been looked at."""
    require_packages(recipe)
    expect_providers(recipe)
    units = plan_units(recipe)
    for spec in (recipe.grid, recipe.search):
        if spec is not None and spec.teachers:
            from fer_edge.train.train import open_origin

            for name in spec.teachers:
                open_origin(name)
    if recipe.makes_networks:
        calibration_of(recipe)
    if recipe.search is not None:
        from fer_edge.sweep.search import expect_space

        expect_space(recipe)
    for unit in units:
        if unit.bundle is not None:
            labels = Bundle.open(unit.bundle).manifest.labels
            dataset.expect_expressions(labels, of=f"the bundle {unit.name}")
    return units


def _found(
    task: Task, dataset: Dataset, folder: SweepFolder, progress: SweepProgress
) -> tuple[tuple[Unit, ...], list[str], list[str]]:
    """The search's best networks so far, made into bundles; what there is to say of them; trials in other hands."""
    from fer_edge.sweep.search import best_units, open_study, trials_in_other_hands

    study = open_study(folder, task.recipe, dataset, task.storage)
    if busy := trials_in_other_hands(study, folder):
        return (), [], busy
    found, notes = best_units(study, folder, task.recipe)
    # Exporting takes no time to speak of; pruning what was found is a training.
    deadline_s = task.deadline_s if task.recipe.keep != (1.0,) else None
    build_units(tuple(found), builder_of(task, dataset, folder, progress), deadline_s=deadline_s, progress=progress)
    return tuple(found), notes, []


def _members(units: Sequence[Unit], folder: SweepFolder, recipe: SweepRecipe) -> tuple[list[_Member], list[str]]:
    """What there is to be measured, and why the rest is not."""
    members, missing = [], []
    for unit in units:
        for network in unit.networks:
            if unit.bundle is None:
                made = folder.made(unit, network)
                if made is None:
                    missing.append(f"{network.name}: not made yet")
                    continue
                if made.failed is not None:
                    missing.append(f"{network.name}: {made.failed}")
                    continue
                missing += [f"{network.name}/{form}: {why}" for form, why in made.forms.items() if why != "passed"]
            bundle = Bundle.open(unit.bundle or folder.bundle_path(unit, network))
            held = variants_of(bundle, recipe)
            if unit.bundle is not None:
                lacking = [name for name in recipe.precisions if name not in held]
                missing += [f"{network.name}/{name}: the bundle has no such variant" for name in lacking]
            if held:
                members.append(_Member(bundle=bundle, axes=network.axes))
    return members, missing


def _report(
    recipe: SweepRecipe,
    dataset: Dataset,
    members: Sequence[_Member],
    measured: Mapping[str, BenchReport],
    *,
    recipe_name: str,
    split: Role,
    peers: PeerTable | None,
    command: str | None,
    missing: Sequence[str],
) -> SweepReport:
    axes = {member.bundle.sha256: member.axes for member in members}
    points = [
        point_of(result, report.reference, axes[result.sha256])
        for report in measured.values()
        for result in report.variants
    ]
    points.sort(key=lambda point: (point.x, point.name, point.provider))
    on_front = front_of([(point.x, point.top1) for point in points])
    points = [replace(point, front=front) for point, front in zip(points, on_front, strict=True)]
    rows = dataset.split(split)
    comparable = peers is not None and dataset.name == _PEERS_DATA
    return SweepReport(
        created=timestamp(),
        command=command,
        recipe_name=recipe_name,
        recipe=encode(recipe),
        device=encode(machine_report().to_json()),
        measurements=tuple(measurement_of(report, provider) for provider, report in measured.items()),
        role="report" if split == "report" else "choose",
        dataset=dataset.name,
        split=rows.name,
        split_sha256=rows.sha256,
        n=len(rows),
        threads=recipe.threads,
        points=tuple(points),
        peers=peer_points(peers, points, split) if comparable and peers is not None else (),
        missing=tuple(missing),
    )
