"""`fer-edge data`: look at a data set before anything is trained or measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import emit_json, json_flag, print_table, progress

if TYPE_CHECKING:
    from fer_edge.data import DatasetReport

__all__ = ["command"]


@click.group()
def command() -> None:
    """Look at a data set: splits, class counts, duplicates, leaks."""


@command.command()
@click.argument("spec")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the decoded images.  [default: $FER_EDGE_CACHE, else fer-edge in the user's cache folder]",
)
@json_flag
def info(spec: str, cache: Path | None, *, as_json: bool) -> None:
    """Count what the data set SPEC holds, and what repeats or leaks between its splits.

    \b
    SPEC is one of
      fer2013:PATH             the Kaggle CSV, the Kaggle image folders, or parquet
      ckplus:PATH[?fold=K]     CK+ as its authors give it out, or CK+48
      folder:PATH[?size=S]     one folder an expression, in train/ val/ test/ or flat
      synthetic[:COUNT[@SEED]] generated faces

    Images are compared pixel for pixel. Reading decodes every image once; later commands open the result at once.
    """
    from fer_edge.data import describe, load_dataset

    with progress(f"reading {spec}") as bar:
        report = describe(load_dataset(spec, cache=cache, progress=bar))
    if as_json:
        emit_json(report.to_json())
    else:
        _print(report)


def _print(report: DatasetReport) -> None:
    width, height = report.image_size
    classes = tuple(report.splits[0].classes)
    counted = ("images", *classes, "repeated", "contradictory", "leaked")
    rows = [(s.name, s.role, s.n, *s.classes.values(), s.repeated, s.contradictory, s.leaked) for s in report.splits]
    click.echo(f"{report.source} ({report.layout}, {width}x{height})")
    print_table(("split", "serves to", *counted), rows, right=counted)
    click.echo("repeated: stands earlier in the split · leaked: also stands in the training split")
    click.echo(f"contradictory: groups of identical images with more than one label; {report.contradictory} in all")
    if any(split.subjects for split in report.splits):
        click.echo("subjects: " + ", ".join(f"{split.subjects} in {split.name}" for split in report.splits))
    if any(split.with_votes for split in report.splits):
        click.echo("FER+ votes come with the images")
    if report.note:
        click.echo(f"note: {report.note}")
    click.echo(f"sha256: {report.sha256}")
    click.echo(f"decoded images: {report.cache or 'in memory only'}")
