"""`fer-edge train`: a recipe, a data set, a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fer_edge.cli import options as opt
from fer_edge.cli.inputs import read_dataset, read_recipe, require_training
from fer_edge.cli.training_output import show_run, training_in
from fer_edge.core.errors import InputError

if TYPE_CHECKING:
    from fer_edge.train.recipe import TrainRecipe

__all__ = ["command"]


@opt.make_command
def command(
    recipe: Annotated[str, opt.argument()],
    data: Annotated[str, opt.dataset("Data set, for example fer2013:PATH or folder:PATH.")],
    out: Annotated[Path, opt.option("Folder of the run: new or empty.", opt.RUN_FOLDER)],
    settings: Annotated[tuple[str, ...], opt.settings("optimiser.epochs=30")],
    init: Annotated[str | None, opt.option("Start from these weights.", metavar="RUN|BUNDLE")],
    teachers: Annotated[
        tuple[str, ...], opt.option("Distil from it; repeatable.", name="--teacher", metavar="RUN|BUNDLE")
    ],
    stage: Annotated[Literal["all", "sequence"], opt.option("sequence: train the head only.", default="all")],
    fold: Annotated[str | None, opt.option("Train a teacher on all folds but this one.", metavar="K/N")],
    resume: opt.Resume,
    device: opt.Device,
    json_out: Path | None,
) -> None:
    """Train RECIPE: full, base, small, nano, edge, paper, a TOML file, or a run or bundle (its recipe and shape).

    Trains on the training split and selects the epoch on the choosing split (FER2013: PublicTest without leaked rows);
    the third split is not read. --stage sequence needs --init, whose encoder is kept; with --set 'heads=["crowd"]' it
    trains the head on the FER+ votes alone. --fold 0/4 holds one of four folds of the training split out; given such
    runs of every fold as --teacher, a training takes loss.soft_weight of its targets from the teachers that were not
    trained on the face. It follows the outputs of other teachers. The features of the head's clips are cached.
    """
    require_training("fer-edge train")
    from fer_edge.core.recipe_overrides import override
    from fer_edge.train.pretrained import open_pretrained
    from fer_edge.train.train import TrainInputs, train_fold, train_model

    plan = override(_recipe(recipe), settings)
    dataset = read_dataset(data)
    inputs = TrainInputs(
        init=None if init is None else open_pretrained(init),
        teachers=tuple(map(open_pretrained, teachers)),
        stage=stage,
    )
    with training_in(out, resume=resume, device=device) as options:
        if fold is None:
            run = train_model(plan, dataset, out, inputs=inputs, options=options)
        elif inputs == TrainInputs():
            number, folds = _fold(fold)
            run = train_fold(plan, dataset, out, folds=folds, fold=number, options=options)
        else:
            raise InputError("--fold: got --init, --teacher or --stage too, expected none of them")
    show_run(run, json_out)


def _recipe(name: str) -> TrainRecipe:
    """Read a shipped recipe, a TOML file, or the recipe of a run or a bundle."""
    from fer_edge.core.recipes import recipe_names
    from fer_edge.train.pretrained import open_pretrained
    from fer_edge.train.recipe import TrainRecipe

    if name not in recipe_names("train") and Path(name).is_dir():
        return open_pretrained(name).recipe
    return read_recipe(TrainRecipe, name, (), room="train")


def _fold(text: str) -> tuple[int, int]:
    number, _, folds = text.partition("/")
    if not (number.isdecimal() and folds.isdecimal()):
        raise InputError(f"--fold: got {text!r}, expected K/N, for example 0/4 for the first of four folds")
    return int(number), int(folds)
