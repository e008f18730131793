"""`fer-edge prune`: a trained run or a bundle becomes a smaller run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.inputs import read_dataset, read_recipe, require_training
from fer_edge.cli.training_output import show_run, training_in

__all__ = ["command"]


@opt.make_command
def command(
    parent: Annotated[str, opt.argument()],
    macs: Annotated[float | None, opt.option("Share of the encoder's MACs to keep: 0.5.", opt.real(1e-6, 1))],
    parameters: Annotated[
        int | None, opt.option("Parameters of encoder and head to keep: 2_000_000.", opt.integer(1, 10**9))
    ],
    data: Annotated[str, opt.dataset("Data set to fine-tune on, as for train.")],
    out: Annotated[Path | None, opt.option("Folder of the new run.  [default: PARENT-pruned]", opt.RUN_FOLDER)],
    recipe: Annotated[str | None, opt.recipe(None, "A TOML file instead of the built-in settings.")],
    settings: Annotated[tuple[str, ...], opt.settings("round_to=16")],
    teachers: Annotated[
        tuple[str, ...], opt.option("Distil from it.  [default: PARENT]", name="--teacher", metavar="RUN|BUNDLE")
    ],
    resume: opt.Resume,
    device: opt.Device,
    json_out: Path | None,
) -> None:
    """Remove filters and hidden units of PARENT, a run or a bundle, until it has the target size.

    The unpruned model is the teacher of the fine-tuning unless --teacher is given; several teachers are averaged. The
    recipe sets rounding, loss and augmentation of the fine-tuning. The result is a run like any other.
    """
    require_training("fer-edge prune", "torch_pruning")
    from fer_edge.train.pretrained import open_pretrained
    from fer_edge.train.prune import prune_run
    from fer_edge.train.recipe import PruneRecipe
    from fer_edge.train.structured_pruning import PruneTarget

    plan = read_recipe(PruneRecipe, recipe, settings, room="train")
    target = PruneTarget(macs=macs, parameters=parameters)
    origin, given = open_pretrained(parent), tuple(map(open_pretrained, teachers))
    name = Path(parent)
    folder = out or (name.with_name(f"{name.name}-pruned") if name.is_dir() else Path(f"{parent}-pruned"))
    dataset = read_dataset(data)
    with training_in(folder, resume=resume, device=device) as options:
        pruned = prune_run(origin, folder, dataset, target=target, recipe=plan, teachers=given, options=options)
    show_run(pruned, json_out)
