"""FER2013 as parquet: row (int), image (an encoded 48x48 image), emotion (0 to 6), usage, optionally ferplus_votes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import InputError, require
from fer_edge.core.labels import FERPLUS_VOTES
from fer_edge.core.types import Int64, Progress, Uint8
from fer_edge.data.fer2013.rows import SIDE, Rows, emotion_label, usage_code
from fer_edge.data.image_files import decode_grey

__all__ = ["read_rows"]

_COLUMNS: Final = ("row", "image", "emotion", "usage")
_VOTES: Final = "ferplus_votes"
_BATCH_ROWS = 512


def read_rows(files: Sequence[Path], progress: Progress) -> Rows:
    """Read the tables as one.

    Raises:
        InputError: a file that is cut short or no parquet, a missing column, or a row that is not as it should be.
        MissingPackageError: pyarrow is not installed.
    """
    pyarrow = require("pyarrow", needed_by="reading FER2013 as parquet", extra="report")
    try:
        return _read_rows(files, progress)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"cannot read {', '.join(map(str, files))} as parquet: {error}") from error


def _read_rows(files: Sequence[Path], progress: Progress) -> Rows:
    tables = [_open(file) for file in files]
    with_votes = [_VOTES in table.schema_arrow.names for table in tables]
    if len(set(with_votes)) > 1:
        raise InputError(f"{files[with_votes.index(False)]} has no column {_VOTES}, the other files have")
    total = sum(table.metadata.num_rows for table in tables)
    rows = Rows(
        images=np.empty((total, SIDE, SIDE), np.uint8),
        labels=np.empty(total, np.int64),
        numbers=np.empty(total, np.int64),
        usages=np.empty(total, np.int64),
        votes=np.empty((total, len(FERPLUS_VOTES)), np.uint8) if with_votes[0] else None,
    )
    done = 0
    for batch, where in _batches(files, tables, with_votes[0]):
        stop = done + batch.num_rows
        rows.numbers[done:stop] = _integers(batch, "row", where)
        emotions, usages, images = (batch.column(name).to_pylist() for name in ("emotion", "usage", "image"))
        for offset, place in enumerate(range(done, stop)):
            here = f"{where}: row {rows.numbers[place]}"
            rows.labels[place] = emotion_label(emotions[offset], where=here)
            rows.usages[place] = usage_code(usages[offset], where=here)
            rows.images[place] = _image(images[offset], here)
        if rows.votes is not None:
            rows.votes[done:stop] = _vote_counts(batch, where)
        done = stop
        progress("reading images", done, total)
    if not done:
        raise InputError(f"{', '.join(map(str, files))}: no rows")
    return rows


def _open(file: Path) -> Any:
    table = require("pyarrow.parquet", needed_by="reading FER2013 as parquet", extra="report").ParquetFile(file)
    if missing := [name for name in _COLUMNS if name not in table.schema_arrow.names]:
        raise InputError(
            f"{file} lacks the columns {', '.join(missing)}; got {', '.join(table.schema_arrow.names)}, "
            f"expected {', '.join(_COLUMNS)}"
        )
    return table


def _batches(files: Sequence[Path], tables: Sequence[Any], with_votes: bool) -> Iterator[tuple[Any, str]]:
    columns = [*_COLUMNS, _VOTES] if with_votes else list(_COLUMNS)
    for file, table in zip(files, tables, strict=True):
        for batch in table.iter_batches(_BATCH_ROWS, columns=columns):
            yield batch, str(file)


def _integers(batch: Any, name: str, where: str) -> Int64:
    values = np.asarray(batch.column(name).to_pylist())
    if values.dtype.kind not in "iu":
        raise InputError(
            f"{where}: column {name} holds {batch.schema.field(name).type} or gaps, expected whole numbers"
        )
    return values.astype(np.int64)


def _image(data: object, where: str) -> Uint8:
    if not isinstance(data, bytes):
        raise InputError(f"{where}: image is {type(data).__name__}, expected the bytes of an encoded image")
    image = decode_grey(data, where=where)
    if image.shape != (SIDE, SIDE):
        raise InputError(f"{where}: {image.shape[1]}x{image.shape[0]} pixels, expected {SIDE}x{SIDE}")
    return image


def _vote_counts(batch: Any, where: str) -> Uint8:
    votes = batch.column(_VOTES).to_pylist()
    complete = all(row is not None and len(row) == len(FERPLUS_VOTES) and None not in row for row in votes)
    counts = np.asarray(votes) if complete else np.empty(0)
    if counts.dtype.kind not in "iu" or counts.min() < 0 or counts.max() > 255:
        raise InputError(f"{where}: {_VOTES} are not {len(FERPLUS_VOTES)} counts (0 to 255) in every row")
    return counts.astype(np.uint8)
