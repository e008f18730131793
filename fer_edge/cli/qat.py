"""`fer-edge qat`: quantization-aware training of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.inputs import read_dataset, read_recipe, require_training
from fer_edge.cli.training_output import show_run, training_in

__all__ = ["command"]


@opt.make_command
def command(
    source: Annotated[str, opt.argument(metavar="RUN|BUNDLE")],
    data: Annotated[str, opt.dataset("Data set to fine-tune on, as for train.")],
    out: Annotated[Path, opt.option("Folder of the new run: new or empty.", opt.RUN_FOLDER)],
    recipe: Annotated[str | None, opt.recipe(None, "A TOML file instead of the built-in settings.")],
    settings: Annotated[tuple[str, ...], opt.settings("optimiser.epochs=3")],
    resume: opt.Resume,
    device: opt.Device,
    json_out: Path | None,
) -> None:
    """Fine-tune RUN or BUNDLE while its encoder is rounded as in INT8 (quantization-aware training).

    NNCF inserts the quantizers and calibrates their first ranges on a sample of the training split; then weights and
    ranges are trained together, with the float network as teacher. `fer-edge export` of the result makes a bundle with
    the learned INT8 graphs; `fer-edge calibrate` of that bundle gates them.
    """
    from fer_edge.core.errors import require
    from fer_edge.core.telemetry import without_telemetry

    with without_telemetry():
        require("nncf", needed_by="fer-edge qat", extra="calibrate")
    require_training("fer-edge qat")
    from fer_edge.train.pretrained import open_pretrained
    from fer_edge.train.qat import qat_run
    from fer_edge.train.recipe import QatRecipe

    plan = read_recipe(QatRecipe, recipe, settings, room="train")
    parent = open_pretrained(source)
    dataset = read_dataset(data)
    with training_in(out, resume=resume, device=device) as options:
        run = qat_run(parent, out, dataset, recipe=plan, options=options)
    show_run(run, json_out)
