"""`fer-edge prune`: a trained run becomes a smaller one."""

from __future__ import annotations

from pathlib import Path

import click

from fer_edge.cli.console import console, emit_json, json_flag, progress


@click.command(name="prune")
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--macs", required=True, type=float, help="Share of the frame encoder's multiply-accumulates to keep: 0.5."
)
@click.option("--data", required=True, metavar="SPEC", help="The data set to fine-tune on, as for train.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the new run; RUN-pruned by default."
)
@click.option("--recipe", metavar="FILE", help="A TOML file of your own; the built-in settings without it.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value: optimiser.epochs=5."
)
@click.option("--resume", is_flag=True, help="Go on with the fine-tuning in --out where it was broken off.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_flag
def command(
    run: Path,
    macs: float,
    data: str,
    out: Path | None,
    recipe: str | None,
    settings: tuple[str, ...],
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Remove filters and hidden units of RUN until its encoder costs --macs of what it did, then fine-tune.

    The unpruned model is the teacher of the fine-tuning. The result is a run like any other.
    """
    from fer_edge.cli.training import print_run, run_progress, run_summary
    from fer_edge.errors import require

    for package in ("torch", "torch_pruning", "safetensors", "sklearn"):
        require(package, needed_by="fer-edge prune", extra="train")
    from fer_edge.data import load_dataset
    from fer_edge.recipes import load_recipe, override
    from fer_edge.train.prune import prune_run
    from fer_edge.train.recipe import PruneRecipe
    from fer_edge.train.run import TrainRun

    plan = PruneRecipe() if recipe is None else load_recipe(PruneRecipe, recipe, room="train")
    plan = override(plan, settings)
    parent = TrainRun.open(run)
    target = out or run.with_name(f"{run.name}-pruned")
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    try:
        with run_progress() as report:
            pruned = prune_run(
                parent, target, dataset, macs=macs, recipe=plan, resume=resume, device=device, report=report
            )
    except KeyboardInterrupt:
        console.print(f"the same command with --resume goes on in {target}")
        raise
    if as_json:
        emit_json(run_summary(pruned))
    elif pruned.done:
        print_run(pruned)
