"""`fer-edge pareto`: draws the front of a finished sweep from its pareto.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.sweep import show_sweep

__all__ = ["command"]


@opt.make_command
def command(
    file: Annotated[Path, opt.argument(metavar="PARETO_JSON")],
    out: Annotated[Path, opt.option("Folder for pareto.json, .md and .png.", metavar="FOLDER")],
    png: Annotated[bool, opt.flag("Draw pareto.png as well.")],
    json_out: Path | None,
) -> None:
    """Draw the page of a sweep from its PARETO_JSON. Nothing is measured."""
    from fer_edge.core.errors import require
    from fer_edge.core.files import expect_new
    from fer_edge.sweep.report import SweepReport
    from fer_edge.sweep.run import write_sweep

    if png:
        require("matplotlib", needed_by="fer-edge pareto --png", extra="report")
    for ending in ("json", "md", "png"):
        expect_new(out / f"pareto.{ending}", overwrite=opt.overwriting())
    report = SweepReport.read(file)
    write_sweep(report, out, plot=png)
    show_sweep(report, out, json_out)
