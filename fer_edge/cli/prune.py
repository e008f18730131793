"""`fer-edge prune`: a trained run or a bundle becomes a smaller run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from fer_edge.cli.console import console, emit_json, json_flag, progress


@click.command(name="prune")
@click.argument("parent")
@click.option("--macs", type=float, help="Share of the frame encoder's multiply-accumulates to keep: 0.5.")
@click.option("--parameters", type=int, help="Parameters of encoder and head to keep: 2_000_000.")
@click.option(
    "--idle-blocks",
    type=float,
    is_flag=False,
    flag_value=0.2,
    metavar="[SHARE]",
    help="Leave out residual blocks that add nearly the same to every face: what strays less than SHARE (0.2).",
)
@click.option("--sparsity", type=click.Choice(["2:4"]), help="Zeros that a sparse tensor core skips, in what is kept.")
@click.option("--data", required=True, metavar="SPEC", help="The data set to fine-tune on, as for train.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the new run; PARENT-pruned by default."
)
@click.option("--recipe", metavar="FILE", help="A TOML file of your own; the built-in settings without it.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value: steps=3.")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="RUN|BUNDLE",
    help="Follow this run or bundle in the fine-tuning; several are averaged.  [default: PARENT]",
)
@click.option("--resume", is_flag=True, help="Go on in --out where it was broken off.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_flag
def command(
    parent: str,
    macs: float | None,
    parameters: int | None,
    idle_blocks: float | None,
    sparsity: Literal["2:4"] | None,
    data: str,
    out: Path | None,
    recipe: str | None,
    settings: tuple[str, ...],
    teachers: tuple[str, ...],
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Remove filters, hidden units and idle blocks of PARENT, a run or a bundle, until it is as small as asked.

    The unpruned model is the teacher of the fine-tuning unless --teacher names others. The recipe says how filters are
    ranked (importance is group-norm, bn-scale, taylor, hessian or random), in how many steps, each fine-tuned before
    the next, and what the fine-tuning's loss and augmentation are where they are not the parent's. The result is a run
    like any other.
    """
    from fer_edge.cli.training_output import open_origin, print_run, run_progress, run_summary
    from fer_edge.core.errors import require

    for package in ("torch", "torch_pruning", "safetensors", "sklearn"):
        require(package, needed_by="fer-edge prune", extra="train")
    from fer_edge.core.recipes import load_recipe, override
    from fer_edge.data import load_dataset
    from fer_edge.train.prune import prune_run
    from fer_edge.train.recipe import PruneRecipe
    from fer_edge.train.structured_pruning import PruneTarget

    plan = PruneRecipe() if recipe is None else load_recipe(PruneRecipe, recipe, room="train")
    plan = override(plan, settings)
    if idle_blocks is not None:
        plan = replace(plan, idle_blocks=idle_blocks)
    if sparsity is not None:
        plan = replace(plan, sparsity=replace(plan.sparsity, pattern=sparsity))
    target = PruneTarget(macs=macs, parameters=parameters)
    origin, followed = open_origin(parent), [open_origin(each) for each in teachers]
    name = Path(parent)
    folder = out or (name.with_name(f"{name.name}-pruned") if name.is_dir() else Path(f"{parent}-pruned"))
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    try:
        with run_progress() as report:
            pruned = prune_run(
                origin,
                folder,
                dataset,
                target=target,
                recipe=plan,
                teacher=followed,
                resume=resume,
                device=device,
                report=report,
            )
    except KeyboardInterrupt:
        console.print(f"the same command with --resume goes on in {folder}")
        raise
    if as_json:
        emit_json(run_summary(pruned))
    elif pruned.done:
        print_run(pruned)
