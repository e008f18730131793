"""`fer-edge demo`: try the shipped bundles on made-up faces."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import console

if TYPE_CHECKING:
    from fer_edge.demo.run import DemoReport

__all__ = ["command"]


@click.command(name="demo")
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to write; an earlier demo there is replaced.",
)
@click.option(
    "--data",
    metavar="SPEC",
    help="Also measure accuracy on this data, for example fer2013:PATH.  [default: FER2013 at $FER_EDGE_DATA, if set]",
)
@click.option("--overwrite", is_flag=True, help="Replace the folder, whatever it holds.")
def command(bundles: tuple[str, ...], out: Path, data: str | None, overwrite: bool) -> None:
    """Verify, export, measure and run each BUNDLE (a folder or a shipped name; all shipped ones where none is named).

    Needs no data set, no GPU and no torch: the faces are drawn. Writes a report, the measurements and an annotated
    video.
    """
    import os

    from fer_edge.demo.run import run_demo

    stated = os.environ.get("FER_EDGE_DATA")
    report = run_demo(
        bundles,
        out=out,
        data=data or (f"fer2013:{stated}" if stated else None),
        overwrite=overwrite,
        progress=_Log(),
    )
    _show(report, out)


class _Log:
    """Says each step once, with the seconds since the start, and on a terminal how far it is.

    Nothing is drawn between the calls: a display that redraws itself would show in the tails of what is timed.
    """

    def __init__(self) -> None:
        self._start = self._drawn = time.monotonic()
        self._text = ""

    def __call__(self, text: str, done: int, total: int) -> None:
        now = time.monotonic()
        if text != self._text:
            self._text = text
            console.print(f"{now - self._start:5.0f} s  {text}")
        elif console.is_terminal and now - self._drawn > 0.2:
            self._drawn = now
            console.print(f"         {done}/{total}", end="\r")


def _show(report: DemoReport, out: Path) -> None:
    from fer_edge.bench.tables import cost_table, verdict_table
    from fer_edge.core.tables import print_table
    from fer_edge.demo.page import synthetic_table

    for table in (verdict_table(report.bench), cost_table(report.bench)):
        print_table(table)
        click.echo()
    print_table(synthetic_table(report))
    click.echo("On drawn faces that no network was trained on: it shows that the chain works, nothing about people.\n")
    clip = report.clip
    click.echo(
        f"Clip: {clip.summary.info.bundle}/{clip.summary.info.variant}, {clip.summary.frames} frames; of the "
        f"{clip.frames_judged} in which an expression was shown, it was the one given in {clip.frames_agreeing}."
    )
    for name in ("report.html", "bench.json", "clip.mp4"):
        click.echo(f"written: {out / name}")
