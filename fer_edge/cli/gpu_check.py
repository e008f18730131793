"""`fer-edge gpu-check`: every way onto a CUDA GPU, tried on the one at hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import emit_json, json_flag, print_table, progress
from fer_edge.core.errors import FerEdgeError

if TYPE_CHECKING:
    from fer_edge.bench.gpu_check import GpuCheckReport, PathResult

__all__ = ["command"]


@click.command(name="gpu-check")
@click.argument("bundle", default="base")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result as JSON; for bench/results/DEVICE/gpu-check.json.",
)
@click.option("--runs", type=click.IntRange(min=10), default=500, show_default=True, help="Timed runs of every path.")
@click.option(
    "--cycles",
    type=click.IntRange(min=2),
    default=1000,
    show_default=True,
    help="Times that a session is opened and closed to see what it leaves behind.",
)
@click.option("--threads", type=click.IntRange(min=1), default=4, show_default=True, help="Threads on one session.")
@json_flag
def command(bundle: str, out: Path | None, runs: int, cycles: int, threads: int, as_json: bool) -> None:
    """Try every GPU path on this machine with BUNDLE: torch, ONNX Runtime, TensorRT, TensorRT-RTX, a plain kernel.

    Each is compared with the CPU and timed; what cannot be had here is listed with the reason. The exit status is 1
    where a path failed or there is no GPU.
    """
    from fer_edge.bench.gpu_check import GpuCheckOptions, check_gpu
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_json

    with progress("checking the GPU") as bar:

        def tell(text: str, done: int, total: int) -> None:
            bar(text, done, total)

        report = check_gpu(
            Bundle.open(bundle),
            options=GpuCheckOptions(runs=runs, cycles=cycles, threads=threads),
            command=" ".join(["fer-edge", *sys.argv[1:]]),
            progress=tell,
        )
    if out is not None:
        write_json(out, report.to_json())
    if as_json:
        emit_json(report.to_json())
    else:
        _show(report)
    if report.failed:
        raise FerEdgeError(f"failed: {', '.join(report.failed)}")


def _show(report: GpuCheckReport) -> None:
    rows = [(path.name, path.outcome, _difference(path), _latency(path), path.detail) for path in report.paths]
    columns = ("path", "outcome", "largest logit difference", "p50 encoder + head", "")
    print_table(columns, rows, title=f"{report.machine.gpu}: {report.bundle}", right=columns[2:4])


def _difference(path: PathResult) -> str | None:
    difference = path.measures.get("max_abs_logit_diff")
    return None if difference is None else f"{difference:.2g}"


def _latency(path: PathResult) -> str | None:
    stages = path.measures.get("latency_ms")
    return None if stages is None else f"{sum(stage['p50'] for stage in stages.values()):.3f} ms"
