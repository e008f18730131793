"""Time a preset's first training stage on this machine: epochs of FER2013's size, on noise.

    python bench/train_speed.py edge --json bench/results/DEVICE/train_speed.json

Nothing is learnt and nothing is kept: an epoch is the training's own (augmentation, both passes, the moving average,
the evaluation of the split to choose on, the checkpoint), and pixels do not change its time. Where the preset leaves
easy rows out of most epochs, both kinds are timed. On noise half of the rows are easy; on faces it is rather more.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from workbench import json_option, report_errors, result_head

from fer_edge.cli.training_output import run_progress
from fer_edge.core.files import write_json
from fer_edge.core.recipe_overrides import override
from fer_edge.core.recipes import load_recipe
from fer_edge.core.tables import Table, print_table
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.train.batches import DeviceSplits
from fer_edge.train.device import compute_device
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.frame_stage import FrameTask, fit_frames
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import TrainRun

ROWS = {"Training": 28_709, "PublicTest": 3_589}


def noise(name: str, size: int) -> StillSet:
    """Make as many images of noise as FER2013's split of that name has faces."""
    random, count = np.random.default_rng(0), ROWS[name]
    return StillSet(
        name=name,
        images=random.integers(0, 256, (count, size, size), dtype=np.uint8),
        labels=random.integers(0, 7, count),
        rows=np.arange(count),
    )


def epoch_seconds(recipe: TrainRecipe, device: str) -> tuple[list[float], str]:
    """Train; return the seconds of every epoch, and the device."""
    size = recipe.preprocess.size
    splits = {name: noise(name, size) for name in ROWS}
    place = compute_device(device)
    roles = {"train": "Training", "choose": "PublicTest"}
    dataset = Dataset(name="noise", source="noise", layout="noise", splits=splits, roles=roles)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, run_progress() as display:
        run = TrainRun.create(Path(folder) / "run", recipe, dataset)
        module = FrameClassifier(*run.new_model(), dropout=recipe.loss.dropout)
        data = DeviceSplits.load(dataset, recipe, place)
        task = FrameTask(module=module, splits=data, recipe=recipe, device=place, progress=display.step)
        fit_frames(run, task, display.epoch)
        return [epoch["seconds"] for epoch in run.record["history"]], str(place)


@click.command()
@click.argument("preset", default="edge")
@click.option("--epochs", type=click.IntRange(min=3), default=4, show_default=True, help="Epochs to time.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
@report_errors
def main(preset: str, epochs: int, settings: tuple[str, ...], device: str, json_file: Path | None) -> None:
    """Time PRESET's epochs, and print the minutes of thirty."""
    result = result_head("train speed")
    recipe = override(load_recipe(TrainRecipe, preset, room="train"), settings)
    recipe = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, epochs=epochs))
    seconds, place = epoch_seconds(recipe, device)
    minutes = 30 * min(seconds) / 60
    result |= {
        "trained_on": place,
        "threads": torch.get_num_threads(),
        "preset": preset,
        "rows": ROWS,
        "batch_size": recipe.optimiser.batch_size,
        "epoch_seconds": seconds,
        "minutes_for_30_epochs": round(minutes, 1),
    }
    if json_file is not None:
        write_json(json_file, result)
    rows = [(f"{index}", f"{value:.1f}") for index, value in enumerate(seconds, start=1)]
    caption = f"30 epochs at the fastest: {minutes:.1f} minutes on {place}"
    print_table(Table(columns=("epoch", "seconds"), rows=rows, title=preset, caption=caption))


if __name__ == "__main__":
    main()
