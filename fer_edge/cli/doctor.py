"""`fer-edge doctor`: what this machine has and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fer_edge.cli import options as opt
from fer_edge.cli.console import show
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.bench.doctor import DoctorReport
    from fer_edge.core.machine import MachineReport

__all__ = ["command"]


@opt.make_command
def command(
    json_out: Path | None,
) -> None:
    """Show what this machine has and what it lacks: processor, GPU, engines, packages and data.

    Every engine is tried with a small graph. Nothing is changed; a missing package is not an error.
    """
    from fer_edge.bench.doctor import examine

    report = examine()
    show(report.to_json(), json_out, _tables(report))


def _tables(report: DoctorReport) -> Iterator[Table | str]:
    yield Table(columns=("machine", ""), rows=_machine_rows(report.machine))
    yield ""
    yield Table(
        columns=("works here", "", "detail"),
        rows=[(check.name, "yes" if check.works else "no", check.detail) for check in report.checks],
    )
    yield ""
    yield Table(
        columns=("package", "version", "extra"),
        rows=[(package.name, package.version, ", ".join(package.extras) or "fer-edge") for package in report.packages],
        caption="To install what is missing: pip install 'fer-edge[EXTRA]'",
    )


def _machine_rows(machine: MachineReport) -> list[tuple[str, str]]:
    memory = machine.memory_bytes
    rows = [
        ("processor", machine.cpu),
        ("cores", f"{machine.cores} (load {machine.load_at_start})"),
        ("extensions", " ".join(machine.cpu_features) or "unknown"),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown"),
        ("system", machine.os),
        ("Python", machine.python),
        ("NVIDIA driver", machine.driver or "none"),
    ]
    for gpu in machine.gpus:
        size = f"{gpu.memory_bytes / 2**30:.1f} GiB"
        rows.append(("GPU", f"{gpu.name}, {size}, SM {gpu.compute_capability}, CUDA up to {gpu.cuda_driver}"))
    if machine.jetpack:
        rows.append(("JetPack", machine.jetpack))
    return rows
