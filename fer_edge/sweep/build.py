"""From a unit to its bundles: train, prune, export, calibrate, each by its own room and each kept once it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import GateError, InputError, require
from fer_edge.core.int8_forms import FORMS, Form
from fer_edge.core.json import encode
from fer_edge.core.recipes import load_recipe, override
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.sweep.folder import Made, SweepFolder
from fer_edge.sweep.grid import Network, Unit
from fer_edge.sweep.recipe import SweepRecipe

if TYPE_CHECKING:
    from fer_edge.train.progress import Reporter
    from fer_edge.train.run_folder import TrainRun

__all__ = ["Builder", "calibration_of", "require_packages", "unmade"]


def require_packages(recipe: SweepRecipe) -> None:
    """Say before any work which package a sweep needs and this environment lacks.

    Raises:
        MissingPackageError: naming it and the command.
    """
    if recipe.makes_networks:
        for package in ("torch", "safetensors", "sklearn"):
            require(package, needed_by="a sweep that trains or exports", extra="train")
        if set(recipe.precisions) & set(FORMS):
            from fer_edge import calibrate

            calibrate.require_packages(needed_by="a sweep with INT8")
    if recipe.keep != (1.0,):
        require("torch_pruning", needed_by="a sweep that prunes", extra="train")
    if recipe.search is not None:
        require("optuna", needed_by="a sweep that searches", extra="sweep")


def unmade(folder: SweepFolder, unit: Unit, recipe: SweepRecipe) -> bool:
    """Whether anything of a unit is left to do."""
    if unit.bundle is not None:
        return False
    return any(
        made is None or (made.failed is None and _missing_forms(made, recipe))
        for made in (folder.made(unit, network) for network in unit.networks)
    )


def _missing_forms(made: Made, recipe: SweepRecipe) -> tuple[Form, ...]:
    return tuple(form for form in FORMS if form in recipe.precisions and form not in made.forms)


def calibration_of(recipe: SweepRecipe) -> CalibrationRecipe:
    """How a sweep calibrates.

    Raises:
        InputError: an unknown setting.
    """
    return override(load_recipe(CalibrationRecipe, "default", room="calibrate"), recipe.calibrate_settings)


@dataclass(frozen=True, kw_only=True)
class Builder:
    """What every unit of one process is made with.

    Attributes:
        folder: the sweep's.
        recipe: the sweep's.
        dataset: trained and calibrated on its training split, measured on the choosing one.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        reporter: a unit's name -> who is told of its training.
        say: told of export and calibration.
    """

    folder: SweepFolder
    recipe: SweepRecipe
    dataset: Dataset
    device: str
    reporter: Callable[[str], Reporter]
    say: Progress

    def build(self, unit: Unit) -> None:
        """Make what of a unit is not there yet; what cannot be made is recorded with the reason.

        Raises:
            InputError: what stands in the unit's folder is another recipe's, or a run that is given is not finished.
            OutputError: the folder cannot be written.
        """
        if not unmade(self.folder, unit, self.recipe):
            return
        run: TrainRun | None = None
        for network in unit.networks:
            made = self.folder.made(unit, network)
            if made is None:
                self._expect_own(unit)
                try:
                    run = run or self._trained(unit)
                    made = self._exported(unit, network, run)
                except InputError as error:
                    told = None if unit.recipe is None else encode(unit.recipe)
                    made = Made(network=network.name, recipe=told, failed=str(error))
                self.folder.record(unit, network, made)
            if made.failed is None and (missing := _missing_forms(made, self.recipe)):
                self.folder.record(unit, network, self._calibrated(unit, network, made, missing))

    def _expect_own(self, unit: Unit) -> None:
        from fer_edge.train.run_folder import TrainRun

        place = self.folder.place(unit) / "run"
        if unit.run is not None and not TrainRun.open(unit.run).done:
            raise InputError(f"{unit.run} is not finished; go on with it by fer-edge train --resume first")
        if (place / "run.json").exists() and TrainRun.open(place).recipe != unit.recipe:
            raise InputError(
                f"{place} was trained by other settings than the recipe's; remove it, or take another --out"
            )

    def _trained(self, unit: Unit) -> TrainRun:
        from fer_edge.train.run_folder import TrainRun
        from fer_edge.train.train import open_origin, train_model

        if unit.recipe is None:
            assert unit.run is not None
            return TrainRun.open(unit.run)
        return train_model(
            unit.recipe,
            self.dataset,
            self.folder.place(unit) / "run",
            teacher=[open_origin(each) for each in unit.teachers],
            resume=True,
            device=self.device,
            report=self.reporter(unit.name),
        )

    def _exported(self, unit: Unit, network: Network, run: TrainRun) -> Made:
        from fer_edge.export.from_torch.run import export_run

        told = None if unit.recipe is None else encode(unit.recipe)
        try:
            pruned = self._pruned(unit, network, run)
            self.say(f"{network.name}: export", 0, 1)
            export_run(pruned, self.folder.bundle_path(unit, network), name=network.name, overwrite=True)
        except (InputError, GateError) as error:
            return Made(network=network.name, recipe=told, failed=str(error))
        return Made(network=network.name, recipe=told, run=pruned.identity)

    def _pruned(self, unit: Unit, network: Network, run: TrainRun) -> TrainRun:
        from fer_edge.train.prune import prune_run
        from fer_edge.train.recipe import PruneRecipe
        from fer_edge.train.structured_pruning import PruneTarget

        share = network.axes.keep
        if share is None or share == 1:
            return run
        return prune_run(
            run,
            self.folder.place(unit) / f"keep-{share:g}",
            self.dataset,
            target=PruneTarget(macs=share),
            recipe=override(PruneRecipe(), self.recipe.prune_settings),
            resume=True,
            device=self.device,
            report=self.reporter(network.name),
        )

    def _calibrated(self, unit: Unit, network: Network, made: Made, missing: tuple[Form, ...]) -> Made:
        """Every form that is through the gate goes into the bundle; of the others the record says why they do not."""
        from fer_edge.calibrate.calibration import measure_forms

        bundle = Bundle.open(self.folder.bundle_path(unit, network))
        try:
            outcome = measure_forms(
                bundle,
                self.dataset,
                recipe=replace(calibration_of(self.recipe), forms=missing),
                progress=lambda what, done, total: self.say(f"{network.name}: {what}", done, total),
            )
        except (InputError, GateError) as error:
            return replace(made, forms={**made.forms, **{form: str(error) for form in missing}})
        came: dict[str, str] = {}
        passed = []
        for form in outcome.forms:
            if form.gate.passed:
                passed.append(form)
                came[form.variant.name] = "passed"
            else:
                came[form.variant.name] = "not through the gate: " + _failures(form.gate)
        if passed:
            replace(outcome, forms=tuple(passed)).write()
        return replace(made, forms={**made.forms, **came})


def _failures(gate: Any) -> str:
    return ", ".join(
        f"{check.name} {check.measured:.4f} against {check.limit:.4f} on {check.on}"
        for check in gate.checks
        if not check.passed
    )
