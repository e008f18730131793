"""Compare distillation methods: one small student trained by each method on the same faces and seeds.

    python bench/distillation.py --data fer2013:PATH --out runs/distillation --report bench/results/distillation

First stage only (frame encoder and temporary classifier); the best epoch on PublicTest without its leaked rows is
measured. Finished students are kept in --out: the same command resumes an interrupted run.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import torch
from workbench import report_errors, result_head

from fer_edge.cli.console import progress
from fer_edge.cli.training_output import run_progress
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, write_atomic, write_json
from fer_edge.core.metrics import accuracy_report, paired_report, softmax
from fer_edge.core.plots import PALETTE, new_figure, write_plot
from fer_edge.core.recipes import load_recipe, override
from fer_edge.core.tables import Column, Table, print_table
from fer_edge.core.types import Progress
from fer_edge.data import Dataset, StillSet, load_dataset
from fer_edge.data.statistics import leaked_rows
from fer_edge.model.cost import encoder_macs
from fer_edge.train.batches import DeviceSplits
from fer_edge.train.bundle_weights import BundleWeights
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.distillation import Teachers
from fer_edge.train.distributed import ONE_PROCESS
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.frame_stage import FrameTask, fit_frames
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun, data_facts
from fer_edge.train.teacher_cache import TeacherCache

FIRST = "labels alone"
METHODS: dict[str, dict[str, Any] | None] = {
    FIRST: None,
    "KD, T = 1": {"distil_temperature": 1.0},
    "KD, T = 2": {"distil_temperature": 2.0},
    "KD, T = 4": {"distil_temperature": 4.0},
    "KD, T = 2, features": {"distil_temperature": 2.0, "distil_features": 1.0},
    "KD, T = 2, region attention": {"distil_temperature": 2.0, "distil_regions": 1.0},
    "KD, T = 2, activation maps": {"distil_temperature": 2.0, "distil_maps": 1.0},
    "decoupled KD, T = 2": {"distil_temperature": 2.0, "distil_form": "dkd", "distil_beta": 2.0},
}
"""Settings of each method in the recipe's `loss`; the first has no teacher."""


Student: TypeAlias = tuple[np.ndarray[Any, Any], dict[str, Any]]
"""Logits float32 (N, classes) on the faces to choose on, and facts."""


def reduced(dataset: Dataset, rows: int) -> Dataset:
    """Draw a fixed sample of training rows, and drop the rows to choose on that are also in training."""
    train, choose = dataset.split("train"), dataset.split("choose")
    if not 0 < rows <= len(train):
        raise InputError(f"--rows must lie between 1 and the {len(train)} training rows; got {rows}")
    drawn = np.sort(np.random.default_rng(0).permutation(len(train))[:rows])
    splits = {train.name: train.subset(drawn), choose.name: choose.subset(~leaked_rows(dataset, choose))}
    return replace(dataset, splits=splits, roles={"train": train.name, "choose": choose.name})


def trained_student(
    recipe: TrainRecipe,
    dataset: Dataset,
    folder: Path,
    teachers: Teachers | None,
    options: RunOptions,
    *,
    taught_by: str | None = None,
) -> Student:
    """Train, resume or read one student: logits float32 (N, classes), and facts.

    `taught_by` is the hash of the bundle that `teachers` are, which a folder's students must share.
    """
    begun, done = (folder / "run.json").exists(), folder / "logits.safetensors"
    run = TrainRun.open(folder) if begun else TrainRun.create(folder, recipe, dataset, taught_by=taught_by)
    if run.recipe != recipe or run.record["data"] != data_facts(dataset) or run.record["taught_by"] != taught_by:
        raise InputError(f"{folder} was begun with another budget or teacher; choose another --out, or remove it")
    if done.exists():
        tensors, facts = load_checkpoint(done)
        return tensors["logits"].numpy(), facts
    torch.manual_seed(recipe.seed)
    module = FrameClassifier(*run.new_model(), dropout=recipe.loss.dropout)
    splits = DeviceSplits.load(dataset, recipe, torch.device("cpu"))
    task = FrameTask(module=module, splits=splits, recipe=recipe, teachers=teachers, progress=options.progress)
    best = fit_frames(run, task, options.on_epoch)
    with torch.no_grad():
        logits = torch.cat([best(faces).logits for faces in torch.split(splits.choose.images, 512)])
    history = run.record["history"]
    best_epoch = max(history, key=lambda epoch: (epoch["score"], epoch["epoch"]))["epoch"]
    facts = {"best_epoch": best_epoch, "seconds": round(sum(epoch["seconds"] for epoch in history), 1)}
    save_checkpoint(done, {"logits": logits}, facts)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return logits.numpy(), facts


