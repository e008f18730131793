"""The study on CK+: ten folds by subject, from scratch and from the FER2013 weights, on stills and on sequences."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_file
from fer_edge.core.json import encode
from fer_edge.core.types import Progress
from fer_edge.data import Dataset, load_dataset
from fer_edge.data.ckplus import LABELS, SequenceSet, load_sequences, split_by_subject
from fer_edge.data.specs import DataSpec
from fer_edge.paper import ckplus_table
from fer_edge.paper.ckplus_sequences import PEAK_MEAN, SEQUENCE, peak_mean, train_on_sequences
from fer_edge.paper.ckplus_table import STARTS, CkPlusRun, Start, ckplus_report, write_ckplus
from fer_edge.paper.recipe import StudyRecipe
from fer_edge.paper.results import RunResult, run_path
from fer_edge.paper.study import StudyProgress, weights_path
from fer_edge.paper.systems import SYSTEMS, System
from fer_edge.paper.training import TrainedSystem, system_recipe, train_system
from fer_edge.train.distributed import compute_device
from fer_edge.train.recipe import TrainRecipe

__all__ = ["CKPLUS_SYSTEMS", "CkPlusRun", "ckplus_folder", "load_ckplus", "plan_ckplus", "run_ckplus"]

CKPLUS_SYSTEMS: Final = tuple(SYSTEMS[name] for name in ckplus_table.CKPLUS_SYSTEMS)
"""The systems of the paper's Tables 1 and 2."""

_COMPLETE: Final = "complete"
Results: TypeAlias = "dict[CkPlusRun, RunResult]"


def plan_ckplus(recipe: StudyRecipe, *, systems: tuple[System, ...] = CKPLUS_SYSTEMS, whole: bool) -> list[CkPlusRun]:
    """What to train, in order, fold by fold.

    Args:
        recipe: says how many folds.
        systems: of Tables 1 and 2.
        whole: the data hold whole sequences (the authors' tree); CK+48 does not.
    """
    names = [system.name for system in systems]
    if whole and _COMPLETE in names:
        names += [SEQUENCE, PEAK_MEAN]
    return [
        CkPlusRun(system=name, start=start, fold=fold)
        for fold in range(recipe.ckplus.folds)
        for start in STARTS
        for name in names
    ]


def ckplus_folder(out: Path, dataset: Dataset) -> Path:
    """Where a study keeps its CK+ runs: another folder for each set of labels."""
    return out / ("ckplus-official" if "contempt" in dataset.expressions else "ckplus")


def load_ckplus(data: str, *, progress: Progress | None = None) -> tuple[Dataset, SequenceSet | None]:
    """The stills, and the whole sequences where the data hold them; quick from the second time on.

    Args:
        data: the spec, ``ckplus:PATH`` or ``ckplus:PATH?labels=official``.
        progress: called with (done, total) while decoding.

    Raises:
        InputError: another spec, or data that cannot be read.
    """
    spec = DataSpec.parse(data)
    if spec.kind != "ckplus" or "fold" in spec.options:
        raise InputError(f"data spec {data!r}: expected ckplus:PATH without ?fold=, for every fold is run")
    whole = load_dataset(data, progress=progress)
    if whole.layout != "cohn-kanade":
        return whole, None
    size, expressions = spec.options.get("size"), LABELS[spec.options.get("labels", "seven")]
    return whole, load_sequences(Path(spec.where), size=size, expressions=expressions, progress=progress)


def run_ckplus(
    recipe: StudyRecipe,
    data: str,
    out: Path,
    *,
    systems: tuple[System, ...] = CKPLUS_SYSTEMS,
    budget_s: float | None = None,
    device: str = "auto",
    progress: StudyProgress,
) -> Results:
    """Train what of the protocol is not on disk yet; the rows so far are kept for the study's report after every run.

    Args:
        recipe: the study's; its FER2013 runs must be in `out` already, for their weights are one of the two starts.
        data: the spec, ``ckplus:PATH`` or ``ckplus:PATH?labels=official``.
        out: the study's folder.
        systems: of Tables 1 and 2.
        budget_s: after this time no run is begun.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: told of everything.

    Returns:
        the finished runs, earlier ones included.

    Raises:
        InputError: data that cannot be read, FER2013 weights that are missing, or runs of another protocol in `out`.
        OutputError: the folder cannot be written.

    """
    whole, sequences = load_ckplus(data)
    protocol = _Protocol(
        recipe=recipe, whole=whole, sequences=sequences, out=out, device=compute_device(device), systems=systems
    )
    plan = plan_ckplus(recipe, systems=systems, whole=sequences is not None)
    results = {run: found for run in plan if (found := protocol.read(run)) is not None}
    waiting = [run for run in plan if run not in results]
    if waiting:
        protocol.check_weights()
    progress.planned(finished=len(results), total=len(plan))

    def keep() -> None:
        names = [system.name for system in systems]
        held = ckplus_report(results, folds=recipe.ckplus.folds, systems=names, whole=sequences is not None)
        write_ckplus(held, out)

    if results:
        keep()
    begun = time.monotonic()
    for run in waiting:
        if budget_s is not None and time.monotonic() - begun >= budget_s:
            break
        results[run] = protocol.train(run, progress)
        progress.finished(run.name, results[run])
        keep()
    return results


