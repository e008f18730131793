"""Measure accuracy over multiply-accumulates of a pruned network, by the importance that ranks its filters.

    python bench/pruning_curve.py full --data fer2013:PATH --out bench/results/pruning

Writes NAME.json after every point, then NAME.md and NAME.png; the same command resumes an interrupted run. Evaluated
on the split to choose on (FER2013: PublicTest) without the rows that are also in the training split.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import click
import torch
from pruning_points import CurveBudget, PruneCurve
from workbench import report_errors, result_head

from fer_edge.cli.console import console, progress
from fer_edge.cli.training_output import run_progress
from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, write_atomic, write_json
from fer_edge.core.json import encode
from fer_edge.core.plots import new_figure, series_colours, write_plot
from fer_edge.core.recipes import override
from fer_edge.core.tables import Table, print_table
from fer_edge.data import load_dataset
from fer_edge.train.distributed import processes
from fer_edge.train.pretrained import open_pretrained
from fer_edge.train.recipe import Importance, PruneRecipe
from fer_edge.train.run_folder import RunOptions

TARGETS = (0.9, 0.75, 0.5, 0.35)
MEASURES = {"top1_head": "own head, cut down", "top1_linear": "linear classifier, refitted", "top1_tuned": "fine-tuned"}


def begun(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Read the result to resume, if there is one.

    Raises:
        InputError: it was measured otherwise.
    """
    if not path.exists():
        return None
    found = read_json(path)
    for name, value in asked.items():
        if found.get(name) != value:
            raise InputError(
                f"{path}: got another {name} than measured before, expected the same; choose another --out or remove it"
            )
    return dict(found)


def extend(
    result: dict[str, Any],
    curve: PruneCurve,
    missing: list[tuple[Importance, float]],
    path: Path,
    *,
    runs: Path | None,
    place: str,
) -> None:
    """Measure the points that a result lacks, the parent's first, and write it after each."""
    if "parent_point" not in result:
        result |= {"trained_on": place, "threads": torch.get_num_threads(), "n": curve.judged}
        result["parent_point"] = curve.parent().to_json()
    for importance, target in missing:
        folder = None if runs is None else runs / f"{importance}-{target:g}"
        point = curve.point(importance, target, folder=folder).to_json()
        result["points"].append(point)
        write_json(path, result)
        console.print(f"{importance}, {target:g}: {point['top1_head']:.2%}, linear {point['top1_linear']:.2%}")


def measured(result: dict[str, Any]) -> list[str]:
    """Return the measures that a result has."""
    return [name for name in MEASURES if result["points"] and result["points"][0][name] is not None]


def table(result: dict[str, Any], measure: str) -> Table:
    """Tabulate a measure: a row for each importance, a column for each share of the multiply-accumulates."""
    points = {(point["importance"], point["target"]): point[measure] for point in result["points"]}
    shares = sorted({share for _, share in points}, reverse=True)
    rows = [
        [name, *(f"{points[name, share]:.2%}" if (name, share) in points else None for share in shares)]
        for name in dict.fromkeys(name for name, _ in points)
    ]
    return Table(columns=("importance", *(f"{share:g}" for share in shares)), rows=rows)


def sizes(result: dict[str, Any]) -> Table:
    """Tabulate the size of the network at every point."""
    return Table.of(
        result["points"],
        {
            "importance": lambda point: point["importance"],
            "asked": lambda point: f"{point['target']:g}",
            "M multiply-accumulates": lambda point: f"{point['macs'] / 1e6:.1f}",
            "parameters": lambda point: f"{point['parameters']:,}",
            "CPU seconds": lambda point: f"{point['cpu_seconds']:.1f}",
        },
    )


def markdown(result: dict[str, Any], name: str) -> str:
    """Render the page from the result."""
    budget, parent = result["budget"], result["parent_point"]
    tuning = f"{budget['epochs']} epochs of {budget['tuning_rows']:,} faces" if budget["epochs"] else "none"
    lines = [
        f"# Pruning {name}: accuracy against multiply-accumulates",
        "",
        f"Top-1 on {result['split']} ({result['n']:,} rows, without those that are also in training), T = 1. One "
        "pruning from the unpruned parent a point; statistics of the batch normalisations and the linear classifier "
        f"refitted to {budget['refit_rows']:,} training faces; gradients, where the measure takes them, on "
        f"{result['recipe']['importance_rows']:,}; channels in multiples of {result['recipe']['round_to']}; "
        f"fine-tuning: {tuning}. Torch on {result['trained_on']}, {result['threads']} thread(s).",
        "",
        f"The parent: {parent['macs'] / 1e6:.1f} M multiply-accumulates a frame, {parent['parameters']:,} parameters, "
        f"{parent['top1_head']:.2%} by its own head, {parent['top1_linear']:.2%} by the linear classifier.",
        "",
        f"    {result['command']}",
    ]
    for measure in measured(result):
        lines += ["", f"## {MEASURES[measure].capitalize()}", "", table(result, measure).to_markdown().rstrip()]
    lines += ["", "## What was left", "", sizes(result).to_markdown()]
    return "\n".join(lines)


