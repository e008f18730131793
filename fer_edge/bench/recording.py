"""Records a run: estimates as JSON lines, and annotated video or images, written atomically."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from fer_edge.bench.annotate import (
    annotate_frame,
    annotated_video,
    check_annotation_path,
    is_image_path,
    pixelate,
    write_annotated_image,
)
from fer_edge.bench.picture_files import PictureSource
from fer_edge.bench.source_run import CameraOptions, RunSummary, run_source
from fer_edge.core.errors import InputError, OutputError
from fer_edge.core.files import expect_new, output_folder, scratch_file, writing
from fer_edge.core.types import Uint8
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.live_result import LiveResult
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import FrameResult
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["RunOutputs", "record_run"]


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """What a run writes; no other frame, crop or estimate is kept.

    Attributes:
        annotate: file of the annotated video, or of the annotated image for a photograph; a folder for several.
        records: JSON lines: a path, or an open text stream.
        csv: table of the estimates, a row per face and frame.
        anonymise: pixelate the faces in the annotated frames (`pixelate`).
        overwrite: replace files that exist.
    """

    annotate: Path | None = None
    records: Path | TextIO | None = None
    csv: Path | None = None
    anonymise: bool = False
    overwrite: bool = False

    def check(self, source: VideoSource) -> None:
        """Refuse outputs that could not be written, before any work.

        Raises:
            InputError: a file name whose ending is no format for this source.
            OutputError: a file that exists, without `overwrite`.
        """
        if self.anonymise and self.annotate is None:
            raise InputError("anonymise: got no annotated output, expected one; name its file with --annotate")
        many = isinstance(source, PictureSource)
        if self.annotate is not None and not many:
            check_annotation_path(self.annotate, still=source.kind == "image")
        for path in (self.annotate, self.records, self.csv):
            if isinstance(path, Path):
                folder = many and path is self.annotate
                expect_new(path, overwrite=self.overwrite, inputs=[source.name], folder=folder)


def record_run(
    recognizer: Recognizer,
    source: VideoSource,
    *,
    outputs: RunOutputs | None = None,
    detector: FaceDetector | None = None,
    tracking: TrackerOptions | None = None,
    whole_frame: bool = False,
    on_result: Callable[[FrameResult], None] | None = None,
    camera: CameraOptions | None = None,
) -> RunSummary:
    """Recognise every frame of a source (`run_source`) and write the outputs.

    The outputs are written when the run ends by itself, or a camera's run with Ctrl-C; otherwise nothing is written.
    Records of a camera that go into a pipe are left out while nobody reads it.

    Args:
        recognizer: stays open; the caller closes it.
        source: stays open; the caller closes it.
        outputs: what to write; nothing by default.
        detector: finds faces; `HaarDetector` by default.
        tracking: how faces are followed, who is the driver, and whether passengers are recognised.
        whole_frame: the frames are face crops; no detector runs.
        on_result: called after every frame.
        camera: how a camera's run is watched and kept going.

    Raises:
        InputError: outputs that do not suit the source.
        OutputError: an output that exists or cannot be written; no partial output is left.
        DataError, SessionError: as `run_source`.
    """
    outputs = outputs or RunOutputs()
    outputs.check(source)
    with contextlib.ExitStack() as stack:
        emit = stack.enter_context(_record_writer(outputs.records, live=source.live))
        emit({"record": "run", "source": source.name, **recognizer.info.to_json()})
        tabulate = stack.enter_context(_table_writer(outputs.csv, recognizer.labels))
        draw = stack.enter_context(_drawing(outputs, source))

        def write(frame: SourceFrame, result: FrameResult) -> None:
            name = {} if frame.name is None else {"source": frame.name}
            emit({"record": "frame", **name, **result.to_json()})
            tabulate(frame.name or source.name, result)
            draw(frame, result)
            if on_result is not None:
                on_result(result)

        camera = camera or CameraOptions()
        on_state = camera.on_state

        def tell(result: LiveResult) -> None:
            emit({"record": "state", "state": result.state, "because": result.state_because})
            on_state(result)

        summary = run_source(
            recognizer,
            source,
            detector=detector,
            tracking=tracking,
            whole_frame=whole_frame,
            on_frame=write,
            camera=dataclasses.replace(camera, on_state=tell),
        )
        for fault in source.unread if isinstance(source, PictureSource) else ():
            emit({"record": "unread", "error": fault})
        emit({"record": "summary", **summary.to_json()})
    return summary


@contextlib.contextmanager
def _drawing(outputs: RunOutputs, source: VideoSource) -> Iterator[Callable[[SourceFrame, FrameResult], None]]:
    """Yield a function that draws a frame's estimates into the annotated video, photograph or folder."""
    path = outputs.annotate

    def drawn(frame: SourceFrame, result: FrameResult) -> Uint8:
        image = pixelate(frame.image, result.boxes) if outputs.anonymise else frame.image
        return annotate_frame(image, result.estimates)

    if path is None:
        yield lambda frame, result: None
    elif isinstance(source, PictureSource):
        with output_folder(path, overwrite=outputs.overwrite) as folder:

            def draw(frame: SourceFrame, result: FrameResult) -> None:
                place = folder / Path(frame.name or "").name
                if place.exists():  # of another folder
                    place = folder / f"{result.index}-{place.name}"
                place = place if is_image_path(place) else place.with_name(f"{place.name}.png")
                write_annotated_image(place, drawn(frame, result))

            yield draw
    elif source.kind == "image":
        yield lambda frame, result: write_annotated_image(path, drawn(frame, result))
    else:
        with annotated_video(path, frame_rate=source.frame_rate) as video:
            yield lambda frame, result: video.write(drawn(frame, result), timestamp_s=frame.timestamp_s)


