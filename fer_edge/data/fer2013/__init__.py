"""FER2013 (Goodfellow et al. 2013, arXiv 1307.0414) in its three formats, recognised by content.

- ``csv``: the Kaggle challenge's file (columns emotion, pixels, Usage); FER+ votes from ``fer2013new.csv`` beside it;
- ``parquet``: tables with the columns row, image, emotion, usage and, optionally, ferplus_votes;
- ``folders``: ``train/<emotion>/*.png`` and ``test/<emotion>/*.png``.

The same rows have the same hash in every format, if the row numbers are the official file's: the CSV's by their order,
the parquet's by their column, the folders' by their file names (``PublicTest_28709.png``).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from fer_edge.core.errors import DataError
from fer_edge.data.cache import ReadPlan
from fer_edge.data.fer2013 import csv_table, image_folders, parquet_table

__all__ = ["plan"]

_VERSION = 1
_EXPECTED: Final = (
    "expected fer2013.csv (emotion,pixels,Usage), parquet files, or the folders train/<emotion>/ and test/<emotion>/"
)


def plan(path: Path) -> ReadPlan:
    """Inspect `path` and plan how to read FER2013 from it.

    Args:
        path: a CSV or parquet file, or a folder with one of the three formats; of several, parquet is preferred to CSV,
            and CSV to image folders.

    Raises:
        DataError: `path` does not exist or does not look like FER2013.
    """
    planned = partial(ReadPlan, name="fer2013", root=path, version=_VERSION)
    if not path.exists():
        raise DataError(f"{path} does not exist; {_EXPECTED}")
    if tables := _parquet_files(path):
        return planned(files=tables, read=partial(parquet_table.read, tables))
    if table := _csv_file(path):
        return planned(files=[table, *csv_table.votes_file(table)], read=partial(csv_table.read, table))
    for root in (path, path / "images"):
        if (root / "train").is_dir() or (root / "test").is_dir():
            stills = image_folders.list_stills(root)
            return planned(files=[still.file for still in stills], read=partial(image_folders.read, stills))
    raise DataError(f"{path} holds no FER2013; {_EXPECTED}")


def _parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    with path.open("rb") as handle:
        return [path] if handle.read(4) == b"PAR1" else []


def _csv_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    found = [file for file in sorted(path.glob("*.csv")) if csv_table.is_table(file)]
    if len(found) > 1:
        raise DataError(f"{path} holds several FER2013 tables: {', '.join(f.name for f in found)}; name one of them")
    return found[0] if found else None
