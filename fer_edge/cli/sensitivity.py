"""`fer-edge sensitivity`: what each layer costs when it alone is quantized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.calibrate import calibration_progress, tell_json
from fer_edge.cli.console import console, progress

if TYPE_CHECKING:
    from fer_edge.calibrate.recipe import Form

__all__ = ["command"]


@click.command(name="sensitivity")
@click.argument("bundle", metavar="BUNDLE")
@click.option("--data", required=True, metavar="SPEC", help="The data set to calibrate and measure on: fer2013:PATH.")
@click.option("--recipe", default="default", show_default=True, help="A shipped calibration recipe, or a TOML file.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value: sample.size=1024."
)
@click.option("--form", type=click.Choice(["int8", "int8-trt"]), help="The INT8 form.  [default: the recipe's first]")
@click.option(
    "--png",
    "png_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the costs here (.png, .svg or .pdf).",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the evaluation.")
@click.option(
    "--json",
    "json_out",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Print the result as JSON, and nothing else, on stdout; or write it to FILE, beside the table.",
)
def command(
    bundle: str,
    data: str,
    recipe: str,
    settings: tuple[str, ...],
    form: Form | None,
    png_file: Path | None,
    threads: int,
    json_out: str | None,
) -> None:
    """Measure what each layer of BUNDLE costs when it alone is quantized. BUNDLE is not changed."""
    import dataclasses

    from fer_edge.calibrate import require_packages

    require_packages(needed_by="fer-edge sensitivity")
    from fer_edge.calibrate.recipe import CalibrationRecipe
    from fer_edge.calibrate.sensitivity import sensitivity_of
    from fer_edge.calibrate.sensitivity_plot import WHAT, sensitivity_figure
    from fer_edge.cli.calibration_tables import print_sensitivity
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.plots import check_plot_path
    from fer_edge.core.recipes import load_recipe, override
    from fer_edge.data import load_dataset

    plan = override(load_recipe(CalibrationRecipe, recipe, room="calibrate"), settings)
    if form is not None:
        plan = dataclasses.replace(plan, forms=(form,))
    if png_file is not None:
        check_plot_path(png_file, what=WHAT)
    opened = Bundle.open(bundle)
    with progress(f"reading {data}") as bar:
        dataset = load_dataset(data, progress=bar)
    with calibration_progress() as report:
        found = sensitivity_of(opened, dataset, recipe=plan, threads=threads, progress=report)
    if tell_json(found.to_json(), json_out):
        print_sensitivity(found)
    if png_file is not None:
        sensitivity_figure(found, png_file)
        console.print(f"written: {png_file}")
