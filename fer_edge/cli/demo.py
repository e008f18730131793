"""`fer-edge demo`: the shipped bundles on drawn faces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.console import note_written, progress, show
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.demo.report import DemoReport

__all__ = ["command"]


@opt.make_command
def command(
    bundles: Annotated[tuple[str, ...], opt.argument(metavar="[BUNDLE]...", nargs=-1)],
    out: Annotated[Path, opt.option("Folder to write.", opt.OUTPUT_FOLDER, default="demo")],
    data: Annotated[str | None, opt.dataset("Also measure accuracy here.  [default: $FER_EDGE_DATA]")],
    json_out: Path | None,
) -> None:
    """Verify, export, measure and run each BUNDLE (a folder or a shipped name; default: all shipped ones).

    Needs no data set, no GPU and no torch: the faces are drawn. Writes a report, the measurements and an annotated
    video.
    """
    from fer_edge.core.json import encode
    from fer_edge.demo.run import run_demo

    fer2013 = os.environ.get("FER_EDGE_DATA")
    spec = data or (f"fer2013:{fer2013}" if fer2013 else None)
    with progress("demo") as bar:
        report = run_demo(bundles, out=out, data=spec, overwrite=opt.overwriting(), progress=bar)
    show(encode(report), json_out, _parts(report))
    note_written(*(out / name for name in ("report.html", "bench.json", "clip.webm")))


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
