from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fer_edge.core.errors import DataError
from fer_edge.core.files import default_cache_folder
from fer_edge.core.types import Progress, no_progress
from fer_edge.data import Dataset, StillSet
from fer_edge.data.cache import ReadPlan, cached


class Source:
    """A file whose bytes are the images, and how often it was decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decoded = 0
        self.path.write_bytes(bytes(range(48)))

    def plan(self, **replaced: object) -> ReadPlan:
        fields = {
            "name": "fer2013",
            "root": self.path,
            "files": [self.path],
            "version": 1,
            "read": self._read,
        } | replaced
        return ReadPlan(**fields)

    def _read(self, progress: Progress) -> Dataset:
        self.decoded += 1
        images = np.frombuffer(self.path.read_bytes(), np.uint8).reshape(3, 4, 4)
        split = StillSet(
            name="Training",
            images=images,
            labels=np.array([0, 3, 6]),
            rows=np.arange(3),
            votes=np.ones((3, 10), np.uint8),
            groups=np.array(["S001", "S002", "S002"]),
        )
        return Dataset(
            name="fer2013",
            source="x",
            layout="csv",
            splits={"Training": split},
            roles={"train": "Training"},
            note="Only one split.",
        )


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source.bin")


def load(source: Source, cache: Path, **replaced: object) -> Dataset:
    return cached(source.plan(**replaced), folder=cache, progress=no_progress)


def test_the_second_opening_maps_what_the_first_decoded(source: Source, cache: Path) -> None:
    first, second = load(source, cache), load(source, cache)
    assert source.decoded == 1
    assert isinstance(second.split("train").images.base, np.memmap)
    assert (second.cache, second.layout, second.note) == (first.cache, "csv", "Only one split.")
    for column in ("images", "labels", "rows", "votes", "groups"):
        assert np.array_equal(getattr(first.split("train"), column), getattr(second.split("train"), column))
    assert second.sha256 == source.plan().read(no_progress).sha256


def test_a_changed_source_reader_or_option_is_decoded_anew(source: Source, cache: Path) -> None:
    load(source, cache)
    source.path.write_bytes(bytes(48))
    assert load(source, cache).split("train").images.max() == 0
    os.utime(source.path, ns=(1, 1))
    load(source, cache)
    load(source, cache, version=2)
    load(source, cache, version=2, options="size=96")
    assert source.decoded == 5
    load(source, cache, version=2)
    assert source.decoded == 5
    assert len(list(cache.iterdir())) == 2, "one folder a source and its options; stale arrays do not pile up"


@pytest.mark.parametrize("name", ["0-images.npy", "0-labels.npy", "0-votes.npy", "0-groups.npy"])
def test_a_flipped_byte_is_noticed_and_mended(source: Source, cache: Path, name: str) -> None:
    reference = load(source, cache)
    assert reference.cache is not None
    file = reference.cache / name
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    del reference
    file.write_bytes(damaged)
    assert load(source, cache).split("train").labels.tolist() == [0, 3, 6]
    assert source.decoded == 2
    load(source, cache)
    assert source.decoded == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": {}}', None])
def test_a_damaged_index_is_mended(source: Source, cache: Path, text: str | None) -> None:
    folder = load(source, cache).cache
    assert folder is not None
    index = folder / "index.json"
    if text is None:
        value = json.loads(index.read_text())
        value["dataset"] = {"name": "fer2013"}
        text = json.dumps(value)
    index.write_text(text)
    load(source, cache)
    load(source, cache)
    assert source.decoded == 2


def test_a_missing_array_is_mended(source: Source, cache: Path) -> None:
    folder = load(source, cache).cache
    assert folder is not None
    (folder / "0-rows.npy").unlink()
    assert load(source, cache).split("train").rows.tolist() == [0, 1, 2]


def test_a_cache_that_cannot_be_written_costs_time_only(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    occupied = tmp_path / "cache"
    occupied.write_text("a file stands here")
    with caplog.at_level(logging.WARNING):
        dataset = load(source, occupied)
    assert dataset.cache is None
    assert dataset.split("train").labels.tolist() == [0, 3, 6]
    assert "decoded but not cached" in caplog.text
    assert occupied.read_text() == "a file stands here"


LOAD = """
import os, resource, sys
from pathlib import Path
from fer_edge.data import class_folders, load_dataset
from fer_edge.data.image_files import read_grey
spec, cache, harm = sys.argv[1:]
read_grey(next(Path(spec.partition(":")[2]).glob("*/*")))
if harm == "unprivileged":
    os.setuid(65534)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
dataset = load_dataset(spec, cache=Path(cache))
print(dataset.cache, len(dataset.split("report")))
"""


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(
            "unprivileged",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an unprivileged user"),
        ),
        "disk full",
    ],
)
def test_a_folder_that_refuses_files_stays_as_it_was(harm: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        for number in range(4):
            face = root / "faces" / "happy" / f"{number}.pgm"
            face.parent.mkdir(parents=True, exist_ok=True)
            face.write_bytes(b"P5 48 48 255\n" + bytes([number]) * 48 * 48)
        (root / "cache").mkdir(mode=0o755)
        command = [sys.executable, "-c", LOAD, f"folder:{root / 'faces'}", str(root / "cache"), harm]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.stdout == "None 4\n", run.stderr
        assert "decoded but not cached" in run.stderr
        assert list((root / "cache").iterdir()) == []


def test_an_error_while_decoding_leaves_no_cache(source: Source, cache: Path) -> None:
    def fails(progress: Progress) -> Dataset:
        raise DataError("row 7 is short")

    with pytest.raises(DataError, match="row 7"):
        load(source, cache, read=fails)
    assert not cache.exists()


def test_a_source_file_that_went_away_is_named(source: Source, cache: Path) -> None:
    plan = source.plan(files=[source.path.with_name("gone.csv")])
    with pytest.raises(DataError, match=r"cannot read .*gone\.csv"):
        cached(plan, folder=cache, progress=no_progress)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FER_EDGE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_folder() == tmp_path / "own"
    monkeypatch.delenv("FER_EDGE_CACHE")
    assert default_cache_folder() == tmp_path / "xdg" / "fer-edge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "fer-edge"
