"""`fer-edge sweep`: a grid of networks, and its front of accuracy against time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, console, note_resume, note_written, progress, show
from fer_edge.cli.inputs import read_dataset

if TYPE_CHECKING:
    from fer_edge.core.tables import Table
    from fer_edge.sweep.report import SweepReport

__all__ = ["command", "show_sweep"]


@opt.make_command
def command(
    recipe: Annotated[str, opt.argument()],
    data: Annotated[str, opt.dataset("Data set to train, calibrate and measure on.")],
    out: Annotated[Path, opt.option("Folder of the sweep, new or its own.", metavar="FOLDER")],
    settings: Annotated[tuple[str, ...], opt.settings("grid.widths=[0.5]")],
    budget: opt.Budget,
    png: Annotated[bool, opt.flag("Draw OUT/pareto.png.")],
    split: opt.Split,
    peers_file: Annotated[Path | None, opt.option("Published models to compare with.", name="--peers", metavar="FILE")],
    no_peers: Annotated[bool, opt.flag("Leave published models out.")],
    device: opt.Device,
    private_log: opt.PrivateLog,
    json_out: Path | None,
) -> None:
    """Train, prune, export, calibrate and measure the networks of RECIPE, and draw accuracy against x.

    RECIPE is zoo (the shipped bundles, no training), widths (a grid), or a TOML file. The same command
    continues an interrupted sweep.
    """
    if peers_file is not None and no_peers:
        raise click.UsageError("--peers and --no-peers exclude each other")
    from fer_edge.bench.peers import find_peers, read_peers
    from fer_edge.core.errors import require
    from fer_edge.core.recipe_overrides import override
    from fer_edge.sweep.run import SweepOptions, load_sweep, run_sweep, write_sweep

    if png:
        require("matplotlib", needed_by="fer-edge sweep --png", extra="report")
    plan = override(load_sweep(recipe), settings)
    dataset = read_dataset(data)
    wanted = SweepOptions(
        recipe_name=recipe,
        budget_s=None if budget is None else 60 * budget,
        device=device,
        split=split,
        peers=None if no_peers or dataset.name != "fer2013" else read_peers(peers_file or find_peers()),
        private_log=private_log,
        command=command_line(),
    )
    with note_resume(f"to continue, repeat the command; the sweep is in {out}"), progress("sweep") as bar:
        report = run_sweep(plan, dataset, out, wanted, progress=bar, note=console.print)
    if report is not None:
        write_sweep(report, out, plot=png)
    show_sweep(report, out, json_out)


def show_sweep(report: SweepReport | None, out: Path, json_out: Path | None) -> None:
    """Print the points and peers of a sweep; None is a sweep without a finished network."""
    from fer_edge.core.json import encode

    show(None if report is None else encode(report), json_out, _tables(report))
    if report is not None:
        for line in report.missing:
            console.print(f"not among the points: {line}")
        if report.busy:
            console.print(report.busy)
        note_written(out)


def _tables(report: SweepReport | None) -> Iterator[Table | str]:
    from fer_edge.sweep.report import peer_table, point_table

    if report is not None:
        yield point_table(report)
        if (peers := peer_table(report)) is not None:
            yield ""
            yield peers