_FIELDS: Final = ("track_id", "driver", "state", "state_because", "label", "unknown_because", "quality", "probability")


@contextlib.contextmanager
def _table_writer(target: Path | None, labels: Sequence[str]) -> Iterator[Callable[[str, FrameResult], None]]:
    """Yield a function that writes a row per face, or one without a face, to a CSV file that appears on success."""
    if target is None:
        yield lambda name, result: None
        return
    with scratch_file(target) as scratch:
        with writing(target):
            file = scratch.open("w", encoding="utf-8", newline="")
        try:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["source", "index", "timestamp_s", *_FIELDS, "left", "top", "right", "bottom", *labels])

            def tabulate(name: str, result: FrameResult) -> None:
                start = [name, result.index, f"{result.timestamp_s:.6f}"]
                for each in result.estimates or (None,):
                    fields: list[Any] = [""] * (len(_FIELDS) + 4 + len(labels))
                    if each is not None:
                        box = [f"{edge:.1f}" for edge in each.box_xyxy or ()] or [""] * 4
                        found = each.probabilities
                        shares = [f"{found[label]:.6f}" if label in found else "" for label in labels]
                        values = {**{name: getattr(each, name) for name in _FIELDS}, "quality": _rounded(each.quality)}
                        values["probability"] = _rounded(each.probability) if found else ""
                        fields = [*values.values(), *box, *shares]
                    with writing(target):
                        table.writerow(start + fields)

            yield tabulate
        finally:
            with writing(target):
                file.close()


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


@contextlib.contextmanager
def _record_writer(target: Path | TextIO | None, *, live: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes one record per line, to a stream at once or to a file that appears on success."""
    if target is None:
        yield lambda record: None
    elif not isinstance(target, Path):
        stream = target
        yield lambda record: None if live and _is_full(stream) else _print(stream, record)
    else:
        with scratch_file(target) as scratch:
            with writing(target):
                file = scratch.open("w", encoding="utf-8")
            try:
                yield lambda record: _append(file, target, record)
            finally:
                with writing(target):
                    file.close()


def _is_full(stream: TextIO) -> bool:
    """Tell whether a write could wait for a reader; a pipe that is not full takes a line of 4 KiB as a whole."""
    try:
        return not select.select([], [stream], [], 0)[1]
    except (OSError, ValueError):  # no file of the system
        return False


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
