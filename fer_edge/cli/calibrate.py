"""`fer-edge calibrate`: adds INT8 variants to a bundle, through the accuracy gate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, console, note_written, progress, show
from fer_edge.cli.inputs import read_dataset, read_recipe

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    data: Annotated[str, opt.dataset("Data set to calibrate on, for example fer2013:PATH.")],
    recipe: Annotated[str, opt.recipe("default")],
    settings: Annotated[tuple[str, ...], opt.settings("sample.size=1024")],
    forms: Annotated[tuple[Literal["int8", "int8-trt"], ...], opt.option("Only this form.", name="--form")],
    sample_file: Annotated[
        Path | None, opt.output("Write the calibration rows and their SHA-256 here.", name="--sample-out")
    ],
    threads: opt.Threads,
    dry_run: Annotated[bool, opt.flag("Quantize and measure, but leave BUNDLE unchanged.")],
    json_out: Path | None,
) -> None:
    """Add INT8 variants to BUNDLE: int8 for ONNX Runtime and OpenVINO, int8-trt for TensorRT.

    NNCF quantizes the encoder on a sample of the training split. A bundle exported from a `fer-edge qat` run keeps its
    learned graphs instead, unless --set method=ptq is given. Exits 1 and leaves BUNDLE unchanged where a form loses
    more accuracy than the recipe allows. Where the recipe lists candidates, all are compared and the one with
    the fewest flips is selected for each form.
    """
    from fer_edge.calibrate import require_packages

    require_packages(needed_by="fer-edge calibrate")
    from fer_edge.calibrate.calibration import measure_forms
    from fer_edge.calibrate.candidates import compare_candidates
    from fer_edge.calibrate.recipe import CalibrationRecipe
    from fer_edge.cli.calibration_tables import comparison_table, outcome_parts
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_json

    plan = read_recipe(CalibrationRecipe, recipe, settings, room="calibrate")
    if forms:
        plan = dataclasses.replace(plan, forms=tuple(dict.fromkeys(forms)))
    opened, dataset = Bundle.open(bundle), read_dataset(data)
    with progress("calibrating") as bar:
        if plan.candidates:
            comparison = compare_candidates(opened, dataset, recipe=plan, threads=threads, progress=bar)
        else:
            outcome = measure_forms(opened, dataset, recipe=plan, threads=threads, progress=bar)
    if plan.candidates:
        value = {**comparison.to_json(), "command": command_line()}
        show(value, json_out, [comparison_table(comparison), *outcome_parts(comparison.outcome)])
        comparison.require_chosen()
        outcome = comparison.outcome
    else:
        show({**outcome.to_json(), "command": command_line()}, json_out, outcome_parts(outcome))
    if sample_file is not None:
        write_json(sample_file, outcome.sample.to_json())
        note_written(sample_file)
    outcome.require_passed()
    if dry_run:
        console.print(f"dry run: {opened.path} is unchanged")
    else:
        outcome.write()
        console.print(f"written: {', '.join(form.variant.name for form in outcome.forms)} in {opened.path}")