def write_curves(result: dict[str, Any], name: str, path: Path) -> None:
    """Draw a panel for each measure and in it a curve for each importance."""
    measures, parent = measured(result), result["parent_point"]
    colours = series_colours(point["importance"] for point in result["points"])
    with new_figure(5 * len(measures), 4.2, what="the pruning curves") as figure:
        for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
            for importance, colour in colours.items():
                points = sorted((p["macs"], p[measure]) for p in result["points"] if p["importance"] == importance)
                if parent[measure] is not None:
                    points.append((parent["macs"], parent[measure]))
                style = ":" if importance == "random" else "-"
                xs, ys = [macs / 1e6 for macs, _ in points], [100 * top1 for _, top1 in points]
                axes.plot(xs, ys, f"o{style}", color=colour, label=importance, markersize=4)
            axes.set_title(f"{name}: {MEASURES[measure]}")
            axes.set_xlabel("million multiply-accumulates a frame")
            axes.set_ylabel(f"top-1 %, {result['split']} without leaked rows")
            axes.legend()
        write_plot(figure, path)


@click.command()
@click.argument("parent")
@click.option("--data", required=True, metavar="SPEC", help="The data set, as for train.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the results.")
@click.option("--name", help="Name of the files; the parent's by default.")
@click.option(
    "--importance", "importances", multiple=True, type=click.Choice(get_args(Importance)), help="All by default."
)
@click.option("--macs", "targets", multiple=True, type=float, help=f"Shares to keep; {TARGETS} by default.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a pruning recipe's value.")
@click.option("--refit-rows", default=2048, show_default=True, help="Training faces that are refitted to.")
@click.option("--epochs", default=0, show_default=True, help="Epochs of fine-tuning at every point.")
@click.option("--tuning-rows", default=28_709, show_default=True, help="Training faces that an epoch works on.")
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), help="Folder of the fine-tuned runs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@report_errors
def main(
    parent: str,
    data: str,
    out: Path,
    name: str | None,
    importances: tuple[Importance, ...],
    targets: tuple[float, ...],
    settings: tuple[str, ...],
    refit_rows: int,
    epochs: int,
    tuning_rows: int,
    runs: Path | None,
    device: str,
) -> None:
    """Measure PARENT, a run or a bundle, pruned to every share by every importance."""
    head = result_head("pruning curve")
    if epochs and runs is None:
        raise InputError("--runs: got none, expected the folder of the runs that --epochs fine-tunes")
    recipe = override(PruneRecipe(), settings)
    budget = CurveBudget(refit_rows=refit_rows, epochs=epochs, tuning_rows=tuning_rows)
    origin = open_pretrained(parent)
    name = name or Path(parent).name
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    said = encode(replace(recipe, importance="group-norm"))
    del said["importance"]
    asked = {"parent": origin.identity, "recipe": said, "budget": asdict(budget), "dataset": dataset.sha256}
    path = out / f"{name}.json"
    found = begun(path, asked)
    done = {(point["importance"], point["target"]) for point in found["points"]} if found else set()
    wanted = itertools.product(importances or get_args(Importance), targets or TARGETS)
    missing = [each for each in wanted if each not in done]
    result = found or {
        **head,
        **asked,
        "split": dataset.split("choose").name,
        "points": [],
    }
    if missing:
        with processes(device) as peers, run_progress() as display:
            options = RunOptions(progress=display.step, on_epoch=display.epoch)
            curve = PruneCurve(origin, dataset, recipe=recipe, budget=budget, peers=peers, options=options)
            extend(result, curve, missing, path, runs=runs, place=str(peers.device))
    write_atomic(out / f"{name}.md", markdown(result, name).encode())
    write_curves(result, name, out / f"{name}.png")
    columns = ("importance", "asked", *(MEASURES[measure] for measure in measured(result)))
    rows = [
        (point["importance"], f"{point['target']:g}", *(f"{point[measure]:.2%}" for measure in measured(result)))
        for point in result["points"]
    ]
    print_table(Table(columns=columns, rows=rows, title=name))


if __name__ == "__main__":
    main()
