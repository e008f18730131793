"""FER2013 as parquet: row (int), image (an encoded 48x48 image), emotion (0 to 6), usage, optionally ferplus_votes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import DataError, require
from fer_edge.core.images import decode_image
from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.types import Int64, Progress, Uint8
from fer_edge.data.dataset import Dataset
from fer_edge.data.fer2013.rows import SIDE, Rows, emotion_label, usage_code

__all__ = ["read"]

_COLUMNS: Final = ("row", "image", "emotion", "usage")
_VOTES: Final = "ferplus_votes"
_BATCH_ROWS = 512


def read(files: Sequence[Path], progress: Progress) -> Dataset:
    """Read the tables as one.

    Raises:
        DataError: a file that is truncated or not parquet, a missing column, or an invalid row.
        MissingPackageError: pyarrow is not installed.
    """
    pyarrow = require("pyarrow", needed_by="reading FER2013 as parquet", extra="report")
    named = ", ".join(map(str, files))
    try:
        return _read_rows(files, progress).dataset("parquet", where=named)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"cannot read {named} as parquet: {error}") from error


def _read_rows(files: Sequence[Path], progress: Progress) -> Rows:
    tables = [_open(file) for file in files]
    with_votes = [_VOTES in table.schema_arrow.names for table in tables]
    if len(set(with_votes)) > 1:
        raise DataError(f"{files[with_votes.index(False)]} has no column {_VOTES}, the other files have")
    total = sum(table.metadata.num_rows for table in tables)
    if not total:
        raise DataError(f"{', '.join(map(str, files))}: no rows")
    rows = Rows(
        images=np.empty((total, SIDE, SIDE), np.uint8),
        labels=np.empty(total, np.int64),
        numbers=np.empty(total, np.int64),
        usages=np.empty(total, np.int64),
        votes=np.empty((total, len(FERPLUS_VOTES)), np.uint8) if with_votes[0] else None,
    )
    columns, done = [*_COLUMNS, *([_VOTES] if with_votes[0] else [])], 0
    for file, table in zip(files, tables, strict=True):
        for batch in table.iter_batches(_BATCH_ROWS, columns=columns):
            _fill(rows, slice(done, done + batch.num_rows), batch, str(file))
            done += batch.num_rows
            progress("reading images", done, total)
    return rows


def _open(file: Path) -> Any:
    table = require("pyarrow.parquet", needed_by="reading FER2013 as parquet", extra="report").ParquetFile(file)
    if missing := [name for name in _COLUMNS if name not in table.schema_arrow.names]:
        raise DataError(
            f"{file} lacks the columns {', '.join(missing)}; got {', '.join(table.schema_arrow.names)}, "
            f"expected {', '.join(_COLUMNS)}"
        )
    return table


def _fill(rows: Rows, places: slice, batch: Any, where: str) -> None:
    rows.numbers[places] = _row_numbers(batch, where)
    emotions, usages, images = (batch.column(name).to_pylist() for name in ("emotion", "usage", "image"))
    for offset, place in enumerate(range(places.start, places.stop)):
        here = f"{where}: row {rows.numbers[place]}"
        rows.labels[place] = emotion_label(emotions[offset], where=here)
        rows.usages[place] = usage_code(usages[offset], where=here)
        rows.images[place] = _image(images[offset], here)
    if rows.votes is not None:
        rows.votes[places] = _vote_counts(batch, where)


def _row_numbers(batch: Any, where: str) -> Int64:
    values = np.asarray(batch.column("row").to_pylist())
    if values.dtype.kind not in "iu":
        raise DataError(f"{where}: column row holds {batch.schema.field('row').type} or gaps, expected whole numbers")
    return values.astype(np.int64)


def _image(data: object, where: str) -> Uint8:
    if not isinstance(data, bytes):
        raise DataError(f"{where}: image is {type(data).__name__}, expected the bytes of an encoded image")
    image = decode_image(data, where=where, grey=True)
    if image.shape != (SIDE, SIDE):
        raise DataError(f"{where}: {image.shape[1]}x{image.shape[0]} pixels, expected {SIDE}x{SIDE}")
    return image


def _vote_counts(batch: Any, where: str) -> Uint8:
    votes = batch.column(_VOTES).to_pylist()
    complete = all(row is not None and len(row) == len(FERPLUS_VOTES) and None not in row for row in votes)
    counts = np.asarray(votes) if complete else np.empty(0)
    if counts.dtype.kind not in "iu" or counts.min() < 0 or counts.max() > 255:
        raise DataError(f"{where}: {_VOTES} are not {len(FERPLUS_VOTES)} counts (0 to 255) in every row")
    return counts.astype(np.uint8)
