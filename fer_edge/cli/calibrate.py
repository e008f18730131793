"""`fer-edge calibrate`: INT8 variants of a bundle, through the accuracy gate."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fer_edge.cli.console import console, emit_json, progress

if TYPE_CHECKING:
    from fer_edge.calibrate.calibration import CalibrationOutcome
    from fer_edge.calibrate.recipe import CalibrationRecipe, Form
    from fer_edge.core.bundle import Bundle
    from fer_edge.data.dataset import Dataset

__all__ = ["calibration_progress", "command", "tell_json"]

_STDOUT: Final = "-"


@click.command(name="calibrate")
@click.argument("bundle", metavar="BUNDLE")
@click.option("--data", required=True, metavar="SPEC", help="The data set to calibrate on, for example fer2013:PATH.")
@click.option("--recipe", default="default", show_default=True, help="A shipped calibration recipe, or a TOML file.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe's value: sample.size=1024."
)
@click.option(
    "--form", "forms", multiple=True, type=click.Choice(["int8", "int8-trt"]), help="Only this form; may be repeated."
)
@click.option(
    "--sample-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the row numbers of the calibration sample and their SHA-256 here.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the evaluation.")
@click.option("--dry-run", is_flag=True, help="Quantize, measure and judge, but leave BUNDLE as it is.")
@click.option(
    "--json",
    "json_out",
    is_flag=False,
    flag_value=_STDOUT,
    metavar="[FILE]",
    help="Print the result as JSON, and nothing else, on stdout; or write it to FILE, beside the table.",
)
def command(
    bundle: str,
    data: str,
    recipe: str,
    settings: tuple[str, ...],
    forms: tuple[Form, ...],
    sample_out: Path | None,
    threads: int,
    dry_run: bool,
    json_out: str | None,
) -> None:
    """Add INT8 variants to BUNDLE: int8 for ONNX Runtime and OpenVINO, int8-trt for TensorRT.

    NNCF quantizes the encoder on a sample of the training split; of a bundle that was exported from a run of fer-edge
    qat, the graphs learnt there are taken instead (--set method=ptq quantizes all the same). A form that loses more
    than the recipe allows ends the command with status 1, and the bundle stays as it is. Where the recipe lists
    candidates, all of them are compared and its rule takes one for each form.
    """
    import dataclasses

    from fer_edge.calibrate import require_packages

    require_packages(needed_by="fer-edge calibrate")
    from fer_edge.calibrate.recipe import CalibrationRecipe
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.recipes import load_recipe, override
    from fer_edge.data import load_dataset

    plan = override(load_recipe(CalibrationRecipe, recipe, room="calibrate"), settings)
    if forms:
        plan = dataclasses.replace(plan, forms=tuple(dict.fromkeys(forms)))
    opened = Bundle.open(bundle)
    with progress(f"reading {data}") as bar:
        dataset = load_dataset(data, progress=bar)
    outcome = _measure(opened, dataset, plan, threads=threads, json_out=json_out)
    if sample_out is not None:
        _write_sample(sample_out, outcome)
    outcome.require_passed()
    if dry_run:
        console.print(f"dry run: {opened.path} is as it was")
    else:
        outcome.write()
        console.print(f"written: {', '.join(form.variant.name for form in outcome.forms)} in {opened.path}")


def _measure(
    bundle: Bundle, dataset: Dataset, plan: CalibrationRecipe, *, threads: int, json_out: str | None
) -> CalibrationOutcome:
    """Make and judge the recipe's way, or compare its candidates; say what came of it."""
    from fer_edge.calibrate.calibration import measure_forms
    from fer_edge.calibrate.candidates import compare_candidates
    from fer_edge.cli.calibration_tables import print_comparison, print_outcome

    if not plan.candidates:
        with calibration_progress() as report:
            outcome = measure_forms(bundle, dataset, recipe=plan, threads=threads, progress=report)
        if tell_json(outcome.to_json(), json_out):
            print_outcome(outcome)
        return outcome
    with calibration_progress() as report:
        comparison = compare_candidates(bundle, dataset, recipe=plan, threads=threads, progress=report)
    if tell_json(comparison.to_json(), json_out):
        print_comparison(comparison)
        print_outcome(comparison.outcome)
    comparison.require_chosen()
    return comparison.outcome


def _write_sample(path: Path, outcome: CalibrationOutcome) -> None:
    from fer_edge.core.files import write_json

    write_json(path, outcome.sample.to_json())


def tell_json(value: dict[str, Any], json_out: str | None) -> bool:
    """Write the JSON where it is wanted; whether the tables are to be printed."""
    from fer_edge.core.files import write_json

    if json_out == _STDOUT:
        emit_json(value)
        return False
    if json_out is not None:
        write_json(Path(json_out), {**value, "command": shlex.join(["fer-edge", *sys.argv[1:]])})
        console.print(f"written: {json_out}")
    return True


@contextlib.contextmanager
def calibration_progress() -> Iterator[Callable[[str, int, int], None]]:
    with progress("calibrating") as bar:

        def report(what: str, done: int, total: int) -> None:
            bar(what, done, total)

        yield report
