"""`fer-edge parity`: compares the outputs of torch, ONNX, INT8 and every engine, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import ProgressBar, console, emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.export.parity.report import ChainReport
    from fer_edge.export.parity.stages import TorchOutputs

__all__ = ["command"]


@click.command(name="parity")
@click.argument("bundle")
@click.option("--variant", help="Only this variant.")
@click.option("--target", help="Also compare the files of this target: auto, a target's name, or a recipe's path.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a value of the target's recipe.")
@click.option("--data", metavar="SPEC", help="Use real faces of this data set instead of generated ones.")
@click.option(
    "--rows",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --data: use the rows of a calibration's sample list.",
)
@click.option(
    "--run",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Compute the torch outputs with this training run instead of the recorded ones.",
)
@click.option("--dry-run", is_flag=True, help="Leave BUNDLE unchanged.")
@json_flag
def command(
    bundle: str,
    variant: str | None,
    target: str | None,
    settings: tuple[str, ...],
    data: str | None,
    rows: Path | None,
    run: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compare the outputs of BUNDLE stage by stage: torch, ONNX FP32, INT8, every engine on this machine.

    Writes the verdict into the manifest of BUNDLE. Exits 1 where a stage fails, and names the first layer that differs.
    """
    if rows and not data:
        raise click.UsageError("--rows needs --data, the data set of the rows")
    if settings and not target:
        raise click.UsageError("--set needs --target, whose recipe it changes")
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.parity.frames import generated_frames, real_frames
    from fer_edge.export.parity.report import ParityLimits
    from fer_edge.export.parity.stages import check_chain, write_verdict
    from fer_edge.export.parity.target_files import written_target

    opened = Bundle.open(bundle)
    with progress("checking parity") as bar:

        def say(what: str, done: int, total: int) -> None:
            bar(what, done, total)

        found = generated_frames(opened) if data is None else real_frames(opened, data, rows=rows, progress=bar)
        writing = (
            nullcontext(None)
            if target is None
            else written_target(opened, target=target, variant=variant, settings=settings, progress=say)
        )
        with writing as files, _torch(run, bar) as torch:
            chosen = [files.variant] if files is not None else [variant] if variant else []
            report = check_chain(
                opened,
                found.frames,
                described=found.described,
                variants=chosen,
                torch=torch,
                target=files,
                limits=ParityLimits.for_generated() if data is None else ParityLimits(),
                progress=say,
            )
    if as_json:
        emit_json(report.to_json())
    else:
        _show(report)
    if dry_run:
        console.print(f"dry run: {opened.path} is unchanged")
    else:
        console.print(f"verdict written: {write_verdict(opened, report).path}")
    report.require_passed()


@contextmanager
def _torch(run: Path | None, bar: ProgressBar) -> Iterator[TorchOutputs | None]:
    if run is None:
        yield None
        return
    from fer_edge.core.errors import require

    require("torch", needed_by="fer-edge parity --run", extra="train")
    from fer_edge.export.from_torch.run import run_outputs
    from fer_edge.train.run_folder import TrainRun

    bar.describe(f"opening {run}")
    yield run_outputs(TrainRun.open(run))


def _show(report: ChainReport) -> None:
    print_table(
        ("stage", "rows", "largest difference", "mean", "spread", "same label", "limit", "verdict"),
        [
            (
                stage.stage,
                stage.rows or None,
                _figure(stage.max_abs_diff),
                _figure(stage.mean_abs_diff),
                _figure(stage.spread),
                None if stage.agreement is None else f"{stage.agreement:.2%}",
                stage.limit or None,
                {True: "passed", False: "FAILED", None: "not run"}[stage.passed],
            )
            for stage in report.stages
        ],
        title=f"{report.bundle}: parity on {report.frames}; differences of logits, before temperature",
        right=("rows", "largest difference", "mean", "spread", "same label"),
    )
    for stage in report.stages:
        if stage.passed is None:
            console.print(f"not run: {stage.stage}: {stage.remark}")


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
