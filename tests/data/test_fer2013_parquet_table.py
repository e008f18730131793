from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from trees import Fer2013Sample, read_error

from fer_edge.data import load_dataset

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'fer-edge[report]'")


def test_votes_come_with_the_rows_where_there_are_any(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    path = sample.write_parquet(tmp_path / "all.parquet")
    dataset = load_dataset(f"fer2013:{path}", cache=cache)
    for split in dataset.splits.values():
        assert np.array_equal(split.votes, sample.votes[split.rows])
    bare = load_dataset(f"fer2013:{sample.write_parquet(tmp_path / 'bare.parquet', ferplus_votes=None)}", cache=cache)
    assert bare.split("train").votes is None
    assert bare.sha256 == dataset.sha256
    assert "bare.parquet has no column ferplus_votes" in read_error(f"fer2013:{tmp_path}", cache)


@pytest.mark.parametrize("keep", [4, 1000, -1])
def test_a_truncated_file(sample: Fer2013Sample, tmp_path: Path, cache: Path, keep: int) -> None:
    path = sample.write_parquet(tmp_path / "cut.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    assert f"cannot read {path} as parquet" in read_error(f"fer2013:{path}", cache)


def test_a_damaged_file(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    path = sample.write_parquet(tmp_path / "cut.parquet")
    content = bytearray(path.read_bytes())
    content[100:5000] = bytes(4900)
    path.write_bytes(content)
    assert str(path) in read_error(f"fer2013:{path}", cache)


def encoded(size: tuple[int, int] = (48, 48)) -> bytes:
    return bytes(cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("image", None, "lacks the columns image; got row, emotion, usage, ferplus_votes, expected row, image"),
        ("row", [1.0, 2.5, 3.0], "column row holds double or gaps, expected whole numbers"),
        ("row", [1, None, 3], "column row holds int64 or gaps"),
        ("row", [5, 5, 6], "got row 5 of Training more than once"),
        ("emotion", [1, 9, 3], "row 1: emotion '9', expected 0 angry"),
        ("emotion", [1, None, 3], "row 1: emotion 'None', expected 0 angry"),
        ("usage", ["Training", "Test", "Training"], "row 1: usage 'Test', expected one of Training"),
        ("image", [encoded(), encoded((48, 47)), encoded()], "row 1: 47x48 pixels, expected 48x48"),
        ("image", [encoded(), b"no image", encoded()], "row 1: 8 bytes that cannot be decoded as an image"),
        ("image", [encoded(), b"", encoded()], "row 1: 0 bytes that cannot be decoded as an image"),
        ("image", [encoded(), encoded()[:60], encoded()], "row 1: 60 bytes that cannot be decoded as an image"),
        ("image", ["a", "b", "c"], "row 0: image is str, expected the bytes of an encoded image"),
        ("ferplus_votes", [[1] * 10, None, [1] * 10], "ferplus_votes are not 10 counts"),
        ("ferplus_votes", [[1] * 10, [1] * 9, [1] * 10], "ferplus_votes are not 10 counts"),
        ("ferplus_votes", [[1] * 10, [-1] * 10, [1] * 10], "ferplus_votes are not 10 counts"),
    ],
)
def test_a_malformed_column_or_row_is_named(
    sample: Fer2013Sample, tmp_path: Path, cache: Path, column: str, values: list[Any] | None, message: str
) -> None:
    replaced = {column: None if values is None else pa.array(values)}
    path = sample.write_parquet(tmp_path / "bad.parquet", rows=range(3), **replaced)
    error = read_error(f"fer2013:{path}", cache)
    assert message in error
    assert str(path) in error


def test_no_rows(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    path = sample.write_parquet(tmp_path / "empty.parquet", rows=[], ferplus_votes=None)
    assert "no rows" in read_error(f"fer2013:{path}", cache)


def test_a_missing_pyarrow_names_the_extra(
    sample: Fer2013Sample, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sample.write_parquet(tmp_path / "all.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        Exception, match=r"reading FER2013 as parquet needs .*pyarrow.*pip install 'fer-edge\[report\]'"
    ):
        load_dataset(f"fer2013:{path}", cache=cache)
