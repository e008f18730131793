"""From a study's folder to its report: preprocessing measured on the trained networks; JSON, tables, plots."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from fer_edge.bench.private_log import PRIVATE_SPLIT, append_private, writable_log
from fer_edge.core.files import read_json, sha256_file, write_json
from fer_edge.core.json import decode, encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.types import Progress, Uint8
from fer_edge.data import Dataset, Role
from fer_edge.model.layers import PixelNormalisation
from fer_edge.paper.analysis import summarise_study
from fer_edge.paper.ckplus import read_ckplus
from fer_edge.paper.preprocessing_study import (
    MEASURED,
    PreprocessingCost,
    PreprocessingReport,
    measure_cost,
    measure_preprocessing,
)
from fer_edge.paper.recipe import StudyRecipe
from fer_edge.paper.report import Protocol, StudyReport
from fer_edge.paper.report_page import write_study
from fer_edge.paper.results import run_path, weights_path
from fer_edge.paper.study import plan_runs, read_runs
from fer_edge.paper.systems import COMPLETE, SYSTEMS
from fer_edge.paper.training import TrainedSystem
from fer_edge.train.loop import no_progress
from fer_edge.train.run_folder import data_facts

__all__ = ["PREPROCESSING_NAME", "measure_trained", "publish_study", "read_preprocessing"]

PREPROCESSING_NAME: Final = "preprocessing.json"
"""The preprocessing study's file in a study's folder."""


def publish_study(
    folder: Path, recipe: StudyRecipe, dataset: Dataset, target: Path, *, recipe_name: str, command: str | None = None
) -> StudyReport:
    """Summarise everything that is finished and write JSON, Markdown and plots, over an earlier report.

    Args:
        folder: the study's; it may be unfinished.
        target: folder to write to, for example ``bench/results/paper``.

    Raises:
        InputError: runs of another recipe or other data, or a damaged file.
        OutputError: the target cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    plan = plan_runs(tuple(SYSTEMS.values()), recipe)
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
        read_runs(folder, plan, recipe, dataset).values(),
        protocol=protocol,
        device=machine_report().to_json(),
        created=timestamp(),
        command=command,
        preprocessing=read_preprocessing(folder),
        ckplus=read_ckplus(folder),
    )
    write_study(report, target)
    return report


def measure_trained(
    folder: Path,
    recipe: StudyRecipe,
    dataset: Dataset,
    *,
    private_log: Path | None = None,
    progress: Progress = no_progress,
) -> PreprocessingReport | None:
    """Run the preprocessing study on the trained networks of a folder, and write the result there.

    An earlier result of the same weights is reused. Faces come from the split for reporting (evaluations of PrivateTest
    are logged), or from the split for choosing where there is no other.

    Args:
        private_log: log of PrivateTest evaluations; the repository's by default.

    Returns:
        the report; None while the complete system, or all of the others, have no weights.

    Raises:
        InputError: damaged weights, or no place for the log.
        OutputError: the folder or the log cannot be written.
    """
    found = _weights(folder, recipe)
    if COMPLETE not in found or len(found) == 1:
        return None
    hashes = {path.name: sha256_file(path) for paths in found.values() for path in paths.values()}
    earlier = read_preprocessing(folder)
    if earlier is not None and earlier.weights == hashes:
        return earlier
    role: Role = "report" if "report" in dataset.roles else "choose"
    split = dataset.split(role)
    log = writable_log(private_log) if split.name == PRIVATE_SPLIT else None
    networks = {
        name: {seed: TrainedSystem.load(path, SYSTEMS[name], recipe.train) for seed, path in paths.items()}
        for name, paths in found.items()
    }
    report = measure_preprocessing(
        networks, split.images, split.labels, split=split.name, dataset=dataset.name, progress=progress
    )
    cost = _cost(next(iter(networks[COMPLETE].values())), split.images[0])
    report = dataclasses.replace(report, weights=hashes, cost=cost)
    if log is not None:
        _log_evaluation(log, report, split.sha256)
    write_json(folder / PREPROCESSING_NAME, encode(report))
    return report


def read_preprocessing(folder: Path) -> PreprocessingReport | None:
    """Read the preprocessing study of a folder; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / PREPROCESSING_NAME
    return decode(PreprocessingReport, read_json(path), where=os.fspath(path)) if path.exists() else None


def _weights(folder: Path, recipe: StudyRecipe) -> dict[str, dict[int, Path]]:
    """Return the weights of finished runs, by system and seed."""
    found: dict[str, dict[int, Path]] = {}
    for name in MEASURED:
        for seed in recipe.seeds if SYSTEMS[name].group == "tables" else recipe.extra_seeds:
            path = weights_path(folder, system=name, seed=seed)
            # Predictions are written after the weights.
            if path.exists() and run_path(folder, system=name, seed=seed).exists():
                found.setdefault(name, {})[seed] = path
    return found


def _cost(complete: TrainedSystem, face: Uint8) -> PreprocessingCost:
    alone = PixelNormalisation("gcn")
    with torch.inference_mode(), _one_thread():
        return measure_cost(
            face,
            spec=complete.preprocess,
            encode=lambda prepared: complete.predict_prepared(torch.from_numpy(prepared)),
            encoder="the complete system in PyTorch, FP32",
            normalisation=lambda prepared: alone(torch.from_numpy(prepared)),
        )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _log_evaluation(log: Path, report: PreprocessingReport, split_sha256: str) -> None:
    top1: dict[str, dict[str, Any]] = {name: {} for name in report.seeds}
    for each in report.conditions:
        condition = "clean" if each.corruption is None else f"{each.corruption} {each.level}"
        top1[each.system][condition] = list(each.top1.by_seed)
    append_private(
        log,
        study="paper, preprocessing",
        seeds=encode(report.seeds),
        data_sha256=split_sha256,
        result={"split": report.split, "n": report.n, "top1": top1},
    )
