"""Runs a recognizer over a video source; counts, and writes only the outputs that are named."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from fer_edge.core.errors import DataError, OutputError
from fer_edge.core.files import scratch_file, writing
from fer_edge.core.json import encode
from fer_edge.runtime.annotate import annotate_frame, annotated_video, check_annotation_path, write_annotated_image
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.inference import NetworkInfo
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import FrameResult, VideoRecognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["RunOutputs", "RunSummary", "check_output", "run_source"]

_TIMES_KEPT: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """What a run writes; no other frame, crop or estimate is kept.

    Attributes:
        annotate: file of the annotated video, or of the annotated image for a photograph.
        records: JSON lines: a path, or an open text stream.
        overwrite: replace files that exist.
    """

    annotate: Path | None = None
    records: Path | TextIO | None = None
    overwrite: bool = False

    def check(self, source: VideoSource) -> None:
        """Refuse outputs that could not be written, before any work.

        Raises:
            InputError: a file name whose ending is no format for this source.
            OutputError: a file that exists, without `overwrite`.
        """
        if self.annotate is not None:
            check_annotation_path(self.annotate, still=source.kind == "image")
        for path in (self.annotate, self.records):
            if isinstance(path, Path):
                check_output(path, source=source.name, overwrite=self.overwrite)


def check_output(path: Path, *, source: str, overwrite: bool) -> None:
    """Refuse an output that must not be written.

    Raises:
        OutputError: a folder, the source itself, or a file that exists, without `overwrite`.
    """
    with writing(path):
        exists = path.exists()
    if not exists:
        return
    if path.is_dir():
        raise OutputError(f"{path}: got a folder, expected a file; choose another name")
    if os.path.exists(source) and path.samefile(source):
        raise OutputError(f"{path} is the source itself; choose another name")
    if not overwrite:
        raise OutputError(f"{path} exists; choose another name or pass --overwrite")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The results of a run.

    Attributes:
        source: as given.
        info: what ran.
        frames: frames read.
        frames_expected: as the file states, None where it does not.
        frames_with_face: frames with at least one tracked face.
        faces: number of tracks.
        driver_labels: number of frames by the driver's label.
        latency_ms: p50 and p99 of face detection (``detect``) and of tracking, crops, encoder and head (``recognise``),
            over the last 65,536 frames.
        seconds: duration of the run.
        interrupted: Ctrl-C ended a camera's run.
        lost: why the camera gave no more frames; None otherwise.
    """

    source: str
    info: NetworkInfo
    frames: int
    frames_expected: int | None
    frames_with_face: int
    faces: int
    driver_labels: Mapping[str, int]
    latency_ms: Mapping[str, Mapping[str, float]]
    seconds: float
    interrupted: bool
    lost: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(encode(self))


def run_source(
    recognizer: Recognizer,
    source: VideoSource,
    *,
    outputs: RunOutputs | None = None,
    detector: FaceDetector | None = None,
    whole_frame: bool = False,
    on_result: Callable[[FrameResult], None] | None = None,
) -> RunSummary:
    """Recognise every frame of a source.

    A camera's run ends with Ctrl-C, or when the camera gives no more frames (`RunSummary.lost`); outputs are written
    either way. In a file's run Ctrl-C is passed on, and nothing is written.

    Args:
        recognizer: stays open; the caller closes it.
        source: stays open; the caller closes it.
        outputs: what to write; nothing by default.
        detector: finds faces; `HaarDetector` by default.
        whole_frame: the frames are face crops; no detector runs.
        on_result: called after every frame.

    Raises:
        InputError: outputs that do not suit the source.
        DataError: a source that cannot be read.
        OutputError: an output that exists or cannot be written; no partial output is left.
        SessionError: no detector is available, or the engine failed on a photograph.
    """
    outputs = outputs or RunOutputs()
    outputs.check(source)
    video = VideoRecognizer(recognizer, detector=detector, clock=time.monotonic if source.live else None)
    counts = _Counts()
    started = time.perf_counter()
    interrupted = False
    with contextlib.ExitStack() as stack:
        emit = stack.enter_context(_record_writer(outputs.records))
        emit({"record": "run", "source": source.name, **recognizer.info.to_json()})
        pictures = None
        if outputs.annotate is not None and source.kind != "image":
            pictures = stack.enter_context(annotated_video(outputs.annotate, frame_rate=source.frame_rate))
        try:
            for frame in source:
                result = _recognise(video, frame, still=source.kind == "image", whole_frame=whole_frame)
                counts.add(result)
                emit({"record": "frame", **result.to_json()})
                if pictures is not None:
                    pictures.write(annotate_frame(frame.image, result.estimates))
                elif outputs.annotate is not None:
                    write_annotated_image(outputs.annotate, annotate_frame(frame.image, result.estimates))
                if on_result is not None:
                    on_result(result)
        except KeyboardInterrupt:
            if not source.live:
                raise
            interrupted = True
        summary = counts.summary(
            source=source, info=recognizer.info, seconds=time.perf_counter() - started, interrupted=interrupted
        )
        emit({"record": "summary", **summary.to_json()})
    return summary