def measured(
    logits: np.ndarray[Any, Any], first: np.ndarray[Any, Any], choose: StillSet, **facts: Any
) -> dict[str, Any]:
    """Measure one student, and its differences to the student without a teacher."""
    probabilities, before = softmax(logits), softmax(first)
    report = accuracy_report(probabilities, choose.labels, dataset="fer2013", split=choose.name)
    own = probabilities[np.arange(len(choose)), choose.labels]
    paired = paired_report(before, probabilities, choose.labels)
    return {
        "top1": report.top1,
        "macro_f1": report.macro_f1,
        "ece": report.ece,
        "negative_log_likelihood": float(-np.log(np.maximum(own, 1e-12)).mean()),
        "top1_delta": paired.top1_delta,
        "mcnemar_p": paired.mcnemar_p,
        **facts,
    }


def ask_once(recipe: TrainRecipe, dataset: Dataset, teachers: Teachers, views: int, progress: Progress) -> None:
    """Compute and cache every teacher output that any method needs, for every view."""
    everything = replace(recipe.loss, distil_views=views, distil_features=1.0, distil_regions=1.0, distil_maps=1.0)
    train = DeviceSplits.load(dataset, recipe, torch.device("cpu")).train
    cache = TeacherCache(teachers=teachers, train=train, recipe=replace(recipe, loss=everything), peers=ONE_PROCESS)
    for view in range(views):
        cache.view(view, progress)


def students(
    recipe: TrainRecipe,
    dataset: Dataset,
    teacher: BundleWeights,
    *,
    methods: Collection[str],
    seeds: Sequence[int],
    out: Path,
    options: RunOptions,
) -> dict[tuple[str, int], Student]:
    """Train every student: logits and facts by method and seed."""
    teachers = Teachers([FrameClassifier(teacher.load_model())])
    views, found = recipe.optimiser.epochs, {}
    if set(methods) - {FIRST}:
        ask_once(recipe, dataset, teachers, views, options.progress)
    for seed, (number, (name, changes)) in itertools.product(seeds, enumerate(METHODS.items())):
        if name not in methods:
            continue
        loss = replace(recipe.loss, distil_views=0 if changes is None else views, **(changes or {}))
        cell = replace(recipe, seed=seed, loss=loss)
        followed, taught_by = (None, None) if changes is None else (teachers, teacher.bundle.sha256)
        folder = out / f"{number}-seed-{seed}"
        found[name, seed] = trained_student(cell, dataset, folder, followed, options, taught_by=taught_by)
    return found


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Data, teacher and recipe that all students share.

    Attributes:
        data: the data set's spec.
        teacher: whom they follow.
        recipe: the student's, by name or path.
        settings: changes to it.
        rows: training rows.
        seeds: each method once for each.
    """

    data: str | None
    teacher: BundleWeights
    recipe: str
    settings: tuple[str, ...]
    rows: int
    seeds: tuple[int, ...]

    def spend(self, methods: Collection[str], out: Path) -> dict[str, Any]:
        """Train the students, or read them from `out`; return the result as JSON."""
        if self.data is None:
            raise InputError("--data is missing: expected a data set, for example fer2013:PATH")
        recipe = override(load_recipe(TrainRecipe, self.recipe, room="train"), self.settings)
        if recipe.preprocess != self.teacher.preprocess:
            raise InputError(
                f"the bundle {self.teacher.path} sees faces prepared otherwise than {self.recipe}'s student"
            )
        with progress("reading the data set") as bar:
            dataset = reduced(load_dataset(self.data, progress=bar), self.rows)
        with run_progress() as display:
            options = RunOptions(progress=display.step, on_epoch=display.epoch)
            found = students(recipe, dataset, self.teacher, methods=methods, seeds=self.seeds, out=out, options=options)
        choose = dataset.split("choose")
        results = [
            {"method": name, "seed": seed, "loss": METHODS[name]}
            | measured(logits, found[FIRST, seed][0], choose, **facts)
            for (name, seed), (logits, facts) in found.items()
            if (FIRST, seed) in found
        ]
        return self.result(recipe, dataset, results)

    def result(self, recipe: TrainRecipe, dataset: Dataset, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the JSON: budget, data and results."""
        train, choose = dataset.split("train"), dataset.split("choose")
        batch = min(recipe.optimiser.batch_size, len(train))
        return {
            **result_head("distillation"),
            "threads": torch.get_num_threads(),
            "teacher": {"bundle": self.teacher.bundle.manifest.name, "sha256": self.teacher.bundle.sha256},
            "budget": {
                "train_rows": len(train),
                "train_sha256": train.sha256,
                "choose": choose.name,
                "choose_rows": len(choose),
                "choose_sha256": choose.sha256,
                "epochs": recipe.optimiser.epochs,
                "batch_size": batch,
                "steps": recipe.optimiser.epochs * (len(train) // batch),
                "distil_weight": recipe.loss.distil_weight,
                "student_macs": encoder_macs(recipe.model),
                "seeds": list(self.seeds),
            },
            "results": results,
        }


def table(result: dict[str, Any]) -> Table:
    """Tabulate a row for each method: means over the seeds, and the p value of each seed."""

    def mean(key: str) -> Callable[[str], float]:
        return lambda name: float(np.mean([each[key] for each in result["results"] if each["method"] == name]))

    def p_values(name: str) -> str | None:
        found = [f"{each['mcnemar_p']:.2g}" for each in result["results"] if each["method"] == name]
        return None if name == FIRST else ", ".join(found)

    top1, delta, macro = mean("top1"), mean("top1_delta"), mean("macro_f1")
    likelihood, ece = mean("negative_log_likelihood"), mean("ece")
    return Table.of(
        METHODS,
        {
            "method": str,
            "top-1": lambda name: f"{top1(name):.2%}",
            "points over labels alone": lambda name: f"{100 * delta(name):+.2f}",
            Column("McNemar p", priority=3): p_values,
            Column("macro-F1", priority=2): lambda name: f"{macro(name):.2%}",
            "negative log-likelihood": lambda name: f"{likelihood(name):.3f}",
            Column("ECE", priority=1): lambda name: f"{ece(name):.3f}",
        },
    )


def markdown(result: dict[str, Any]) -> str:
    """Render the page from the JSON."""
    budget = result["budget"]
    lines = [
        "# Distillation methods compared",
        "",
        f"    {result['command']}",
        "",
        f"Student: {budget['student_macs'] / 1e6:.1f} M multiply-accumulates (`bench/distillation.toml`); teacher: the "
        f"bundle `{result['teacher']['bundle']}`. Budget a student: {budget['train_rows']:,} rows of the training "
        f"split, {budget['epochs']} epochs, {budget['steps']} steps of {budget['batch_size']} faces, the first stage "
        "alone; "
        f"seeds: {', '.join(str(seed) for seed in budget['seeds'])}. Measured on the {budget['choose_rows']:,} rows of "
        f"{budget['choose']} that are not in training too; the best epoch on them is taken. A budget this small shows "
        "how quickly a student learns by each method, not its final accuracy. All methods soften the labels by the "
        "FER+ votes of their rows (`loss.votes_weight`); the teacher's share is "
        f"{budget['distil_weight']:g} of the loss. McNemar's p compares two networks, not two methods: another seed "
        "can change a student by as much as the methods differ.",
        "",
        table(result).to_markdown(),
        "![Top-1 by method](distillation.png)",
    ]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, result: dict[str, Any]) -> None:
    """Write JSON, page and plot: top-1 of every student by method, with the 95 % interval of that number of rows."""
    write_json(folder / "distillation.json", result)
    write_atomic(folder / "README.md", markdown(result).encode())
    count = result["budget"]["choose_rows"]
    with new_figure(8, 1.2 + 0.4 * len(METHODS), what="the plot of the methods") as figure:
        axes = figure.add_subplot()
        for place, name in enumerate(METHODS):
            scores = np.array([each["top1"] for each in result["results"] if each["method"] == name])
            error = 1.96 * np.sqrt(scores * (1 - scores) / count)
            colour = "black" if name == FIRST else PALETTE[0]
            axes.errorbar(100 * scores, [place] * len(scores), xerr=100 * error, fmt="o", color=colour, capsize=3)
        axes.set_yticks(range(len(METHODS)), list(METHODS))
        axes.invert_yaxis()
        axes.set_xlabel(f"top-1 %, {result['budget']['choose']} without leaked rows (bars: 95 % of {count:,} rows)")
        write_plot(figure, folder / "distillation.png")


