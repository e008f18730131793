"""A whole sweep: build, measure, report; calling it again resumes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fer_edge.bench import BenchOptions, run_bench
from fer_edge.bench.peers import PeerTable
from fer_edge.bench.reference_cnn import reference_graph
from fer_edge.bench.report import BenchReport
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError, require
from fer_edge.core.files import write_atomic
from fer_edge.core.int8_forms import FORMS
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.recipes import load_recipe
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.data.dataset import Role
from fer_edge.runtime.providers import open_session
from fer_edge.sweep.build import Builder, SweepFolder, calibration_recipe
from fer_edge.sweep.grid import Axes, Unit, plan_units
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.sweep.report import (
    PLOT_NAME,
    SweepReport,
    mark_front,
    measurement_of,
    peer_points,
    point_of,
    render_page,
)

__all__ = ["SweepOptions", "load_sweep", "run_sweep", "write_sweep"]

_PEERS_DATA: Final = "fer2013"


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep runs.

    Attributes:
        budget_s: no training starts after this time; finished networks are measured.
        device: of the trainings: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        split: to measure on.
        peers: models of others, for the plot.
        private_log: log of PrivateTest evaluations; the repository's by default.
    """

    recipe_name: str
    budget_s: float | None = None
    device: str = "auto"
    split: Role = "choose"
    peers: PeerTable | None = None
    private_log: Path | None = None
    command: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A bundle to measure."""

    bundle: Bundle
    axes: Axes


def load_sweep(name_or_path: str) -> SweepRecipe:
    """Read a shipped sweep recipe or a TOML file.

    Raises:
        RecipeError: as `load_recipe`.
    """
    return load_recipe(SweepRecipe, name_or_path, room="sweep")


def run_sweep(
    recipe: SweepRecipe,
    dataset: Dataset,
    out: Path,
    options: SweepOptions,
    *,
    progress: Progress,
    note: Callable[[str], None],
) -> SweepReport | None:
    """Do the remaining work of a sweep, and measure all of it.

    Every finished stage of every network is kept and trainings resume at their last epoch.

    Returns:
        the report; None where there is nothing to measure yet.

    Raises:
        RecipeError: a recipe that does not fit.
        InputError: a folder of another sweep or on other data.
        BundleError: a bundle that is missing or damaged.
        SessionError: a provider that is not available.
        MissingPackageError: a package that the sweep needs.
        OutputError: the folder cannot be written.
    """
    deadline_s = math.inf if options.budget_s is None else time.monotonic() + options.budget_s
    units = _check(recipe, dataset)
    folder = SweepFolder.open(out, recipe, recipe_name=options.recipe_name, dataset=dataset)
    waiting = [unit for unit in units if folder.is_unbuilt(unit, recipe)]
    note(f"{len(units)} networks or trainings, {len(units) - len(waiting)} of them finished already")
    builder = Builder(
        folder=folder, recipe=recipe, dataset=dataset, device=options.device, progress=progress, note=note
    )
    for unit in waiting:
        if time.monotonic() < deadline_s:
            builder.build(unit)
    members, missing = _members(units, folder, recipe)
    if not members:
        if missing and not any(folder.is_unbuilt(unit, recipe) for unit in units):
            raise InputError(f"nothing to measure: {'; '.join(missing)}")
        note("nothing to measure yet; the same command resumes the sweep")
        return None
    measured = {
        provider: _measure(provider, [each.bundle for each in members], folder, recipe, dataset, options, progress)
        for provider in recipe.providers
    }
    return _report(recipe, dataset, members, measured, options, missing=missing)


def write_sweep(report: SweepReport, folder: Path, *, plot: bool) -> None:
    """Write ``pareto.json``, ``pareto.md`` and, where `plot` is set, ``pareto.png``.

    Raises:
        OutputError: a file cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    report.write(folder / "pareto.json")
    if plot:
        from fer_edge.sweep.pareto_plot import draw_front

        write_atomic(folder / PLOT_NAME, draw_front(report))
    write_atomic(folder / "pareto.md", render_page(report, plot=plot).encode())


def _check(recipe: SweepRecipe, dataset: Dataset) -> tuple[Unit, ...]:
    """Plan the units; everything that must fail, fails here, before any work."""
    _require_packages(recipe)
    for provider in recipe.providers:
        if provider == "litert":
            from fer_edge.export.litert_cache import require_litert

            require_litert()
        else:
            open_session(reference_graph(), provider=provider).close()
    units = plan_units(recipe)
    if recipe.grid is not None and recipe.grid.teachers:
        from fer_edge.train.pretrained import open_pretrained

        for name in recipe.grid.teachers:
            open_pretrained(name)
    if recipe.makes_networks:
        calibration_recipe(recipe)
    for unit in units:
        if unit.bundle is not None:
            labels = Bundle.open(unit.bundle).manifest.labels
            dataset.expect_expressions(labels, of=f"the bundle {unit.name}")
    return units


