"""`fer-edge qat`: a trained network learns to be INT8."""

from __future__ import annotations

from pathlib import Path

import click

from fer_edge.cli.console import console, emit_json, json_flag, progress


@click.command(name="qat")
@click.argument("source", metavar="RUN|BUNDLE")
@click.option("--data", required=True, metavar="SPEC", help="The data set to fine-tune on, as for train.")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run: new or empty."
)
@click.option("--recipe", metavar="FILE", help="A TOML file of your own; the built-in settings without it.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value: optimiser.epochs=3."
)
@click.option("--resume", is_flag=True, help="Go on with the fine-tuning in --out where it was broken off.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_flag
def command(
    source: str,
    data: str,
    out: Path,
    recipe: str | None,
    settings: tuple[str, ...],
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Fine-tune RUN or BUNDLE with its encoder rounding as INT8 does (quantization-aware training).

    NNCF places the quantizers and calibrates their first ranges on a sample of the training split; weights and ranges
    are then learnt together, with the float network as teacher. `fer-edge export` of the result makes a bundle with the
    INT8 graphs of what was learnt, and `fer-edge calibrate` of that bundle judges them.
    """
    from fer_edge.cli.training_output import open_origin, print_run, run_progress, run_summary
    from fer_edge.core.errors import require
    from fer_edge.core.telemetry import without_telemetry

    with without_telemetry():
        require("nncf", needed_by="fer-edge qat", extra="calibrate")
    for package in ("torch", "safetensors", "sklearn"):
        require(package, needed_by="fer-edge qat", extra="train")
    from fer_edge.core.recipes import load_recipe, override
    from fer_edge.data import load_dataset
    from fer_edge.train.qat import qat_run
    from fer_edge.train.recipe import QatRecipe

    plan = override(QatRecipe() if recipe is None else load_recipe(QatRecipe, recipe, room="train"), settings)
    parent = open_origin(source)
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    try:
        with run_progress() as report:
            run = qat_run(parent, out, dataset, recipe=plan, resume=resume, device=device, report=report)
    except KeyboardInterrupt:
        console.print(f"the same command with --resume goes on in {out}")
        raise
    if as_json:
        emit_json(run_summary(run))
    elif run.done:
        print_run(run)