@click.command()
@click.option("--data", default=None, metavar="SPEC", help="The data set, for example fer2013:PATH.")
@click.option("--teacher", default="full", show_default=True, metavar="BUNDLE", help="Whom the students follow.")
@click.option("--recipe", "name", default=str(Path(__file__).with_suffix(".toml")), metavar="TOML", help="The student.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value.")
@click.option("--rows", default=8000, show_default=True, help="Training rows of every student.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True, help="Once for each.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(list(METHODS)),
    help="Train these alone and compare nothing: several calls share the work. All by default.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the students.")
@click.option("--report", "target", type=click.Path(file_okay=False, path_type=Path), help="Write the result here.")
@click.option("--redraw", is_flag=True, help="Write page and plot from the JSON in --report.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@report_errors
def main(
    data: str | None, teacher: str, name: str, settings: tuple[str, ...], rows: int, seeds: tuple[int, ...],
    methods: tuple[str, ...], out: Path, target: Path | None, redraw: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train the same student by every method, and compare."""
    if redraw:
        if target is None:
            raise InputError("--report: got none, expected the folder whose JSON --redraw draws from")
        write_report(target, read_json(target / "distillation.json"))
        return
    budget = Budget(
        data=data, teacher=BundleWeights(bundle=Bundle.open(teacher)), recipe=name, settings=settings, rows=rows,
        seeds=seeds,
    )  # fmt: skip
    result = budget.spend(methods or tuple(METHODS), out)
    if methods:
        return
    if target is not None:
        write_report(target, result)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print_table(table(result))


if __name__ == "__main__":
    main()
