"""The study on CK+: ten folds by subject, from scratch and from the FER2013 weights, on stills and on sequences."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, sha256_file, write_json
from fer_edge.core.json import decode, encode
from fer_edge.core.types import Progress
from fer_edge.data import Dataset, load_dataset
from fer_edge.data.ckplus import LABELS, SequenceSet, load_sequences, split_by_subject
from fer_edge.data.specs import DataSpec
from fer_edge.paper.analysis import CKPLUS_SYSTEMS, STARTS, ckplus_report
from fer_edge.paper.ckplus_sequences import SequenceTraining, peak_mean
from fer_edge.paper.recipe import StudyRecipe
from fer_edge.paper.report import CkPlusReport, Start
from fer_edge.paper.results import RunResult, StudyProgress, run_path, weights_path
from fer_edge.paper.systems import COMPLETE, PEAK_MEAN, SEQUENCE, SYSTEMS
from fer_edge.paper.training import TrainedSystem, system_recipe, train_system
from fer_edge.train.distributed import compute_device
from fer_edge.train.recipe import TrainRecipe

__all__ = ["CkPlusStudy", "load_ckplus", "plan_ckplus", "read_ckplus"]

_REPORTS: Final = ("ckplus.json", "ckplus-official.json")

Run = tuple[str, Start, int]
"""A system (or the complete one on sequences), its start, and the fold."""


def plan_ckplus(recipe: StudyRecipe, *, systems: tuple[str, ...] = CKPLUS_SYSTEMS, whole: bool) -> list[Run]:
    """Plan the runs, fold by fold.

    Args:
        recipe: with the number of folds.
        systems: of Tables 1 and 2, by name.
        whole: the data hold whole sequences (the authors' tree); CK+48 does not.
    """
    names = [*systems, *((SEQUENCE, PEAK_MEAN) if whole and COMPLETE in systems else ())]
    return [(name, start, fold) for fold in range(recipe.ckplus.folds) for start in STARTS for name in names]


def load_ckplus(data: str, *, progress: Progress | None = None) -> tuple[Dataset, SequenceSet | None]:
    """Load the stills, and the whole sequences where the data hold them; both are cached.

    Args:
        data: the spec, ``ckplus:PATH`` or ``ckplus:PATH?labels=official``.

    Raises:
        InputError: another spec.
        DataError: data that cannot be read.
    """
    spec = DataSpec.parse(data)
    if spec.kind != "ckplus" or "fold" in spec.options:
        raise InputError(f"--data: got {data!r}, expected ckplus:PATH without ?fold=, because every fold is run")
    whole = load_dataset(data, progress=progress)
    if whole.layout != "cohn-kanade":
        return whole, None
    size, expressions = spec.options.get("size"), LABELS[spec.options.get("labels", "seven")]
    return whole, load_sequences(Path(spec.where), size=size, expressions=expressions, progress=progress)


def read_ckplus(folder: Path) -> tuple[CkPlusReport, ...]:
    """Read the reports on CK+ of a study's folder, one for each set of labels.

    Raises:
        InputError: a damaged file.
    """
    found = []
    for path in (folder / name for name in _REPORTS):
        if path.exists():
            try:
                found.append(decode(CkPlusReport, read_json(path)))
            except InputError as error:
                raise InputError(f"{path}: {error}; remove it, and the study writes it again") from error
    return tuple(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class CkPlusStudy:
    """The protocol on CK+ for one set of labels.

    Attributes:
        stills: of all subjects.
        sequences: whole ones; None where the data hold none.
        out: the study's folder, with the FER2013 weights, which are one of the two starts.
        systems: of Tables 1 and 2, by name.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    recipe: StudyRecipe
    stills: Dataset
    sequences: SequenceSet | None
    out: Path
    systems: tuple[str, ...] = CKPLUS_SYSTEMS
    device: str = "auto"

    def run(self, *, budget_s: float | None = None, progress: StudyProgress) -> dict[Run, RunResult]:
        """Train the missing runs; the report in the folder is updated after each.

        Args:
            budget_s: no run starts after this time.

        Returns:
            the finished runs, earlier ones included.

        Raises:
            InputError: FER2013 weights are missing, or the folder holds runs of another protocol.
            OutputError: the folder cannot be written.
        """
        plan = plan_ckplus(self.recipe, systems=self.systems, whole=self.sequences is not None)
        results = {run: found for run in plan if (found := self._read(run)) is not None}
        waiting = [run for run in plan if run not in results]
        if waiting:
            self._check_weights()
        progress.planned(finished=len(results), total=len(plan))
        if results:
            self._write_report(results)
        begun = time.monotonic()
        for run in waiting:
            if budget_s is not None and time.monotonic() - begun >= budget_s:
                break
            name = f"{run[0]} {run[1]} fold {run[2]}"
            results[run] = self._train(run, name, progress)
            progress.finished(name, results[run])
            self._write_report(results)
        return results

    def _path(self, run: Run) -> Path:
        system, start, fold = run
        folder = "ckplus-official" if "contempt" in self.stills.expressions else "ckplus"
        return run_path(self.out / folder / f"{start}-fold{fold}", system=system, seed=self.recipe.ckplus.seed)

    def _read(self, run: Run) -> RunResult | None:
        path = self._path(run)
        if not path.exists():
            return None
        result = RunResult.read(path)
        if result.settings.get("ckplus") != self._identity(run):
            raise InputError(
                f"{path}: got a run of another recipe, other data or other FER2013 weights; choose another --out, or "
                "remove that file"
            )
        return result

    def _write_report(self, results: Mapping[Run, RunResult]) -> None:
        whole, folds = self.sequences is not None, self.recipe.ckplus.folds
        report = ckplus_report(results, folds=folds, systems=self.systems, whole=whole)
        write_json(self.out / _REPORTS["contempt" in self.stills.expressions], encode(report))

    def _check_weights(self) -> None:
        """Refuse before any training if FER2013 weights are missing."""
        for system in self.systems:
            path = self._fer2013_weights(system)
            if not path.is_file():
                raise InputError(
                    f"{path}: missing, but every system on CK+ also starts from its FER2013 weights; run the study on "
                    f"FER2013 first (--data fer2013:PATH, --only {system})"
                )

    def _train(self, run: Run, name: str, progress: StudyProgress) -> RunResult:
        system, start, fold = run

        def step(stage: str, done: int, total: int) -> None:
            progress.step(f"{name}: {stage}", done, total)

        base = self._base(start)
        if system in (SEQUENCE, PEAK_MEAN):
            result = self._on_sequences(run, base, step)
        else:
            init = None
            if start == "fer2013":
                init = TrainedSystem.load(self._fer2013_weights(system), SYSTEMS[system], self.recipe.train)
            result = train_system(
                system_recipe(SYSTEMS[system], base, self.recipe.ckplus.seed),
                SYSTEMS[system],
                split_by_subject(self.stills, fold=fold, folds=self.recipe.ckplus.folds),
                device=compute_device(self.device),
                weights=self._path(run).with_suffix(".safetensors"),
                init=init,
                progress=step,
            )
        result = dataclasses.replace(result, settings={**result.settings, "ckplus": self._identity(run)})
        result.write(self._path(run))
        return result

    def _on_sequences(self, run: Run, base: TrainRecipe, progress: Progress) -> RunResult:
        assert self.sequences is not None  # such runs are planned for whole sequences only
        stills = (COMPLETE, *run[1:])
        found, spec = self._read(stills), self.recipe.ckplus
        assert found is not None  # by the order of the plan
        trained = TrainedSystem.load(self._path(stills).with_suffix(".safetensors"), SYSTEMS[COMPLETE], base)
        trained.network.to(compute_device(self.device))
        rows = self.sequences.fold(run[2], folds=spec.folds)
        if run[0] == PEAK_MEAN:
            return peak_mean(trained, found, self.sequences, rows)
        recipe = system_recipe(SYSTEMS[COMPLETE], base, spec.seed)
        return SequenceTraining(
            trained=trained, sequences=self.sequences, rows=rows, recipe=recipe, spec=spec, progress=progress
        ).run()

    def _base(self, start: Start) -> TrainRecipe:
        """Return the study's recipe for CK+, with fewer discriminants where fewer expressions occur."""
        spec, train = self.recipe.ckplus, self.recipe.train
        (stills,) = self.stills.splits.values()
        discriminants = min(train.model.discriminants, len(np.unique(stills.labels)) - 1)
        return dataclasses.replace(
            train,
            optimiser=spec.scratch if start == "scratch" else spec.transfer,
            model=dataclasses.replace(train.model, discriminants=discriminants),
            sequence=dataclasses.replace(
                train.sequence,
                copies=spec.copies,
                classifier_epochs=spec.classifier_epochs,
                batch_size=spec.classifier_batch,
            ),
        )

    def _identity(self, run: Run) -> dict[str, Any]:
        """Return everything that a run depends on, as plain JSON values."""
        system, start, fold = run
        on_sequences = system in (SEQUENCE, PEAK_MEAN)
        weights = self._fer2013_weights(COMPLETE if on_sequences else system)
        found: dict[str, Any] = encode(
            {
                "start": start,
                "fold": fold,
                "spec": self.recipe.ckplus,
                "train": self._base(start),
                "data_sha256": self.stills.sha256,
                "labels": self.stills.expressions,
                "init_sha256": sha256_file(weights) if start == "fer2013" and weights.is_file() else None,
            }
        )
        if on_sequences and self.sequences is not None:
            found["sequences_sha256"] = self.sequences.sha256
        return found

    def _fer2013_weights(self, system: str) -> Path:
        return weights_path(self.out, system=system, seed=self.recipe.seeds[0])
