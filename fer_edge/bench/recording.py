"""Records a run: estimates as JSON lines, and annotated video or images, written atomically."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fer_edge.bench.annotate import annotate_frame, annotated_video, check_annotation_path, write_annotated_image
from fer_edge.core.errors import OutputError
from fer_edge.core.files import expect_new, scratch_file, writing
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.pipeline import RunSummary, run_source
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import FrameResult
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["RunOutputs", "record_run"]


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """What a run writes; no other frame, crop or estimate is kept.

    Attributes:
        annotate: file of the annotated video, or of the annotated image for a photograph.
        records: JSON lines: a path, or an open text stream.
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
                expect_new(path, overwrite=self.overwrite, inputs=[source.name])


def record_run(
    recognizer: Recognizer,
    source: VideoSource,
    *,
    outputs: RunOutputs | None = None,
    detector: FaceDetector | None = None,
    tracking: TrackerOptions | None = None,
    whole_frame: bool = False,
    on_result: Callable[[FrameResult], None] | None = None,
) -> RunSummary:
    """Recognise every frame of a source (`run_source`) and write the outputs.

    The outputs are written when the run ends by itself, or a camera's run with Ctrl-C; otherwise nothing is written.

    Args:
        recognizer: stays open; the caller closes it.
        source: stays open; the caller closes it.
        outputs: what to write; nothing by default.
        detector: finds faces; `HaarDetector` by default.
        tracking: how faces are followed, who is the driver, and whether passengers are recognised.
        whole_frame: the frames are face crops; no detector runs.
        on_result: called after every frame.

    Raises:
        InputError: outputs that do not suit the source.
        OutputError: an output that exists or cannot be written; no partial output is left.
        DataError, SessionError: as `run_source`.
    """
    outputs = outputs or RunOutputs()
    outputs.check(source)
    still = source.kind == "image"
    with contextlib.ExitStack() as stack:
        emit = stack.enter_context(_record_writer(outputs.records))
        emit({"record": "run", "source": source.name, **recognizer.info.to_json()})
        video = None
        if outputs.annotate is not None and not still:
            video = stack.enter_context(annotated_video(outputs.annotate, frame_rate=source.frame_rate))

        def write(frame: SourceFrame, result: FrameResult) -> None:
            emit({"record": "frame", **result.to_json()})
            if video is not None:
                video.write(annotate_frame(frame.image, result.estimates), timestamp_s=frame.timestamp_s)
            elif outputs.annotate is not None:
                write_annotated_image(outputs.annotate, annotate_frame(frame.image, result.estimates))
            if on_result is not None:
                on_result(result)

        summary = run_source(
            recognizer, source, detector=detector, tracking=tracking, whole_frame=whole_frame, on_frame=write
        )
        emit({"record": "summary", **summary.to_json()})
    return summary


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
