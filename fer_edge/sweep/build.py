"""Building the networks of a sweep: train, prune, export, calibrate; each result is recorded in the sweep's folder.

sweep.json               recipe and data of everything in the folder
networks/UNIT/           run/, pruned runs, bundles/, and NETWORK.json once a network is built or has failed
bench/PROVIDER-*.json    the measurement of every point of one provider
pareto.json, .md, .png   the report
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import DataError, GateError, InputError, RecipeError, TrainingDiverged
from fer_edge.core.files import read_json, sha256_file, write_json, writing
from fer_edge.core.int8_forms import FORMS, Form
from fer_edge.core.json import decode, encode
from fer_edge.core.recipe_overrides import override
from fer_edge.core.recipes import load_recipe
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.sweep.grid import Network, Unit
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.train.recipe import TrainRecipe, recorded

if TYPE_CHECKING:
    from fer_edge.train.loop import EpochReport
    from fer_edge.train.run_folder import RunOptions, TrainRun

__all__ = ["BUILD_ERRORS", "Builder", "NetworkRecord", "SweepFolder", "calibration_recipe"]

BUILD_ERRORS: Final = (InputError, DataError, RecipeError, TrainingDiverged, GateError)
"""Errors that fail one network, while the sweep continues with the others."""

SCHEMA: Final = 1

_EXTENDABLE: Final = ("bundles", "runs", "keep", "precisions", "providers", "timing", "threads")
"""Recipe keys that may change between two starts, as may the lists of the grid: results on disk stay valid."""


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """The result of building one network.

    Attributes:
        network: its name.
        recipe: of its training; None for a finished run.
        weights_sha256: of the given run's weights; None for a training of the sweep.
        forms: by INT8 variant, ``"passed"`` or why the gate rejected it.
        failed: why there is no bundle; None where there is one.
    """

    schema: int = SCHEMA
    network: str
    recipe: Mapping[str, Any] | None = None
    weights_sha256: str | None = None
    forms: Mapping[str, str] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepFolder:
    """The folder of one sweep."""

    path: Path

    @classmethod
    def open(cls, path: Path, recipe: SweepRecipe, *, recipe_name: str, dataset: Dataset) -> SweepFolder:
        """Open the folder of this sweep, or create it.

        Raises:
            InputError: the folder holds something else, a sweep of another recipe, or one on other data.
            OutputError: it cannot be written.
        """
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        file = path / "sweep.json"
        if file.exists():
            _check_identity(file, recipe, dataset)
        elif any(path.iterdir()):
            raise InputError(f"--out: got {path}, which holds files but no sweep; choose another folder")
        stated = {
            "schema": SCHEMA,
            "recipe_name": recipe_name,
            "recipe": encode(recipe),
            "data": {"dataset": dataset.name, "sha256": dataset.sha256},
        }
        if not file.exists() or read_json(file) != stated:
            write_json(file, stated)
        return cls(path=path)

    def subfolder(self, *parts: str) -> Path:
        """Return a folder inside, created if need be.

        Raises:
            OutputError: it cannot be created.
        """
        place = self.path.joinpath(*parts)
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        return place

    def run_path(self, unit: Unit) -> Path:
        """Return the folder of a unit's training run."""
        return self.path / "networks" / unit.name / "run"

    def bundle_path(self, unit: Unit, network: Network) -> Path:
        """Return the folder of a network's bundle."""
        return self.path / "networks" / unit.name / "bundles" / network.name

    def record(self, unit: Unit, network: Network) -> NetworkRecord | None:
        """Read the record of a network; None where it has to be built, or its given run has other weights by now.

        Raises:
            InputError: the record is damaged, or the network was trained with other settings.
        """
        file = self._record_path(unit, network)
        if not file.exists():
            return None
        found = decode(NetworkRecord, read_json(file), where=str(file))
        if unit.run is not None and found.weights_sha256 != _weights_sha256(unit.run):
            return None
        if unit.recipe is not None and _recipe_of(found) != unit.recipe:
            raise InputError(
                f"{file}: got other training settings than the recipe's; choose another --out, or remove {file.parent}"
            )
        return found

    def write_record(self, unit: Unit, network: Network, record: NetworkRecord) -> None:
        """Write the record of a network.

        Raises:
            OutputError: it cannot be written.
        """
        self.subfolder("networks", unit.name)
        write_json(self._record_path(unit, network), encode(record))

    def is_unbuilt(self, unit: Unit, recipe: SweepRecipe) -> bool:
        """Return whether any network or INT8 variant of a unit has to be built."""
        if unit.bundle is not None:
            return False
        records = [self.record(unit, network) for network in unit.networks]
        return any(found is None or (found.failed is None and _missing_forms(found, recipe)) for found in records)

    def _record_path(self, unit: Unit, network: Network) -> Path:
        return self.path / "networks" / unit.name / f"{network.name}.json"


