from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import Fer2013Sample, read_error

from fer_edge.data import load_dataset

PIXELS = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    "header",
    [
        ("emotion", "pixels", "Usage"),
        ("emotion", " Usage", " pixels"),
        ("\ufeffemotion", "pixels", "Usage"),
        ("Usage", "Pixels", "Emotion"),
    ],
)
def test_the_columns_in_any_order_and_case(
    sample: Fer2013Sample, tmp_path: Path, cache: Path, header: tuple[str, ...]
) -> None:
    plain = sample.write_csv(tmp_path / "plain.csv")
    other = sample.write_csv(tmp_path / "fer2013.csv", tuple(name.strip("\ufeff") for name in header))
    other.write_text(other.read_text().replace(header[0].strip("\ufeff"), header[0], 1))
    hashes = {load_dataset(f"fer2013:{path}", cache=cache).sha256 for path in (plain, other)}
    assert len(hashes) == 1


def test_quoted_pixels_any_line_end_and_blank_lines(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    plain = sample.write_csv(tmp_path / "plain.csv")
    lines = plain.read_text().splitlines()
    quoted = [lines[0], *(f'{label},"{pixels}",{usage}' for label, pixels, usage in (r.split(",") for r in lines[1:]))]
    hashes = {load_dataset(f"fer2013:{plain}", cache=cache).sha256}
    for number, end in enumerate(("\r\n", "\n", "\r")):
        other = tmp_path / f"{number}.csv"
        other.write_bytes(end.join([*quoted[:9], "", *quoted[9:], "", ""]).encode())
        hashes.add(load_dataset(f"fer2013:{other}", cache=cache).sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"0,{PIXELS[:-2]},Training", ":3: 2303 pixels, expected 2304 (48 x 48)"),
        (f"0,{PIXELS} 7,Training", ":3: 2305 pixels, expected 2304"),
        ("0,,Training", ":3: 0 pixels, expected 2304"),
        (f"0,x{PIXELS[1:]},Training", ":3: pixel 0 is 'x', expected a whole number from 0 to 255"),
        (f"0,{PIXELS[:-1]}7.5,Training", ":3: pixel 2303 is '7.5', expected a whole number"),
        (f"0,-{PIXELS},Training", ":3: pixel 0 is '-7', expected a whole number"),
        (f"0,{PIXELS[:-1]}\u0667,Training", ":3: pixel 2303 is '\u0667', expected a whole number"),
        (f"0,{PIXELS[:-1]}256,Training", ":3: pixel 2303 is 256, expected a whole number from 0 to 255"),
        (f"0,{PIXELS}{'9' * 40},Training", f":3: pixel 2303 is 7{'9' * 19}, expected"),
        (f"7,{PIXELS},Training", ":3: emotion '7', expected 0 angry, 1 disgust"),
        (f"happy,{PIXELS},Training", ":3: emotion 'happy', expected 0 angry"),
        (f",{PIXELS},Training", ":3: emotion '', expected 0 angry"),
        (f"0,{PIXELS},Test", ":3: usage 'Test', expected one of Training, PublicTest, PrivateTest"),
        (f"0,{PIXELS}", ":3: 2 columns, expected 3 (emotion, pixels, usage)"),
        (f'0,"{PIXELS},Training', ":3: 2 columns, expected 3"),
    ],
)
def test_a_malformed_row_names_file_and_line(tmp_path: Path, cache: Path, row: str, message: str) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_text(f"emotion,pixels,Usage\n3,{PIXELS},Training\n{row}\n", encoding="utf-8")
    assert f"{path}{message}" in read_error(f"fer2013:{path}", cache)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the header lacks emotion, pixels, usage"),
        (b"emotion,pixels,Usage\n", "has a header and no rows"),
        (b"emotion,pixels\n0,1 2 3\n", "the header lacks usage; got 'emotion,pixels', expected emotion,pixels,Usage."),
        (b"emotion,pixels\n0,1 2 3\n", "train.csv has none: use fer2013.csv"),
        (b"emotion,pixels,Usage\n\xff\xfe\x00", "not a CSV text file after line 1"),
        (b"emotion,pixels,Usage\n0," + b"7" * 200_000 + b",Training\n", "not a CSV text file after line 1"),
    ],
)
def test_a_file_that_is_not_the_table(tmp_path: Path, cache: Path, content: bytes, message: str) -> None:
    path = tmp_path / "fer2013.csv"
    path.write_bytes(content)
    assert message in read_error(f"fer2013:{path}", cache)


def test_votes_beside_the_table_are_read_row_by_row(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    path = sample.write_csv(tmp_path / "fer2013.csv")
    without = load_dataset(f"fer2013:{path}", cache=cache)
    assert without.split("train").votes is None
    sample.write_votes(tmp_path / "fer2013new.csv")
    dataset = load_dataset(f"fer2013:{path}", cache=cache)
    assert dataset.sha256 == without.sha256
    for split in dataset.splits.values():
        assert np.array_equal(split.votes, sample.votes[split.rows])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("neutral,happiness", "happiness,neutral", ":1: not the header of FER+'s votes"),
        ("\nPublicTest", "\nTraining", "'Training' does not match the table's row 21, expected PublicTest"),
        ("\nTraining,fer0000003.png,", "\nTraining,fer0000003.png,x", ":5: expected usage, image name and 10 counts"),
        ("\nTraining,fer0000003.png,", "\nTraining,fer0000003.png,1,", ":5: expected usage, image name and 10 counts"),
    ],
)
def test_votes_that_do_not_fit(
    sample: Fer2013Sample, tmp_path: Path, cache: Path, old: str, new: str, message: str
) -> None:
    path, votes = sample.write_csv(tmp_path / "fer2013.csv"), sample.write_votes(tmp_path / "fer2013new.csv")
    votes.write_text(votes.read_text().replace("\r\n", "\n").replace(old, new, 1))
    assert message in read_error(f"fer2013:{path}", cache)


def test_votes_of_fewer_or_more_rows(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    path, votes = sample.write_csv(tmp_path / "fer2013.csv"), sample.write_votes(tmp_path / "fer2013new.csv")
    lines = votes.read_text().splitlines()
    votes.write_text("\n".join(lines[:-1]))
    assert "votes for 34 rows, expected 35" in read_error(f"fer2013:{path}", cache)
    votes.write_text("\n".join([*lines, lines[-1]]))
    assert "does not match the table's row 35, expected no more than 35 rows" in read_error(f"fer2013:{path}", cache)
