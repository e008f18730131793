"""`fer-edge sweep`: a grid or a search of networks, and the front of accuracy against time that comes of it."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from fer_edge.cli.console import console, emit_json, json_flag, progress

if TYPE_CHECKING:
    from fer_edge.bench.peers import PeerTable
    from fer_edge.sweep.report import SweepReport

__all__ = ["command", "show_report"]

_REDRAW_EVERY_S = 0.2


class _View:
    """One bar for what goes on now, drawn when it is told something and at no other time, and lines for what ended.

    A bar that redraws itself in a thread of its own would show in the tails of what is timed.
    """

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._task: TaskID | None = None
        self._last_s = 0.0

    def step(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done != total and now - self._last_s < _REDRAW_EVERY_S:
            return
        self._last_s = now
        if self._task is None:
            self._task = self._display.add_task("sweep", total=None)
        self._display.update(self._task, description=what, completed=done, total=total, refresh=True)


@contextlib.contextmanager
def _view() -> Iterator[_View]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    display = Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
    with display:
        yield _View(display)


@click.command(name="sweep")
@click.argument("recipe")
@click.option(
    "--data", required=True, metavar="SPEC", help="Train, calibrate and measure on this data, for example fer2013:PATH."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The sweep's folder, new or its own.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe: grid.widths=[0.5].")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings at once.")
@click.option("--budget", type=click.FloatRange(min=0), metavar="MINUTES", help="Begin no training after this time.")
@click.option("--again", is_flag=True, help="Measure again what lies measured in OUT.")
@click.option("--png", is_flag=True, help="Draw OUT/pareto.png.")
@click.option(
    "--split",
    type=click.Choice(["choose", "report"]),
    default="choose",
    show_default=True,
    help="Measure on PublicTest, or on PrivateTest; each look at the latter goes into the log.",
)
@click.option(
    "--peers",
    "peers_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Others' models; else the repository's bench/peers.toml.",
)
@click.option("--no-peers", is_flag=True, help="Leave others' models out.")
@click.option("--storage", metavar="URL", help="The search's database; else OUT/study.db.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--private-log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Log of PrivateTest evaluations; else the repository's.",
)
@json_flag
def command(
    recipe: str,
    data: str,
    out: Path,
    settings: tuple[str, ...],
    jobs: int,
    budget: float | None,
    again: bool,
    png: bool,
    split: Literal["choose", "report"],
    peers_file: Path | None,
    no_peers: bool,
    storage: str | None,
    device: str,
    private_log: Path | None,
    as_json: bool,
) -> None:
    """Train, prune, export, calibrate and measure the networks of RECIPE, and draw the front of accuracy against x.

    RECIPE is zoo (the shipped bundles, nothing trained), widths (a grid), search (Optuna), or a TOML file of your own.
    The same command goes on where it was broken off; several of them may share --out.
    """
    if peers_file is not None and no_peers:
        raise click.UsageError("--peers and --no-peers exclude each other")
    from fer_edge.core.errors import require

    if png:
        require("matplotlib", needed_by="fer-edge sweep --png", extra="report")
    from fer_edge.core.recipes import override
    from fer_edge.data import load_dataset
    from fer_edge.sweep.run import SweepOptions, load_sweep, run_sweep, write_sweep

    plan = override(load_sweep(recipe), settings)
    with progress("reading the data set") as bar:
        dataset = load_dataset(data, progress=bar)
    peers = None if no_peers or dataset.name != "fer2013" else _peers(peers_file)
    options = SweepOptions(
        recipe_name=recipe,
        jobs=jobs,
        budget_s=None if budget is None else 60 * budget,
        remeasure=again,
        device=device,
        split=split,
        peers=peers,
        storage=storage,
        private_log=private_log,
        command=shlex.join(["fer-edge", *sys.argv[1:]]),
    )
    try:
        with _view() as view:
            report = run_sweep(plan, data, dataset, out, options, progress=view.step, note=console.print)
    except KeyboardInterrupt:
        console.print(f"the same command resumes the sweep in {out}")
        raise
    if report is not None:
        write_sweep(report, out, plot=png)
    show_report(report, out, as_json=as_json)


def _peers(file: Path | None) -> PeerTable:
    from fer_edge.bench.peers import find_peers, read_peers

    return read_peers(file or find_peers())


def show_report(report: SweepReport | None, out: Path, *, as_json: bool) -> None:
    from fer_edge.core.json import encode
    from fer_edge.core.tables import print_table
    from fer_edge.sweep.report import peer_table, point_table

    if as_json:
        emit_json(None if report is None else encode(report))
        return
    if report is None:
        return
    for table in filter(None, (point_table(report), peer_table(report))):
        print_table(table)
        click.echo()
    for line in report.missing:
        console.print(f"not among the points: {line}")
    if report.busy:
        console.print(report.busy)
    console.print(f"written: {out}")
