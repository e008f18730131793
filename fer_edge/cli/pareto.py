"""`fer-edge pareto`: draws the front of a finished sweep from its pareto.json."""

from __future__ import annotations

from pathlib import Path

import click

from fer_edge.cli.console import json_flag
from fer_edge.cli.sweep import show_report

__all__ = ["command"]


@click.command(name="pareto")
@click.argument("file", metavar="PARETO_JSON", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--png", is_flag=True, help="Draw OUT/pareto.png.")
@json_flag
def command(file: Path, out: Path, png: bool, as_json: bool) -> None:
    """Draw the page of a sweep from its PARETO_JSON. Nothing is measured."""
    from fer_edge.core.errors import require
    from fer_edge.sweep.report import SweepReport
    from fer_edge.sweep.run import write_sweep

    if png:
        require("matplotlib", needed_by="fer-edge pareto --png", extra="report")
    report = SweepReport.read(file)
    write_sweep(report, out, plot=png)
    show_report(report, out, as_json=as_json)
