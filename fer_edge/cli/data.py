"""`fer-edge data`: describes a data set before anything is trained or measured on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.console import show
from fer_edge.cli.inputs import read_dataset
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.data import DatasetReport

__all__ = ["command"]


@opt.make_command
def command(
    spec: Annotated[str, opt.argument(opt.DATA_SPEC)],
    cache: Annotated[
        Path | None, opt.option("Folder for the decoded images.  [default: $FER_EDGE_CACHE]", metavar="FOLDER")
    ],
    json_out: Path | None,
) -> None:
    """Count the images of a data set by split and expression, and find repeated, contradictory and leaked ones.

    \b
    SPEC is one of
      fer2013:PATH             the Kaggle CSV, the Kaggle image folders, or parquet
      ckplus:PATH[?fold=K]     CK+ as its authors publish it, or CK+48
      folder:PATH[?size=S]     one folder per expression, in train/ val/ test/ or flat
      synthetic[:COUNT[@SEED]] drawn faces

    Images are compared pixel by pixel. The first reading decodes every image; later commands use the cache.
    """
    from fer_edge.data import describe

    report = describe(read_dataset(spec, cache=cache))
    show(report.to_json(), json_out, _parts(report))


def _parts(report: DatasetReport) -> Iterator[Table | str]:
    width, height = report.image_size
    classes = tuple(report.splits[0].classes)
    yield f"{report.source} ({report.layout}, {width}x{height})"
    yield Table(
        columns=("split", "used to", "images", *classes),
        rows=[(split.name, split.role, split.n, *split.classes.values()) for split in report.splits],
    )
    yield ""
    yield Table(
        columns=("split", "repeated", "contradictory", "leaked"),
        rows=[(split.name, split.repeated, split.contradictory, split.leaked) for split in report.splits],
        caption="repeated: an identical image is earlier in the split; leaked: it is in the training split\n"
        f"contradictory: groups of identical images with more than one label; {report.contradictory} in total",
    )
    yield ""
    if any(split.subjects for split in report.splits):
        yield "subjects: " + ", ".join(f"{split.subjects} in {split.name}" for split in report.splits)
    if any(split.with_votes for split in report.splits):
        yield "FER+ votes: present"
    if report.note:
        yield f"note: {report.note}"
    yield f"sha256: {report.sha256}"
    yield f"decoded images: {report.cache or 'in memory only'}"
