"""`fer-edge doctor`: what this machine has and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import emit_json, json_flag, print_table

if TYPE_CHECKING:
    from fer_edge.core.machine import MachineReport

__all__ = ["command"]


@click.command()
@json_flag
def command(as_json: bool) -> None:
    """Show what this machine has and what it lacks: processor, GPU, engines, packages and data.

    Every engine is tried with a small graph. Nothing is changed, and what is missing is no error.
    """
    from fer_edge.bench.doctor import examine

    report = examine()
    if as_json:
        emit_json(report.to_json())
        return
    print_table(("machine", ""), _machine_rows(report.machine))
    click.echo()
    print_table(("can it be used?", "", ""), [(c.name, "yes" if c.works else "no", c.detail) for c in report.checks])
    click.echo()
    print_table(
        ("package", "version", "brought by"),
        [(p.name, p.version, ", ".join(p.extras) or "fer-edge") for p in report.packages],
        caption="what is missing: pip install 'fer-edge[EXTRA]'",
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