def calibration_recipe(recipe: SweepRecipe) -> CalibrationRecipe:
    """Return the calibration recipe with the sweep's settings.

    Raises:
        RecipeError: an unknown setting.
    """
    return override(load_recipe(CalibrationRecipe, "default", room="calibrate"), recipe.calibrate_settings)


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds units.

    Attributes:
        dataset: its ``train`` split trains and calibrates, its ``choose`` split chooses.
        device: of the trainings: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        note: called with a line for every epoch.
    """

    folder: SweepFolder
    recipe: SweepRecipe
    dataset: Dataset
    device: str
    progress: Progress
    note: Callable[[str], None]

    def build(self, unit: Unit) -> None:
        """Build the missing networks and variants of a unit; a failure is recorded with its reason.

        Raises:
            InputError: the unit's folder holds a run of other settings, or a given run is not finished.
            OutputError: the folder cannot be written.
        """
        run: TrainRun | None = None
        for network in unit.networks:
            record = self.folder.record(unit, network)
            if record is None:
                self._check_run(unit)
                record = NetworkRecord(
                    network=network.name,
                    recipe=None if unit.recipe is None else encode(unit.recipe),
                    weights_sha256=None if unit.run is None else _weights_sha256(unit.run),
                )
                try:
                    run = run or self._train(unit)
                    self._export(unit, network, run)
                except BUILD_ERRORS as error:
                    record = replace(record, failed=str(error))
                self.folder.write_record(unit, network, record)
            if record.failed is None and (missing := _missing_forms(record, self.recipe)):
                self.folder.write_record(unit, network, self._calibrate(unit, network, record, missing))

    def _train(self, unit: Unit) -> TrainRun:
        """Train a unit, or resume its run; a finished run is returned as it is."""
        from fer_edge.train.pretrained import open_pretrained
        from fer_edge.train.run_folder import TrainRun
        from fer_edge.train.train import TrainInputs, train_model

        if unit.recipe is None:
            assert unit.run is not None
            return TrainRun.open(unit.run)
        self.folder.subfolder("networks", unit.name)
        return train_model(
            unit.recipe,
            self.dataset,
            self.folder.run_path(unit),
            inputs=TrainInputs(teachers=tuple(map(open_pretrained, unit.teachers))),
            options=self._options(unit.name),
        )

    def _check_run(self, unit: Unit) -> None:
        from fer_edge.train.run_folder import TrainRun

        if unit.run is not None and not TrainRun.open(unit.run).done:
            raise InputError(f"{unit.run}: got an unfinished run; finish it first: fer-edge train --resume")
        place = self.folder.run_path(unit)
        if (place / "run.json").exists() and TrainRun.open(place).recipe != unit.recipe:
            raise InputError(f"{place}: got a run of other settings than the recipe's; remove it, or change --out")

    def _export(self, unit: Unit, network: Network, run: TrainRun) -> None:
        """Prune where the network asks for it, and export."""
        from fer_edge.export.from_torch.run import export_run
        from fer_edge.train.prune import prune_run
        from fer_edge.train.recipe import PruneRecipe
        from fer_edge.train.structured_pruning import PruneTarget

        share = network.axes.keep
        if share is not None and share != 1:
            run = prune_run(
                run,
                self.folder.subfolder("networks", unit.name) / f"keep-{share:g}",
                self.dataset,
                target=PruneTarget(macs=share),
                recipe=override(PruneRecipe(), self.recipe.prune_settings),
                options=self._options(network.name),
            )
        self.progress(f"{network.name}: export", 0, 1)
        export_run(run, self.folder.bundle_path(unit, network), name=network.name, overwrite=True)

    def _options(self, work: str) -> RunOptions:
        from fer_edge.train.run_folder import RunOptions

        def on_epoch(report: EpochReport) -> None:
            top1 = f"{report.score:.2%} (best {report.best_score:.2%})"
            self.note(f"{work}: epoch {report.epoch}, choose top-1 {top1}")

        def steps(stage: str, done: int, total: int) -> None:
            self.progress(f"{work}: {stage}", done, total)

        return RunOptions(resume=True, device=self.device, progress=steps, on_epoch=on_epoch)

    def _calibrate(
        self, unit: Unit, network: Network, record: NetworkRecord, missing: tuple[Form, ...]
    ) -> NetworkRecord:
        """Add every INT8 variant that passes the gate to the bundle, and record why the others do not."""
        from fer_edge.calibrate.calibration import measure_forms

        try:
            outcome = measure_forms(
                Bundle.open(self.folder.bundle_path(unit, network)),
                self.dataset,
                recipe=replace(calibration_recipe(self.recipe), forms=missing),
                progress=lambda what, done, total: self.progress(f"{network.name}: {what}", done, total),
            )
        except BUILD_ERRORS as error:
            return replace(record, forms={**record.forms, **dict.fromkeys(missing, str(error))})
        passed = tuple(form for form in outcome.forms if form.gate.passed)
        if passed:
            replace(outcome, forms=passed).write()
        verdicts = {form.variant.name: _verdict(form.gate) for form in outcome.forms}
        return replace(record, forms={**record.forms, **verdicts})


def _weights_sha256(run: Path) -> str:
    return sha256_file(run / "model.safetensors")


def _missing_forms(record: NetworkRecord, recipe: SweepRecipe) -> tuple[Form, ...]:
    return tuple(form for form in FORMS if form in recipe.precisions and form not in record.forms)


def _verdict(gate: Any) -> str:
    failures = [
        f"{check.name} {check.measured:.4f} against {check.limit:.4f} on {check.on}"
        for check in gate.checks
        if not check.passed
    ]
    return "passed" if gate.passed else f"rejected by the gate: {', '.join(failures)}"


def _check_identity(file: Path, recipe: SweepRecipe, dataset: Dataset) -> None:
    """Refuse a folder of another recipe or other data."""
    stated = read_json(file)
    if not isinstance(stated, dict) or stated.get("schema") != SCHEMA or not isinstance(stated.get("recipe"), dict):
        raise InputError(f"{file} is no sweep of this version; choose another --out")
    if stated["data"]["sha256"] != dataset.sha256:
        raise InputError(f"{file.parent} is a sweep on other data (sha256 {stated['data']['sha256'][:12]}…)")
    try:
        before = decode(SweepRecipe, stated["recipe"])
    except (InputError, RecipeError) as error:
        raise InputError(f"{file} is no sweep of this version ({error}); choose another --out") from error
    old, new = _fixed_keys(before), _fixed_keys(recipe)
    if differing := [key for key in new if old[key] != new[key]]:
        raise InputError(
            f"{file.parent} is a sweep of the recipe {stated['recipe_name']!r} with another {differing[0]}; only the "
            "axes of a sweep may change: choose another --out"
        )


def _fixed_keys(recipe: SweepRecipe) -> dict[str, Any]:
    """Return the keys of a recipe that must not change."""
    kept = {key: value for key, value in asdict(recipe).items() if key not in _EXTENDABLE}
    if recipe.grid is not None:
        kept["grid"] = {"teachers": recipe.grid.teachers}
    # A sweep without a grid has no other identity, so at least the kind of its networks must stay.
    kept["kind"] = [recipe.makes_networks, recipe.grid is not None]
    return kept


def _recipe_of(record: NetworkRecord) -> TrainRecipe | None:
    """Return the training recipe of a record; settings newer than the record take their defaults."""
    try:
        return recorded(TrainRecipe, record.recipe)
    except (InputError, RecipeError):
        return None
