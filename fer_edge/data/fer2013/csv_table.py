"""FER2013 as the Kaggle challenge's CSV: ``emotion,pixels,Usage``, the pixels as 2,304 numbers between spaces.

The columns may have any order, spaces and capitals (``icml_face_data.csv`` has ``emotion, Usage, pixels``). The FER+
votes (Barsoum et al. 2016, arXiv 1608.01041) are read from ``fer2013new.csv`` beside the table, if it exists.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.types import Int64, Progress, Uint8
from fer_edge.data.dataset import Dataset
from fer_edge.data.fer2013.rows import SIDE, USAGES, Rows, emotion_label, usage_code

__all__ = ["is_table", "read", "votes_file"]

_COLUMNS: Final = ("emotion", "pixels", "usage")
_VOTES_FILE: Final = "fer2013new.csv"
_VOTES_HEADER: Final = (
    "usage", "image name",
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "nf",
)  # fmt: skip
_HEADER_BYTES = 4096
_PROGRESS_STEP = 512


def is_table(path: Path) -> bool:
    """Return whether the file's first line names the three columns."""
    with _reading(path), path.open("rb") as handle:
        header = handle.readline(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    return set(_COLUMNS) <= set(_names(header.split(",")))


def votes_file(path: Path) -> list[Path]:
    """Return the path of the FER+ votes beside the table, or an empty list."""
    beside = path.with_name(_VOTES_FILE)
    return [beside] if beside.is_file() else []


def read(path: Path, progress: Progress) -> Dataset:
    """Read the table, and the votes beside it.

    Raises:
        DataError: a missing column or an invalid row; the message names file and line.
    """
    total = _count_rows(path)
    images = np.empty((total, SIDE * SIDE), np.uint8)
    labels, usages = np.empty(total, np.int64), np.empty(total, np.int64)
    lines = _lines(path)
    columns = _columns(path, next(lines, (1, []))[1])
    done = 0
    for line, fields in lines:
        where = f"{path}:{line}"
        if len(fields) <= max(columns.values()):
            raise DataError(f"{where}: {len(fields)} columns, expected {len(columns)} ({', '.join(columns)})")
        labels[done] = emotion_label(fields[columns["emotion"]], where=where)
        usages[done] = usage_code(fields[columns["usage"]].strip(), where=where)
        images[done] = _pixels(fields[columns["pixels"]], where)
        done += 1
        if done % _PROGRESS_STEP == 0:
            progress("reading images", done, total)
    if not done:
        raise DataError(f"{path} has a header and no rows")
    progress("reading images", done, done)
    votes = [_votes(file, usages[:done]) for file in votes_file(path)]
    return Rows(
        images=images[:done].reshape(-1, SIDE, SIDE),
        labels=labels[:done],
        numbers=np.arange(done),
        usages=usages[:done],
        votes=votes[0] if votes else None,
    ).dataset("csv", where=str(path))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of every line that is not blank."""
    line = 1
    try:
        with _reading(path), path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            for fields in reader:
                line = reader.line_num
                if fields:
                    yield line, fields
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV text file after line {line}: {error}") from error


def _names(header: list[str]) -> list[str]:
    return [name.strip().strip('"').lower() for name in header]


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    names = _names(header)
    if missing := [name for name in _COLUMNS if name not in names]:
        cure = " The challenge's train.csv has none: use fer2013.csv." if missing == ["usage"] else ""
        raise DataError(
            f"{path}:1: the header lacks {', '.join(missing)}; got {','.join(names)[:120]!r}, "
            f"expected emotion,pixels,Usage.{cure}"
        )
    return {name: names.index(name) for name in _COLUMNS}


def _pixels(text: str, where: str) -> Int64:
    """Parse the 2,304 pixels of a row to int64 0..255."""
    text = text.strip()
    if not text.isascii() or text.encode().translate(None, b"0123456789 "):
        for place, token in enumerate(text.split()):
            if not (token.isascii() and token.isdigit()):
                raise DataError(f"{where}: pixel {place} is {token[:20]!r}, expected a whole number from 0 to 255")
    # Much faster than a list of Python integers; a number too long for int64 becomes its largest value.
    values = np.fromstring(text, np.int64, sep=" ") if text else np.empty(0, np.int64)
    if len(values) != SIDE * SIDE:
        raise DataError(f"{where}: {len(values)} pixels, expected {SIDE * SIDE} ({SIDE} x {SIDE})")
    if values.max() > 255:
        place = int(values.argmax())
        raise DataError(f"{where}: pixel {place} is {text.split()[place][:20]}, expected a whole number from 0 to 255")
    return values


def _count_rows(path: Path) -> int:
    """Count the lines after the first, with any line ends: an upper bound of the rows."""
    count, last = 0, b""
    with _reading(path), path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            count += chunk.count(b"\n") + chunk.count(b"\r") - chunk.count(b"\r\n")
            last = chunk[-1:]
    return max(0, count - (last in (b"\n", b"\r")))


def _votes(path: Path, usages: Int64) -> Uint8:
    """Read the FER+ votes of the table's rows, in the same order: uint8 (N, 10)."""
    lines = _lines(path)
    if tuple(_names(next(lines, (1, []))[1])) != _VOTES_HEADER:
        raise DataError(f"{path}:1: not the header of FER+'s votes; expected {','.join(_VOTES_HEADER)}")
    votes = np.zeros((len(usages), len(_VOTES_HEADER) - 2), np.uint8)
    done = 0
    for line, fields in lines:
        where = f"{path}:{line}"
        counts = [field.strip() for field in fields[2:]]
        if len(counts) != votes.shape[1] or not all(re.fullmatch(r"[0-9]{1,2}", count) for count in counts):
            raise DataError(f"{where}: expected usage, image name and {votes.shape[1]} counts of votes")
        if done >= len(usages) or usage_code(fields[0].strip(), where=where) != usages[done]:
            expected = USAGES[usages[done]] if done < len(usages) else f"no more than {len(usages):,} rows"
            raise DataError(f"{where}: {fields[0]!r} does not match the table's row {done}, expected {expected}")
        votes[done] = [int(count) for count in counts]
        done += 1
    if done < len(usages):
        raise DataError(f"{path}: votes for {done:,} rows, expected {len(usages):,}; remove the file to read no votes")
    return votes
