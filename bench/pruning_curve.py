"""Accuracy against multiply-accumulates of a pruned network, by the importance that its filters are ranked by.

    python bench/pruning_curve.py full --data fer2013:PATH --out bench/results/pruning

Writes NAME.json after every point, then NAME.md and NAME.png; the same command goes on where it was broken off. Judged
on the split to choose on (FER2013: PublicTest) without the rows that also stand in the training split.
"""

from __future__ import annotations

import io
import itertools
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import click
import torch

from fer_edge.cli.console import console, print_table, progress
from fer_edge.cli.training_output import open_origin, run_progress
from fer_edge.core.errors import FerEdgeError, InputError, require
from fer_edge.core.files import read_json, write_atomic, write_json
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.plots import PALETTE
from fer_edge.core.recipes import override
from fer_edge.data import load_dataset
from fer_edge.train.distributed import processes
from fer_edge.train.prune_curve import CurveBudget, PruneCurve
from fer_edge.train.recipe import Importance, PruneRecipe

TARGETS = (0.9, 0.75, 0.5, 0.35)
MEASURES = {"top1_head": "own head, cut down", "top1_linear": "linear classifier, refitted", "top1_tuned": "fine-tuned"}


def begun(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The result to go on with, if there is one.

    Raises:
        InputError: it was measured otherwise.
    """
    if not path.exists():
        return None
    found = read_json(path)
    for name, value in asked.items():
        if found.get(name) != value:
            raise InputError(f"{path} was measured with another {name}; choose another --out or remove it")
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
    """The measures that a result has."""
    return [name for name in MEASURES if result["points"] and result["points"][0][name] is not None]


def table(result: dict[str, Any], measure: str) -> list[str]:
    """A row an importance, a column a share of the multiply-accumulates."""
    shares = sorted({point["target"] for point in result["points"]}, reverse=True)
    lines = [f"| importance | {' | '.join(f'{share:g}' for share in shares)} |", f"| --- |{' ---: |' * len(shares)}"]
    for importance in dict.fromkeys(point["importance"] for point in result["points"]):
        row = {point["target"]: point for point in result["points"] if point["importance"] == importance}
        cells = (f"{row[share][measure]:.2%}" if share in row else "–" for share in shares)
        lines.append(f"| {importance} | {' | '.join(cells)} |")
    return lines


def markdown(result: dict[str, Any], name: str) -> str:
    """The tables, every figure the result's."""
    budget, parent = result["budget"], result["parent_point"]
    tuning = f"{budget['epochs']} epochs of {budget['tuning_rows']:,} faces" if budget["epochs"] else "none"
    lines = [
        f"# Pruning {name}: accuracy against multiply-accumulates",
        "",
        f"Top-1 on {result['split']} ({result['n']:,} rows, those that also stand in training left out), T = 1. One "
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
        lines += ["", f"## {MEASURES[measure].capitalize()}", "", *table(result, measure)]
    lines += ["", "## What was left", ""]
    lines += [
        "| importance | asked | M multiply-accumulates | parameters | CPU seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for point in result["points"]:
        cells = (point["importance"], f"{point['target']:g}", f"{point['macs'] / 1e6:.1f}", f"{point['parameters']:,}")
        lines.append(f"| {' | '.join(cells)} | {point['cpu_seconds']:.1f} |")
    return "\n".join(lines) + "\n"


def drawing(result: dict[str, Any], name: str) -> bytes:
    """A curve an importance, a panel a measure; PNG."""
    matplotlib: Any = require("matplotlib", needed_by="the drawing", extra="report")
    from matplotlib.figure import Figure

    measures, parent = measured(result), result["parent_point"]
    with matplotlib.rc_context({"font.family": "sans-serif"}):
        figure = Figure(figsize=(5 * len(measures), 4.2), layout="constrained")
        for place, measure in enumerate(measures, start=1):
            axes = figure.add_subplot(1, len(measures), place)
            for colour, importance in zip(
                PALETTE, dict.fromkeys(p["importance"] for p in result["points"]), strict=False
            ):
                points = sorted((p["macs"], p[measure]) for p in result["points"] if p["importance"] == importance)
                if parent[measure] is not None:
                    points.append((parent["macs"], parent[measure]))
                style = ":" if importance == "random" else "-"
                axes.plot(
                    [macs / 1e6 for macs, _ in points], [100 * top1 for _, top1 in points],
                    f"o{style}", color=colour, label=importance, markersize=4,
                )  # fmt: skip
            axes.set_title(f"{name}: {MEASURES[measure]}", fontsize=10)
            axes.set_xlabel("million multiply-accumulates a frame")
            axes.set_ylabel(f"top-1 %, {result['split']} without leaked rows")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            axes.legend(frameon=False, fontsize=9)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
    return out.getvalue()


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
    """Measure what is left of PARENT, a run or a bundle, at every share and by every importance."""
    machine = machine_report()
    try:
        if epochs and runs is None:
            raise InputError("--epochs fine-tunes, and its runs want a folder: --runs")
        recipe = override(PruneRecipe(), settings)
        budget = CurveBudget(refit_rows=refit_rows, epochs=epochs, tuning_rows=tuning_rows)
        origin = open_origin(parent)
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
            "schema": 1,
            "created": timestamp(),
            "command": shlex.join(["python", "bench/pruning_curve.py", *sys.argv[1:]]),
            "device": machine.to_json(),
            **asked,
            "split": dataset.split("choose").name,
            "points": [],
        }
        if missing:
            with processes(device) as peers, run_progress() as report:
                curve = PruneCurve(origin, dataset, recipe=recipe, budget=budget, peers=peers, report=report)
                extend(result, curve, missing, path, runs=runs, place=str(peers.device))
        write_atomic(out / f"{name}.md", markdown(result, name).encode())
        write_atomic(out / f"{name}.png", drawing(result, name))
    except FerEdgeError as error:
        raise click.ClickException(str(error)) from error
    columns = ("importance", "asked", *(MEASURES[measure] for measure in measured(result)))
    rows = [
        (point["importance"], f"{point['target']:g}", *(f"{point[measure]:.2%}" for measure in measured(result)))
        for point in result["points"]
    ]
    print_table(columns, rows, title=name, right=columns[1:])


if __name__ == "__main__":
    main()
