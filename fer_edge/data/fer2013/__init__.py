"""FER2013 (Goodfellow et al. 2013, arXiv 1307.0414) in the shapes that users have, told apart by looking.

- ``csv``: the Kaggle challenge file (columns emotion, pixels, Usage); FER+ votes from ``fer2013new.csv`` beside it;
- ``parquet``: tables with the columns row, image, emotion, usage and, optionally, ferplus_votes;
- ``folders``: ``train/<emotion>/*.png`` and ``test/<emotion>/*.png``.

The same rows give the same hash in every shape, as long as the row numbers are the official file's: the CSV's by their
order, the parquet's by their column, the folders' by their file names (``PublicTest_28709.png``).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from fer_edge.core.errors import InputError
from fer_edge.core.types import Progress
from fer_edge.data.cache import ReadPlan
from fer_edge.data.dataset import Dataset
from fer_edge.data.fer2013.rows import ROLES_BY_USAGE, Rows, missing_note

__all__ = ["plan"]

_VERSION = 1
_EXPECTED: Final = (
    "expected fer2013.csv (emotion,pixels,Usage), parquet files, or the folders train/<emotion>/ and test/<emotion>/"
)


def plan(path: Path) -> ReadPlan:
    """Look at `path` and plan how to read FER2013 from it.

    Args:
        path: a CSV or parquet file, or a folder that holds one of the three shapes. In a folder that holds several,
            parquet goes before CSV, and CSV before image folders.

    Raises:
        InputError: there is nothing at `path`, or nothing that looks like FER2013.
    """
    planned = partial(ReadPlan, name="fer2013", root=path, version=_VERSION)
    if not path.exists():
        raise InputError(f"{path} does not exist; {_EXPECTED}")
    if tables := _parquet_files(path):
        return planned(files=tables, read=partial(_read_parquet, tables, path))
    if table := _csv_file(path):
        from fer_edge.data.fer2013.csv_table import votes_file

        return planned(files=[table, *votes_file(table)], read=partial(_read_csv, table))
    for root in (path, path / "images"):
        if (root / "train").is_dir() or (root / "test").is_dir():
            from fer_edge.data.fer2013 import image_folders

            return planned(files=image_folders.list_files(root), read=partial(image_folders.read, root))
    raise InputError(f"{path} holds no FER2013; {_EXPECTED}")


def _parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    with path.open("rb") as handle:
        return [path] if handle.read(4) == b"PAR1" else []


def _csv_file(path: Path) -> Path | None:
    from fer_edge.data.fer2013.csv_table import is_table

    if path.is_file():
        return path
    found = [file for file in sorted(path.glob("*.csv")) if is_table(file)]
    if len(found) > 1:
        raise InputError(f"{path} holds several FER2013 tables: {', '.join(f.name for f in found)}; name one of them")
    return found[0] if found else None


def _read_csv(path: Path, progress: Progress) -> Dataset:
    from fer_edge.data.fer2013.csv_table import read_rows

    return _dataset(read_rows(path, progress), path, "csv")


def _read_parquet(files: list[Path], path: Path, progress: Progress) -> Dataset:
    from fer_edge.data.fer2013.parquet_table import read_rows

    return _dataset(read_rows(files, progress), path, "parquet")


def _dataset(rows: Rows, path: Path, layout: str) -> Dataset:
    splits = rows.splits(path)
    roles = {role: usage for usage, role in ROLES_BY_USAGE.items() if usage in splits}
    return Dataset(
        name="fer2013",
        source=f"fer2013:{path}",
        layout=layout,
        splits=splits,
        roles=roles,
        note=missing_note(splits),
    )