def _recognise(video: VideoRecognizer, frame: SourceFrame, *, still: bool, whole_frame: bool) -> FrameResult:
    boxes = frame.boxes
    if whole_frame:
        rows, columns = frame.image.shape[:2]
        boxes = ((0.0, 0.0, float(columns), float(rows)),)
    if still:
        return video.process_still(frame.image, boxes=boxes)
    return video.process(frame.image, timestamp_s=frame.timestamp_s, boxes=boxes)


class _Counts:
    """Counts over the frames of one run in bounded memory, because a run may last for months."""

    def __init__(self) -> None:
        self._frames = 0
        self._with_face = 0
        self._faces = 0
        self._labels: Counter[str] = Counter()
        self._times_ms = {stage: deque[float](maxlen=_TIMES_KEPT) for stage in ("detect", "recognise")}

    def add(self, result: FrameResult) -> None:
        self._frames += 1
        self._with_face += bool(result.estimates)
        for estimate in result.estimates:  # track ids count from 1
            self._faces = max(self._faces, estimate.track_id or 0)
        if result.driver is not None:
            self._labels[result.driver.label] += 1
        self._times_ms["detect"].append(result.detect_ms)
        self._times_ms["recognise"].append(result.recognise_ms)

    def summary(self, *, source: VideoSource, info: NetworkInfo, seconds: float, interrupted: bool) -> RunSummary:
        if not self._frames and not interrupted:
            raise DataError(f"{source.name}: got no frame, expected at least one")
        latency_ms = {
            stage: {f"p{rank}": float(np.percentile(times, rank)) for rank in (50, 99)}
            for stage, times in self._times_ms.items()
            if times
        }
        return RunSummary(
            source=source.name,
            info=info,
            frames=self._frames,
            frames_expected=source.frames,
            frames_with_face=self._with_face,
            faces=self._faces,
            driver_labels=dict(self._labels.most_common()),
            latency_ms=latency_ms,
            seconds=seconds,
            interrupted=interrupted,
            lost=source.lost,
        )


@contextlib.contextmanager
def _record_writer(target: Path | TextIO | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes one record per line, to a stream at once or to a file that appears on success."""
    if target is None:
        yield lambda record: None
    elif not isinstance(target, Path):
        stream = target
        yield lambda record: _print(stream, record)
    else:
        with scratch_file(target) as scratch:
            with writing(target):
                file = scratch.open("w", encoding="utf-8")
            try:
                yield lambda record: _append(file, target, record)
            finally:
                with writing(target):
                    file.close()


def _print(stream: TextIO, record: Mapping[str, Any]) -> None:
    try:
        print(_line(record), end="", file=stream, flush=True)
    except BrokenPipeError:  # the reader closed its end
        raise
    except OSError as error:
        raise OutputError(f"cannot write the records: {error.strerror or error}") from error


def _append(file: TextIO, target: Path, record: Mapping[str, Any]) -> None:
    with writing(target):
        file.write(_line(record))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
