"""`fer-edge calibrate`: INT8 variants of a bundle, through the accuracy gate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import console, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.calibrate.calibration import CalibrationOutcome
    from fer_edge.calibrate.recipe import Form
    from fer_edge.manifest import Variant

__all__ = ["command"]


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
@json_flag
def command(
    bundle: str,
    data: str,
    recipe: str,
    settings: tuple[str, ...],
    forms: tuple[Form, ...],
    sample_out: Path | None,
    threads: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add INT8 variants to BUNDLE: int8 for ONNX Runtime and OpenVINO, int8-trt for TensorRT.

    NNCF quantizes the encoder on a stratified sample of the training split; of a bundle that was exported from a run of
    fer-edge qat, the graphs learnt there are taken instead (--set method=ptq quantizes all the same). A form that loses
    more than the recipe allows ends the command with status 1, and the bundle stays as it is.
    """
    import dataclasses

    from fer_edge.calibrate import require_packages

    require_packages(needed_by="fer-edge calibrate")
    from fer_edge.bundle import Bundle
    from fer_edge.calibrate.calibration import measure_forms
    from fer_edge.calibrate.recipe import CalibrationRecipe
    from fer_edge.data import load_dataset
    from fer_edge.files import write_json
    from fer_edge.recipes import load_recipe, override

    plan = override(load_recipe(CalibrationRecipe, recipe, room="calibrate"), settings)
    if forms:
        plan = dataclasses.replace(plan, forms=tuple(dict.fromkeys(forms)))
    opened = Bundle.open(bundle)
    with progress(f"reading {data}") as bar:
        dataset = load_dataset(data, progress=bar)
    with _steps() as report:
        outcome = measure_forms(opened, dataset, recipe=plan, threads=threads, progress=report)
    if sample_out is not None:
        write_json(sample_out, outcome.sample.to_json())
    if as_json:
        emit_json(outcome.to_json())
    else:
        _print_outcome(outcome)
    outcome.require_passed()
    if dry_run:
        console.print(f"dry run: {opened.path} is as it was")
    else:
        outcome.write()
        console.print(f"written: {', '.join(form.variant.name for form in outcome.forms)} in {opened.path}")


@contextlib.contextmanager
def _steps() -> Iterator[Callable[[str, int, int], None]]:
    with progress("calibrating") as bar:

        def report(what: str, done: int, total: int) -> None:
            bar.describe(what)
            bar(done, total)

        yield report


def _print_outcome(outcome: CalibrationOutcome) -> None:
    parent, split = outcome.parent, outcome.split
    variants = [parent, *(form.variant for form in outcome.forms)]
    print_table(
        ("", *(variant.name for variant in variants)),
        [
            ("encoder + head, kB", *(_size(variant, parent) for variant in variants)),
            (f"{split} top-1", *(f"{variant.metrics[split].top1:.2%}" for variant in variants)),
            ("  without leaked rows", *(_rate(variant.metrics[split].top1_without_leaked) for variant in variants)),
            ("  macro-F1", *(f"{variant.metrics[split].macro_f1:.2%}" for variant in variants)),
            ("  ECE after temperature", *(f"{variant.metrics[split].ece:.4f}" for variant in variants)),
            ("  temperature", *(f"{variant.temperature:.3f}" for variant in variants)),
            ("largest logit difference", None, *(_logits(form.variant, "max") for form in outcome.forms)),
            ("mean logit difference", None, *(_logits(form.variant, "mean") for form in outcome.forms)),
        ],
        title=f"{outcome.bundle.manifest.name}: {parent.name} and what became of it",
        right=tuple(variant.name for variant in variants),
    )
    print_table(
        ("form", "check", "on", "measured", "limit", "McNemar p", ""),
        [
            (
                form.variant.name,
                check.name,
                check.on,
                f"{check.measured:.4f}",
                f"{check.limit:.4f}",
                f"{form.gate.paired[check.on].mcnemar_p:.3f}" if check.name == "max_top1_drop" else None,
                "passed" if check.passed else "FAILED",
            )
            for form in outcome.forms
            for check in form.gate.checks
        ],
        title="the gate",
        right=("measured", "limit", "McNemar p"),
    )


def _size(variant: Variant, parent: Variant) -> str:
    size, before = (sum(file.size_bytes for file in each.graphs) for each in (variant, parent))
    return f"{size / 1000:,.0f}" + (f" ({before / size:.2f}x smaller)" if variant is not parent else "")


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _logits(variant: Variant, which: str) -> str:
    return f"{variant.parity[f'{which}_abs_logit_diff']:.4f}"
