"""`fer-edge export --parity`: the chain from torch to every engine, its table and its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from fer_edge.cli.console import ProgressBar, console, emit_json, print_table, progress

if TYPE_CHECKING:
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.chain import TorchOutputs
    from fer_edge.export.chain_report import ChainReport


def check_parity(
    bundle: Bundle,
    *,
    variants: Sequence[str],
    target: str | None,
    settings: Sequence[str],
    data: str | None,
    rows: Path | None,
    run: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the chain, print it, write the verdict into the bundle unless it is a dry run, and fail where it is broken.

    Raises:
        GateError: the chain is broken; the verdict is written all the same.
        FerEdgeError: something that the chain needs cannot be used.
    """
    from fer_edge.export.chain import check_chain, write_verdict
    from fer_edge.export.chain_frames import generated_frames, real_frames
    from fer_edge.export.chain_report import ParityLimits
    from fer_edge.export.chain_target import written_target

    with progress("checking parity") as bar:

        def say(what: str, done: int, total: int) -> None:
            bar(what, done, total)

        found = generated_frames(bundle) if data is None else real_frames(bundle, data, rows=rows, progress=bar)
        one = variants[0] if variants else None
        writing = (
            nullcontext(None)
            if target is None
            else written_target(bundle, target=target, variant=one, settings=settings, progress=say)
        )
        with writing as files, _torch(run, bar) as torch:
            chosen = [files.variant] if files is not None else list(variants)
            report = check_chain(
                bundle,
                found.frames,
                described=found.described,
                variants=chosen,
                torch=torch,
                target=files,
                limits=ParityLimits.for_generated() if data is None else ParityLimits(),
                progress=say,
            )
    _show(report, as_json=as_json)
    if dry_run:
        console.print(f"dry run: {bundle.path} is as it was")
    else:
        written = write_verdict(bundle, report)
        console.print(f"verdict written: {written.path}")
    report.require_passed()


@contextmanager
def _torch(run: Path | None, bar: ProgressBar) -> Iterator[TorchOutputs | None]:
    if run is None:
        yield None
        return
    from fer_edge.core.errors import require

    require("torch", needed_by="fer-edge export --parity --run", extra="train")
    from fer_edge.export.from_torch.run import run_outputs
    from fer_edge.train.run import TrainRun

    bar.describe(f"opening {run}")
    yield run_outputs(TrainRun.open(run))


def _show(report: ChainReport, *, as_json: bool) -> None:
    if as_json:
        emit_json(report.to_json())
        return
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
