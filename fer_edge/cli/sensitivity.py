"""`fer-edge sensitivity`: what each layer costs when it alone is quantized."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, progress, show
from fer_edge.cli.inputs import read_dataset, read_recipe

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    data: Annotated[str, opt.dataset("Data set to calibrate and measure on: fer2013:PATH.")],
    recipe: Annotated[str, opt.recipe("default")],
    settings: Annotated[tuple[str, ...], opt.settings("sample.size=1024")],
    form: Annotated[Literal["int8", "int8-trt"] | None, opt.option("INT8 form.  [default: the recipe's first]")],
    threads: opt.Threads,
    json_out: Path | None,
) -> None:
    """Measure what each layer of BUNDLE costs when it alone is quantized. BUNDLE is not changed."""
    from fer_edge.calibrate import require_packages

    require_packages(needed_by="fer-edge sensitivity")
    from fer_edge.calibrate.recipe import CalibrationRecipe
    from fer_edge.calibrate.sensitivity import measure_sensitivity
    from fer_edge.cli.calibration_tables import sensitivity_table
    from fer_edge.core.bundle import Bundle

    plan = read_recipe(CalibrationRecipe, recipe, settings, room="calibrate")
    if form is not None:
        plan = dataclasses.replace(plan, forms=(form,))
    opened, dataset = Bundle.open(bundle), read_dataset(data)
    with progress("measuring layers") as bar:
        report = measure_sensitivity(opened, dataset, recipe=plan, threads=threads, progress=bar)
    show({**report.to_json(), "command": command_line()}, json_out, [sensitivity_table(report)])
