"""`fer-edge bench`: latency and accuracy of every variant against the FP32 original."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fer_edge.cli.console import console

__all__ = ["command"]


@click.command()
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@click.option("--data", metavar="SPEC", help="Measure accuracy on this data, for example fer2013:PATH.")
@click.option(
    "--split",
    type=click.Choice(["choose", "report"]),
    default="choose",
    show_default=True,
    help="choose: PublicTest. report: PrivateTest; each look at it goes into the log.",
)
@click.option(
    "--original", metavar="BUNDLE", help="Compare with this bundle's FP32, which is measured beside the rest."
)
@click.option("--variant", "variants", metavar="NAME", multiple=True, help="Only this variant; may be repeated.")
@click.option(
    "--provider",
    "providers",
    metavar="NAME",
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Engine; may be repeated.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of every session.")
@click.option("--window", type=click.IntRange(1, 1024), help="Frames of the streaming step; else each bundle's own.")
@click.option("--rounds", type=click.IntRange(min=1), help="Visits of every variant.")
@click.option("--batch", type=click.IntRange(min=1), help="Faces in one call, for the throughput.")
@click.option("--after-idle", type=float, metavar="SECONDS", help="Also time single steps after idling this long.")
@click.option("--quick", is_flag=True, help="Seconds instead of minutes: for a look, not for a claim.")
@click.option(
    "--against",
    "other_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Show beside the ratios those of this bench JSON, for example of another machine.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the bench JSON here.")
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots here."
)
@click.option(
    "--private-log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Log of PrivateTest evaluations; else the repository's.",
)
@click.option("--record", is_flag=True, help="Write the measured accuracies into the bundles' manifests.")
def command(
    bundles: tuple[str, ...],
    data: str | None,
    split: Literal["choose", "report"],
    original: str | None,
    variants: tuple[str, ...],
    providers: tuple[str, ...],
    threads: int,
    window: int | None,
    rounds: int | None,
    batch: int | None,
    after_idle: float | None,
    quick: bool,
    other_file: Path | None,
    json_file: Path | None,
    html_file: Path | None,
    private_log: Path | None,
    record: bool,
) -> None:
    """Measure every variant of each BUNDLE (a folder or a shipped name; all shipped ones where none is named).

    All variants are timed interleaved in one process, beside a reference CNN whose time makes the ratio x. Without
    --data the accuracy is the one recorded in the manifest, and marked so.
    """
    if record and data is None:
        raise click.UsageError("--record writes measured accuracies, so it needs --data")
    from fer_edge.bench import BenchOptions, Timing, run_bench
    from fer_edge.bench.accuracy import record_accuracies
    from fer_edge.bench.benchmark import open_bundles
    from fer_edge.bench.html_report import write_page
    from fer_edge.bench.report import BenchReport
    from fer_edge.bench.tables import cost_table, expect_common, ratio_table, verdict_table
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.errors import require
    from fer_edge.core.files import expect_writable
    from fer_edge.core.tables import print_table
    from fer_edge.data import load_dataset

    other = None if other_file is None else BenchReport.read(other_file)
    expect_writable(json_file, html_file)
    if html_file is not None:
        require("matplotlib", needed_by="fer-edge bench --html", extra="report")
    opened = open_bundles(bundles)
    if other is not None:
        expect_common(other, [bundle.manifest.name for bundle in opened], providers)
    timing = Timing.choose(quick=quick, rounds=rounds, batch=batch, idle_s=after_idle)
    with _still_progress() as say:
        report = run_bench(
            opened,
            data=None if data is None else load_dataset(data, progress=say),
            options=BenchOptions(
                split=split,
                original=None if original is None else Bundle.open(original),
                variants=variants or None,
                providers=providers,
                threads=threads,
                window=window,
                timing=timing,
                private_log=private_log,
                command=shlex.join(["fer-edge", *sys.argv[1:]]),
            ),
            progress=say,
        )
    if json_file is not None:
        report.write(json_file)
    if html_file is not None:
        write_page(report, html_file)
    tables = [verdict_table(report), cost_table(report)]
    if other is not None:
        tables.append(ratio_table(report, other))
    for table in tables:
        print_table(table)
        click.echo()
    for path in filter(None, (json_file, html_file)):
        console.print(f"written: {path}")
    if record:
        for bundle in opened:
            record_accuracies(bundle, report)
            console.print(f"recorded in {bundle.path}")


@contextlib.contextmanager
def _still_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that is drawn when it is told something and at no other time.

    A bar that redraws itself in a thread of its own would show in the tails of what is timed.
    """
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    task = display.add_task("bench", total=None)

    def say(text: str, done: int, total: int) -> None:
        display.update(task, description=text, completed=done, total=total, refresh=True)

    with display:
        yield say
