"""`fer-edge gpu-check`: every GPU path, run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, progress, show
from fer_edge.core.errors import FerEdgeError
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.bench.gpu_check import PathResult

__all__ = ["command"]


@opt.make_command
def command(
    bundle: Annotated[str, opt.argument(default="base")],
    runs: Annotated[int, opt.option("Timed runs per path.", opt.integer(10, 1_000_000), default=500)],
    cycles: Annotated[
        int, opt.option("Sessions opened and closed to find leaks.", opt.integer(2, 1_000_000), default=1000)
    ],
    threads: Annotated[int, opt.option("Threads that share one session.", opt.integer(1, 1024), default=4)],
    json_out: Path | None,
) -> None:
    """Run BUNDLE on every GPU path: torch, ONNX Runtime, TensorRT, TensorRT-RTX.

    Each path is compared with the CPU and timed; a path that is not available is listed with the reason. Exits 1 where
    a path fails or there is no GPU.
    """
    from fer_edge.bench.gpu_check import GpuCheckOptions, check_gpu
    from fer_edge.core.bundle import Bundle

    with progress("checking the GPU") as bar:
        report = check_gpu(
            Bundle.open(bundle),
            options=GpuCheckOptions(runs=runs, cycles=cycles, threads=threads),
            command=command_line(),
            progress=bar,
        )
    table = Table(
        columns=("path", "outcome", "largest logit difference", "p50 encoder + head", "detail"),
        rows=[(path.name, path.outcome, _difference(path), _latency(path), path.detail) for path in report.paths],
        title=f"{report.machine.gpu}: {report.bundle}",
    )
    show(report.to_json(), json_out, [table])
    if report.failed:
        raise FerEdgeError(f"GPU paths: got failures of {', '.join(report.failed)}, expected none; see the table")


def _difference(path: PathResult) -> str | None:
    difference = path.measures.get("max_abs_logit_diff")
    return None if difference is None else f"{difference:.2g}"


def _latency(path: PathResult) -> str | None:
    stages = path.measures.get("latency_ms")
    return None if stages is None else f"{sum(stage['p50'] for stage in stages.values()):.3f} ms"
