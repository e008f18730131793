"""`fer-edge train`: a preset, a data set, a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from fer_edge.cli.console import console, emit_json, json_flag, progress

if TYPE_CHECKING:
    from fer_edge.data.ckplus import CkPlusSequence
    from fer_edge.train.recipe import TrainRecipe


@click.command(name="train")
@click.argument("recipe")
@click.option("--data", required=True, metavar="SPEC", help="The data set, for example fer2013:PATH or folder:PATH.")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run: new or empty."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value: optimiser.epochs=30."
)
@click.option("--init", metavar="RUN|BUNDLE", help="Start from the weights of this run or bundle.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="RUN|BUNDLE",
    help="Distil from this run or bundle; several are averaged.",
)
@click.option(
    "--stage",
    type=click.Choice(["all", "sequence"]),
    default="all",
    show_default=True,
    help="sequence: train the sequence head alone, on the encoder of --init as it is.",
)
@click.option(
    "--sequences", metavar="ckplus:PATH", help="Train the head on these real sequences too, beside the clips."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out where it was broken off.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_flag
def command(
    recipe: str,
    data: str,
    out: Path,
    settings: tuple[str, ...],
    init: str | None,
    teachers: tuple[str, ...],
    stage: Literal["all", "sequence"],
    sequences: str | None,
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Train RECIPE (full, base, small, nano, edge, paper, or the path of a TOML recipe).

    The folder of a run or a bundle stands for its own recipe, in its own shape: what was pruned is trained on by it.

    Trains on the training split, chooses the epoch on the split to choose on (FER2013: PublicTest without leaked rows),
    never looks at the third. Under torchrun, several processes or GPUs share each batch. --init and --teacher together
    distil a run into itself, which smooths noisy labels. With --set loss.distil_views=24 the teachers are asked once
    about 24 random versions of every face, and what they say is kept in the cache folder for every later student. The
    head is trained on clips made of the stills; their features are kept there too, so that another head on the same
    encoder begins at once.
    """
    from fer_edge.cli.training_output import open_origin, print_run, run_progress, run_summary
    from fer_edge.core.errors import require

    for package in ("torch", "safetensors", "sklearn"):
        require(package, needed_by="fer-edge train", extra="train")
    from fer_edge.core.recipes import override
    from fer_edge.data import load_dataset
    from fer_edge.train.train import train_model

    plan = override(_recipe(recipe), settings)
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    try:
        with run_progress() as report:
            run = train_model(
                plan,
                dataset,
                out,
                init=None if init is None else open_origin(init),
                teacher=[open_origin(each) for each in teachers],
                stage=stage,
                sequences=() if sequences is None else _sequences(sequences),
                resume=resume,
                device=device,
                report=report,
            )
    except KeyboardInterrupt:
        console.print(f"the same command with --resume goes on in {out}")
        raise
    if as_json:
        emit_json(run_summary(run))
    elif run.done:
        print_run(run)


def _recipe(given: str) -> TrainRecipe:
    """A shipped recipe by its name, one of the user's, or what a run or a bundle was trained by, in its own shape."""
    from fer_edge.cli.training_output import open_origin
    from fer_edge.core.recipes import load_recipe, recipe_names
    from fer_edge.train.recipe import TrainRecipe

    if given not in recipe_names("train") and Path(given).is_dir():
        return open_origin(given).recipe
    return load_recipe(TrainRecipe, given, room="train")


def _sequences(spec: str) -> tuple[CkPlusSequence, ...]:
    from fer_edge.core.errors import InputError
    from fer_edge.data.ckplus import ckplus_sequences

    kind, _, where = spec.partition(":")
    if kind != "ckplus" or not where:
        raise InputError(f"--sequences: got {spec!r}, expected ckplus:PATH")
    return ckplus_sequences(Path(where))
