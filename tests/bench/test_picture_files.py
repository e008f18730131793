from __future__ import annotations

import csv
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_bundle
from trees import read_error

from fer_edge.bench.picture_files import picture_files
from fer_edge.cli import main
from fer_edge.core.errors import DataError, InputError
from fer_edge.data import load_dataset
from fer_edge.demo.drawn_source import open_any_source
from fer_edge.runtime.video_source import open_source


def _picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """frame_2.png, frame_9.png, frame_10.png and, in a folder, frame_1.png."""
    for seed, name in enumerate(["frame_10.png", "frame_2.png", "frame_9.png", "more/frame_1.png"]):
        _picture(tmp_path / "faces" / name, seed)
    return tmp_path / "faces"


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("faces", ["frame_10.png", "frame_2.png", "frame_9.png"]),
        ("faces/frame_%d.png", ["frame_2.png", "frame_9.png", "frame_10.png"]),
        ("faces/frame_%02d.png", ["frame_2.png", "frame_9.png", "frame_10.png"]),
        ("faces/*_[29].png", ["frame_2.png", "frame_9.png"]),
        ("faces/**/*.png", ["frame_10.png", "frame_2.png", "frame_9.png", "more/frame_1.png"]),
        ("faces/list.txt", ["frame_9.png", "more/frame_1.png"]),
    ],
)
def test_many_photographs_in_order(faces: Path, monkeypatch: pytest.MonkeyPatch, spec: str, names: list[str]) -> None:
    monkeypatch.chdir(faces.parent)
    if spec.endswith(".txt"):
        Path(spec).write_text("frame_9.png\n\n  more/frame_1.png\n", "utf-8")
    with open_any_source(spec) as source:
        assert (source.kind, source.frames, source.live) == ("image", len(names), False)
        assert [frame.name for frame in source] == [f"faces/{name}" for name in names]


@pytest.mark.parametrize("name", ["face_%d.png", "face[1].png", "face*.png", "photo.txt"])
def test_a_file_that_exists_is_no_pattern(tmp_path: Path, name: str) -> None:
    path = _picture(tmp_path / name)
    assert picture_files(str(path)) is None
    with open_any_source(str(path)) as source:
        assert source.frames == 1


@pytest.mark.parametrize("spec", ["0", "rtsp://camera/*", "a ! b %d", "synthetic:happy", "gone.png"])
def test_other_sources_are_none(spec: str) -> None:
    assert picture_files(spec) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("faces/*.jpg", "names no file"),
        ("empty", "names no file"),
        ("gone/frame_%d.png", "cannot list gone"),
        ("wrong.txt", "wrong.txt, line 2: got 'gone.png'"),
    ],
)
def test_what_names_nothing_is_refused(faces: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.chdir(faces.parent)
    Path("empty").mkdir()
    Path("wrong.txt").write_text("faces/frame_2.png\ngone.png\n")
    with pytest.raises(InputError, match=message):
        open_any_source(spec)


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


class TestRun:
    @pytest.fixture(autouse=True)
    def _here(self, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        tiny_bundle(tmp_path / "bundle")

    def test_a_record_a_row_and_a_picture_each(self, faces: Path) -> None:
        (faces / "frame_3.png").write_bytes((faces / "frame_2.png").read_bytes()[:40])
        arguments = ("bundle", "--source", "faces/**/*.png", "--whole-frame")
        done = _run(*arguments, "--json", "seen.jsonl", "--csv", "seen.csv", "--annotate", "seen")
        assert done.exit_code == 0, done.stderr
        assert "skipped: faces/frame_3.png: 40 bytes that cannot be decoded" in done.stderr
        names = ["faces/frame_10.png", "faces/frame_2.png", "faces/frame_9.png", "faces/more/frame_1.png"]
        first, *frames, unread, last = map(json.loads, Path("seen.jsonl").read_text("utf-8").splitlines())
        assert [(frame["source"], frame["index"]) for frame in frames] == list(zip(names, range(4), strict=True))
        assert all(frame["estimates"][0]["state"] == "OK" for frame in frames)
        assert first["source"] == "faces/**/*.png"
        assert unread["record"] == "unread"
        assert (last["frames"], last["faces"], last["frames_skipped"]) == (4, 4, 1)
        with open("seen.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["source"] for row in rows] == names
        for row, frame in zip(rows, frames, strict=True):
            [estimate] = frame["estimates"]
            assert row["label"] == estimate["label"]
            assert float(row["right"]) == 24
            for label, probability in estimate["probabilities"].items():
                assert float(row[label]) == pytest.approx(probability, abs=1e-6)
        assert sorted(path.name for path in Path("seen").iterdir()) == sorted(Path(name).name for name in names)
        assert _run(*arguments, "--annotate", "seen").exit_code == 1
        assert _run(*arguments, "--annotate", "seen", "--overwrite").exit_code == 0

    def test_a_frame_without_a_face_has_a_row(self) -> None:
        done = _run("bundle", "--source", "faces/frame_2.png", "--csv", "seen.csv")
        assert done.exit_code == 0, done.stderr
        [row] = csv.DictReader(Path("seen.csv").read_text("utf-8").splitlines())
        assert (row["source"], row["index"], row["label"]) == ("faces/frame_2.png", "0", "")

    def test_a_folder_with_a_video_or_nothing_readable(self, faces: Path) -> None:
        writer = cv2.VideoWriter(str(faces / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.release()
        done = _run("bundle", "--source", "faces", "--whole-frame", "--csv", "seen.csv")
        assert done.exit_code == 1
        assert "clip.avi, a video" in done.stderr
        assert not Path("seen.csv").exists()
        Path("bad").mkdir()
        Path("bad/a.png").write_text("no picture")
        assert _run("bundle", "--source", "bad").exit_code == 1


def _huge(path: Path) -> Path:
    """A PNG of 40000x30000 pixels of one bit, more than OpenCV reads."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 30_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(5_001) * 30_000, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_a_picture_too_large_for_the_library_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every command that reads pictures."""
    path = _huge(tmp_path / "data" / "train" / "happy" / "huge.png")
    message = "huge.png: cannot be decoded as an image"
    with pytest.raises(DataError, match=message):
        open_source(str(path))
    assert message in read_error(f"folder:{tmp_path / 'data'}", cache)
    bundle = tiny_bundle(tmp_path / "bundle")
    run = ["run", bundle, "--source"]
    for command in ([*run, path], [*run, path.parent], ["explain", bundle, path]):
        done = CliRunner().invoke(main, [str(each) for each in command])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit)


def test_class_folders_take_pictures_by_content(tmp_path: Path, cache: Path) -> None:
    for number, name in enumerate(["a.jfif", "b.JPE", "c", "d.png"]):
        _picture(tmp_path / "set" / "happy" / name, number)
    with open_source(str(tmp_path / "set" / "happy" / "c")) as source:
        assert source.kind == "image"
    assert len(load_dataset(f"folder:{tmp_path / 'set'}", cache=cache).split("report").labels) == 4
    (tmp_path / "set" / "happy" / "notes").write_text("none")
    assert "notes: expected only images" in read_error(f"folder:{tmp_path / 'set'}", cache)