@dataclass(frozen=True, kw_only=True, eq=False)
class _Protocol:
    recipe: StudyRecipe
    whole: Dataset
    sequences: SequenceSet | None
    out: Path
    device: torch.device
    systems: tuple[System, ...]

    def path(self, run: CkPlusRun) -> Path:
        folder = ckplus_folder(self.out, self.whole) / f"{run.start}-fold{run.fold}"
        return run_path(folder, system=run.system, seed=self.recipe.ckplus.seed)

    def read(self, run: CkPlusRun) -> RunResult | None:
        """A finished run.

        Raises:
            InputError: it is damaged, or was made with another recipe, other data or other FER2013 weights.
        """
        path = self.path(run)
        if not path.exists():
            return None
        result = RunResult.read(path)
        if result.settings.get("ckplus") != self._identity(run):
            raise InputError(
                f"{path} was made with another recipe, other data or other FER2013 weights; a study has one protocol: "
                "choose another --out, or remove that file"
            )
        return result

    def check_weights(self) -> None:
        """Say before any training which FER2013 weights are missing.

        Raises:
            InputError: some are.
        """
        for system in self.systems:
            path = self._start_weights(system.name)
            if not path.is_file():
                raise InputError(
                    f"{path} is missing: on CK+ every system also starts from its FER2013 weights; "
                    f"let the study finish its FER2013 runs first (--data fer2013:PATH, --only {system.name})"
                )

    def train(self, run: CkPlusRun, progress: StudyProgress) -> RunResult:
        """Train one run and write it."""
        parted = split_by_subject(self.whole, fold=run.fold, folds=self.recipe.ckplus.folds)
        base, reporter = self._base(run.start), _Steps(run.name, progress.step)
        weights = self.path(run).with_suffix(".safetensors")
        if run.system in (SEQUENCE, PEAK_MEAN):
            result = self._on_sequences(run, base, reporter.step)
        else:
            system = SYSTEMS[run.system]
            init = None
            if run.start == "fer2013":
                init = TrainedSystem.load(self._start_weights(system.name), system, self.recipe.train)
            result = train_system(
                system,
                self.recipe.ckplus.seed,
                base,
                parted,
                device=self.device,
                weights=weights,
                init=init,
                report=reporter.step,
            )
        result = dataclasses.replace(result, settings={**result.settings, "ckplus": self._identity(run)})
        result.write(self.path(run))
        return result

    def _on_sequences(self, run: CkPlusRun, base: TrainRecipe, reporter: Progress) -> RunResult:
        assert self.sequences is not None  # such runs are planned for whole sequences alone
        stills = dataclasses.replace(run, system=_COMPLETE)
        found = self.read(stills)
        assert found is not None  # the plan's order
        system, spec = SYSTEMS[_COMPLETE], self.recipe.ckplus
        trained = TrainedSystem.load(self.path(stills).with_suffix(".safetensors"), system, base)
        rows = self.sequences.fold(run.fold, folds=spec.folds)
        if run.system == PEAK_MEAN:
            return peak_mean(trained, found, self.sequences, rows)
        adapted = system_recipe(system, base, spec.seed)
        return train_on_sequences(
            trained, system, self.sequences, rows, adapted, spec, device=self.device, report=reporter
        )

    def _base(self, start: Start) -> TrainRecipe:
        """The study's recipe as CK+ has it, with fewer discriminants where fewer expressions occur."""
        spec, train = self.recipe.ckplus, self.recipe.train
        (stills,) = self.whole.splits.values()
        return dataclasses.replace(
            train,
            optimiser=spec.scratch if start == "scratch" else spec.transfer,
            model=dataclasses.replace(
                train.model, discriminants=min(train.model.discriminants, len(np.unique(stills.labels)) - 1)
            ),
            sequence=dataclasses.replace(
                train.sequence,
                copies=spec.copies,
                classifier_epochs=spec.classifier_epochs,
                batch_size=spec.classifier_batch,
            ),
        )

    def _identity(self, run: CkPlusRun) -> dict[str, Any]:
        """What a run depends on, as plain JSON values."""
        on_sequences = run.system in (SEQUENCE, PEAK_MEAN)
        weights = self._start_weights(_COMPLETE if on_sequences else run.system)
        found: dict[str, Any] = encode(
            {
                "start": run.start,
                "fold": run.fold,
                "spec": self.recipe.ckplus,
                "train": self._base(run.start),
                "data_sha256": self.whole.sha256,
                "labels": self.whole.expressions,
                "init_sha256": sha256_file(weights) if run.start == "fer2013" and weights.is_file() else None,
            }
        )
        if on_sequences and self.sequences is not None:
            found["sequences_sha256"] = self.sequences.sha256
        return found

    def _start_weights(self, system: str) -> Path:
        return weights_path(self.out, system=system, seed=self.recipe.seeds[0])


class _Steps:
    """A training's reporter that names the run."""

    def __init__(self, run: str, send: Callable[[str, str, int, int], None]) -> None:
        self._run, self._send = run, send

    def step(self, stage: str, done: int, total: int) -> None:
        self._send(self._run, stage, done, total)

    def epoch(self, stage: str, figures: Mapping[str, float]) -> None:
        """An epoch alone is no news here."""
