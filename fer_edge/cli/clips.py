"""`fer-edge clips`: what the sequence head buys over single frames and averaging."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

import click

from fer_edge.cli.console import console, progress

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="clips")
@click.argument("bundle")
@click.option("--data", required=True, metavar="SPEC", help="Where the stills come from, for example fer2013:PATH.")
@click.option(
    "--split",
    type=click.Choice(["choose", "report"]),
    default="choose",
    show_default=True,
    help="choose: PublicTest. report: PrivateTest; each look at it goes into the log.",
)
@click.option("--variant", default="auto", show_default=True, help="The bundle's variant; auto: int8 where it has it.")
@click.option("--provider", default="cpu", show_default=True, help="The engine.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the sessions.")
@click.option("--clips", "count", type=click.IntRange(min=20), default=1000, show_default=True, help="Stills used.")
@click.option("--all", "everything", is_flag=True, help="Use every still of the split.")
@click.option(
    "--smoothing", type=float, help="Constant of the exponential smoothing; chosen on these clips where not given."
)
@click.option("--json", "json_file", type=_FILE, help="Write the report here.")
@click.option("--markdown", "markdown_file", type=_FILE, help="Write the tables here.")
@click.option("--png", "png_file", type=_FILE, help="Draw it here.")
@click.option("--private-log", type=_FILE, help="Log of PrivateTest evaluations; else the repository's.")
def command(
    bundle: str,
    data: str,
    split: Literal["choose", "report"],
    variant: str,
    provider: str,
    threads: int,
    count: int,
    everything: bool,
    smoothing: float | None,
    json_file: Path | None,
    markdown_file: Path | None,
    png_file: Path | None,
    private_log: Path | None,
) -> None:
    """Compare four ways to read BUNDLE (a folder or a shipped name) on clips made of a data set's stills.

    The newest frame alone, averaged probabilities, exponential smoothing and the sequence head, at 1, 4, 8 and 16
    frames; clean, under corruptions the head was trained on and under others; and the frames until a changed expression
    is reported. The exponential smoothing's constant is chosen on the choosing split.
    """
    from fer_edge.bench.clip_report import accuracy_table, delay_table, render_markdown, write_clip_plot
    from fer_edge.bench.clips import ClipOptions, run_clips
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.errors import require
    from fer_edge.core.files import expect_writable, write_atomic
    from fer_edge.core.tables import print_table
    from fer_edge.data import load_dataset

    options = ClipOptions(
        split=split,
        variant=variant,
        provider=provider,
        threads=threads,
        clips=None if everything else count,
        smoothing=smoothing,
        private_log=private_log,
        command=shlex.join(["fer-edge", *sys.argv[1:]]),
    )
    expect_writable(json_file, markdown_file, png_file)
    if png_file is not None:
        require("matplotlib", needed_by="fer-edge clips --png", extra="report")
    opened = Bundle.open(bundle)
    with progress(f"reading {data}") as bar:
        dataset = load_dataset(data, progress=bar)
        report = run_clips(opened, dataset, options=options, progress=bar)
    for table in (accuracy_table(report), delay_table(report)):
        print_table(table)
        click.echo()
    if json_file is not None:
        report.write(json_file)
    if markdown_file is not None:
        write_atomic(markdown_file, render_markdown(report).encode())
    if png_file is not None:
        write_clip_plot(report, png_file)
    for path in filter(None, (json_file, markdown_file, png_file)):
        console.print(f"written: {path}")
