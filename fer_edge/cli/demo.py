"""`fer-edge demo`: the shipped bundles on drawn faces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli import options
from fer_edge.cli.console import note_written, progress, show
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.demo.report import DemoReport

__all__ = ["command"]


@click.command(name="demo")
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1, type=options.TEXT)
@options.option("--out", options.OUTPUT_FOLDER, "Folder to write.", default="demo", metavar="FOLDER")
@options.dataset("Also measure accuracy here.  [default: $FER_EDGE_DATA]", required=False)
@options.json
def command(bundles: tuple[str, ...], out: Path, data: str | None, json_out: Path | None) -> None:
    """Verify, export, measure and run each BUNDLE (a folder or a shipped name; default: all shipped ones).

    Needs no data set, no GPU and no torch: the faces are drawn. Writes a report, the measurements and an annotated
    video.
    """
    from fer_edge.demo.run import run_demo

    fer2013 = os.environ.get("FER_EDGE_DATA")
    spec = data or (f"fer2013:{fer2013}" if fer2013 else None)
    with progress("demo") as bar:
        report = run_demo(bundles, out=out, data=spec, overwrite=options.overwriting(), progress=bar)
    show(report.to_json(), json_out, _parts(report))
    note_written(*(out / name for name in ("report.html", "bench.json", "clip.mp4")))


def _parts(report: DemoReport) -> Iterator[Table | str]:
    from fer_edge.bench.tables import cost_table, verdict_table
    from fer_edge.demo.report import synthetic_table

    yield verdict_table(report.bench)
    yield ""
    yield cost_table(report.bench)
    yield ""
    yield synthetic_table(report)
    yield ""
    yield report.clip.text