def _require_packages(recipe: SweepRecipe) -> None:
    if recipe.makes_networks:
        for package in ("torch", "safetensors", "sklearn"):
            require(package, needed_by="a sweep that trains or exports", extra="train")
        if set(recipe.precisions) & set(FORMS):
            from fer_edge import calibrate

            calibrate.require_packages(needed_by="a sweep with INT8")
    if recipe.keep != (1.0,):
        require("torch_pruning", needed_by="a sweep that prunes", extra="train")


def _members(units: Sequence[Unit], folder: SweepFolder, recipe: SweepRecipe) -> tuple[list[_Member], list[str]]:
    """Return what can be measured, and why the rest cannot."""
    members, missing = [], []
    for unit in units:
        for network in unit.networks:
            if unit.bundle is None:
                record = folder.record(unit, network)
                if record is None or record.failed is not None:
                    missing.append(f"{network.name}: {'not built yet' if record is None else record.failed}")
                    continue
                missing += [f"{network.name}/{form}: {why}" for form, why in record.forms.items() if why != "passed"]
            bundle = Bundle.open(unit.bundle or folder.bundle_path(unit, network))
            variants = _variants(bundle, recipe)
            if unit.bundle is not None:
                lacking = [name for name in recipe.precisions if name not in variants]
                missing += [f"{network.name}/{name}: the bundle has no such variant" for name in lacking]
            if variants:
                members.append(_Member(bundle=bundle, axes=network.axes))
    return members, missing


def _variants(bundle: Bundle, recipe: SweepRecipe) -> list[str]:
    held = {variant.name for variant in bundle.manifest.variants}
    return [name for name in recipe.precisions if name in held]


def _measure(
    provider: str,
    bundles: Sequence[Bundle],
    folder: SweepFolder,
    recipe: SweepRecipe,
    dataset: Dataset,
    options: SweepOptions,
    progress: Progress,
) -> BenchReport:
    """Measure all points of one provider interleaved with the reference CNN, or reuse the folder's measurement."""
    wanted = {(bundle.sha256, name) for bundle in bundles for name in _variants(bundle, recipe)}
    timing = replace(recipe.timing, cold_starts=0, idle_s=None)
    file = folder.subfolder("bench") / f"{provider}-{options.split}.json"
    if file.exists():
        earlier = BenchReport.read(file)
        if (
            earlier.data is not None
            and earlier.data.split_sha256 == dataset.split(options.split).sha256
            and earlier.timing == timing
            and {result.threads for result in earlier.variants} == {recipe.threads}
            and {(result.sha256, result.name) for result in earlier.variants} == wanted
        ):
            return earlier
    if provider == "litert":
        from fer_edge.export.litert_cache import write_missing

        for bundle in bundles:
            write_missing(bundle, _variants(bundle, recipe))
    measured = run_bench(
        bundles,
        data=dataset,
        options=BenchOptions(
            split=options.split,
            variants=sorted({name for _, name in wanted}),
            providers=(provider,),
            threads=recipe.threads,
            timing=timing,
            private_log=options.private_log,
            command=options.command,
        ),
        progress=lambda what, done, total: progress(f"{provider}: {what}", done, total),
    )
    measured.write(file)
    return measured


def _report(
    recipe: SweepRecipe,
    dataset: Dataset,
    members: Sequence[_Member],
    measured: Mapping[str, BenchReport],
    options: SweepOptions,
    *,
    missing: Sequence[str],
) -> SweepReport:
    axes = {member.bundle.sha256: member.axes for member in members}
    points = mark_front(
        point_of(result, report.reference, axes[result.sha256])
        for report in measured.values()
        for result in report.variants
    )
    rows = dataset.split(options.split)
    peers = options.peers if dataset.name == _PEERS_DATA else None
    return SweepReport(
        created=timestamp(),
        command=options.command,
        recipe_name=options.recipe_name,
        recipe=encode(recipe),
        device=encode(machine_report().to_json()),
        measurements=tuple(measurement_of(report, provider) for provider, report in measured.items()),
        role="report" if options.split == "report" else "choose",
        dataset=dataset.name,
        split=rows.name,
        split_sha256=rows.sha256,
        n=len(rows),
        threads=recipe.threads,
        points=points,
        peers=() if peers is None else peer_points(peers, points, options.split),
        missing=tuple(missing),
    )
