"""`fer-edge parity`: compares the outputs of torch, ONNX, INT8 and every engine, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import console, progress, show
from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.export.parity.report import ParityReport
    from fer_edge.export.parity.stages import TorchOutputs

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    variant: Annotated[str | None, opt.option("Only this variant.")],
    target: Annotated[str | None, opt.option("Also compare the files of this target: auto, a name, or a recipe.")],
    settings: Annotated[tuple[str, ...], opt.settings("precision=fp32")],
    data: Annotated[str | None, opt.dataset("Use faces of this data set instead of generated ones.")],
    rows: Annotated[Path | None, opt.option("Use the rows of this calibration sample list.", metavar="FILE")],
    run: Annotated[Path | None, opt.option("Compute torch's outputs with this training run.", metavar="RUN")],
    dry_run: Annotated[bool, opt.flag("Leave BUNDLE unchanged.")],
    json_out: Path | None,
) -> None:
    """Compare the outputs of BUNDLE stage by stage: torch, ONNX FP32, INT8, every engine on this machine.

    Writes the verdict into the manifest of BUNDLE. Exits 1 where a stage fails, and names the first layer that differs.
    """
    if rows and not data:
        raise click.UsageError("--rows needs --data, the data set of the rows")
    if settings and not target:
        raise click.UsageError("--set needs --target, whose recipe it changes")
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.job import target_job
    from fer_edge.export.parity.frames import generated_frames, real_frames
    from fer_edge.export.parity.report import ParityLimits
    from fer_edge.export.parity.stages import check_parity, write_verdict
    from fer_edge.export.target import TargetPlan

    opened = Bundle.open(bundle)
    with progress("checking parity") as bar:
        found = generated_frames(opened) if data is None else real_frames(opened, data, rows=rows, progress=bar)
        plan = (
            None
            if target is None
            else TargetPlan(target_job(opened, target=target, variant=variant, settings=settings))
        )
        chosen = plan.job.variant if plan is not None else variant
        report = check_parity(
            opened,
            found.frames,
            described=found.described,
            variants=[chosen] if chosen else [],
            torch=None if run is None else _torch(run),
            target=plan,
            limits=ParityLimits.for_generated() if data is None else ParityLimits(),
            progress=bar,
        )
    show(report.to_json(), json_out, [_table(report)])
    for stage in report.stages:
        if stage.passed is None:
            console.print(f"not run: {stage.stage}: {stage.remark}")
    if dry_run:
        console.print(f"dry run: {opened.path} is unchanged")
    else:
        console.print(f"verdict written: {write_verdict(opened, report).path}")
    report.require_passed()


def _torch(run: Path) -> TorchOutputs:
    from fer_edge.core.errors import require

    require("torch", needed_by="fer-edge parity --run", extra="train")
    from fer_edge.export.from_torch.run import run_outputs
    from fer_edge.train.run_folder import TrainRun

    return run_outputs(TrainRun.open(run))


def _table(report: ParityReport) -> Table:
    return Table.of(
        report.stages,
        {
            "stage": lambda stage: stage.stage,
            Column("rows", priority=3): lambda stage: stage.rows or None,
            "max diff": lambda stage: _figure(stage.max_abs_diff),
            Column("mean diff", priority=1): lambda stage: _figure(stage.mean_abs_diff),
            Column("spread", priority=2): lambda stage: _figure(stage.spread),
            "same label": lambda stage: None if stage.agreement is None else f"{stage.agreement:.2%}",
            Column("limit", "left"): lambda stage: stage.limit or None,
            "verdict": lambda stage: {True: "passed", False: "FAILED", None: "not run"}[stage.passed],
        },
        title=f"{report.bundle}: parity on {report.frames}",
        caption="Differences of logits, before temperature.",
    )


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"
