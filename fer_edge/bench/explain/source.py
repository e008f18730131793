"""Explains a photograph or a recording frame by frame, and draws the picture that the options name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_edge.bench.annotate import (
    AnnotatedVideo,
    annotated_video,
    check_annotation_path,
    is_image_path,
    write_annotated_image,
)
from fer_edge.bench.explain.drawing import draw_frame, draw_panel, draw_strip
from fer_edge.bench.explain.video import FrameExplanation, VideoExplainer
from fer_edge.bench.recording import check_output
from fer_edge.core.errors import DataError, InputError
from fer_edge.core.json import encode, expect
from fer_edge.core.preprocess import PreprocessSpec, crop_rectangle
from fer_edge.core.types import Uint8
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.inference import NetworkInfo
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["ExplainOptions", "SourceExplanation", "explain_source"]


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What to explain, and what to write; nothing is written by default.

    Attributes:
        out: picture to write: an image for a photograph; a video, or an image of the last window, for a recording.
        occlusion: also cover the face's regions in turn (`face_maps`).
        whole_frame: the frames are face crops; no detector runs.
        until_s: end of the part to explain, in seconds from the recording's start.
        overwrite: replace a file that exists.
    """

    out: Path | None = None
    occlusion: bool = False
    whole_frame: bool = False
    until_s: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        expect(self.until_s is None or self.until_s >= 0, "until_s", self.until_s, "0 seconds or more")

    def check(self, source: VideoSource) -> None:
        """Refuse sources that cannot be explained and outputs that cannot be written, before any work.

        Raises:
            InputError: a live source, or a file name whose ending is no format for it.
            OutputError: a file that exists, without `overwrite`.
        """
        if source.live:
            raise InputError(f"source: got the live {source.name}, expected a photograph or a recording")
        if self.out is not None:
            still = source.kind == "image" or is_image_path(self.out)
            check_annotation_path(self.out, still=still)
            check_output(self.out, source=source.name, overwrite=self.overwrite)


@dataclass(frozen=True, kw_only=True)
class SourceExplanation:
    """The explanations of a source's frames.

    Attributes:
        source: as given.
        info: what ran.
        grid: regions along each side of a face, the resolution of every map.
        frames: one per frame.
    """

    source: str
    info: NetworkInfo
    grid: int
    frames: tuple[FrameExplanation, ...]

    @property
    def explained(self) -> tuple[FrameExplanation, ...]:
        """The frames with a face."""
        return tuple(frame for frame in self.frames if frame.face is not None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(encode(self))


def explain_source(
    recognizer: Recognizer,
    source: VideoSource,
    *,
    options: ExplainOptions | None = None,
    detector: FaceDetector | None = None,
    on_frame: Callable[[FrameExplanation], None] | None = None,
) -> SourceExplanation:
    """Explain the driver's face in every frame, and write the picture that `options` names.

    Args:
        recognizer: stays open; the caller closes it.
        source: a photograph, a recording or drawn faces; stays open; the caller closes it.
        options: what to explain and to write.
        detector: finds faces; `HaarDetector` by default.
        on_frame: called after every frame.

    Raises:
        InputError: a live source.
        DataError: a source that cannot be read, or has no face to draw.
        OutputError: an output that exists or cannot be written; no partial output is left.
        SessionError: no detector is available, or the engine failed.
    """
    options = options or ExplainOptions()
    options.check(source)
    explainer = VideoExplainer(recognizer, detector=detector, occlusion=options.occlusion)
    still = source.kind == "image"
    frames: list[FrameExplanation] = []
    with contextlib.ExitStack() as stack:
        picture = _picture(options, recognizer, source, explainer, stack)
        for frame in source:
            if options.until_s is not None and frame.timestamp_s > options.until_s:
                break
            boxes = _whole(frame) if options.whole_frame else frame.boxes
            if still:
                found = explainer.process_still(frame.image, boxes=boxes)
            else:
                found = explainer.process(frame.image, timestamp_s=frame.timestamp_s, boxes=boxes)
            frames.append(found)
            picture.add(frame.image, found)
            if on_frame is not None:
                on_frame(found)
        picture.finish()
    if not frames:
        raise DataError(f"{source.name}: got no frame, expected at least one")
    grid = next((len(frame.face.attention) for frame in frames if frame.face is not None), 0)
    return SourceExplanation(source=source.name, info=recognizer.info, grid=grid, frames=tuple(frames))


def _whole(frame: SourceFrame) -> tuple[BoxXyxy, ...]:
    rows, columns = frame.image.shape[:2]
    return ((0.0, 0.0, float(columns), float(rows)),)


class _Picture:
    """Draws nothing."""

    def add(self, image: Uint8, frame: FrameExplanation) -> None:
        """Add a frame."""

    def finish(self) -> None:
        """Finish after the last frame."""


class _Video(_Picture):
    """Draws every frame into a video."""

    def __init__(self, file: AnnotatedVideo, spec: PreprocessSpec) -> None:
        self._file = file
        self._spec = spec

    def add(self, image: Uint8, frame: FrameExplanation) -> None:
        rectangle = None if frame.box_xyxy is None else crop_rectangle(image, frame.box_xyxy, self._spec)
        self._file.write(draw_frame(image, frame, rectangle))


class _Still(_Picture):
    """Draws the last face or window at the end: a panel, or a strip."""

    def __init__(self, out: Path, explainer: VideoExplainer, source: VideoSource) -> None:
        self._out = out
        self._explainer = explainer
        self._source = source
        self._newest: FrameExplanation | None = None

    def add(self, image: Uint8, frame: FrameExplanation) -> None:
        if frame.face is not None:
            self._newest = frame

    def finish(self) -> None:
        faces, newest = self._explainer.window_faces, self._newest
        if newest is None or newest.face is None:
            raise DataError(
                f"{self._source.name}: got no face to draw, expected at least one; for face crops pass --whole-frame"
            )
        drawn = draw_panel(faces[0].crop, newest.face) if newest.window is None else draw_strip(faces, newest)
        write_annotated_image(self._out, drawn)


def _picture(
    options: ExplainOptions,
    recognizer: Recognizer,
    source: VideoSource,
    explainer: VideoExplainer,
    stack: contextlib.ExitStack,
) -> _Picture:
    if options.out is None:
        return _Picture()
    if source.kind == "image" or is_image_path(options.out):
        return _Still(options.out, explainer, source)
    file = stack.enter_context(annotated_video(options.out, frame_rate=source.frame_rate))
    return _Video(file, recognizer.manifest.preprocess)
