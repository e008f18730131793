"""Explains a photograph or a recording frame by frame, and draws the picture that the options name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fer_edge.bench.annotate import annotated_video, check_annotation_path, is_image_path, write_annotated_image
from fer_edge.bench.explain.drawing import draw_frame, draw_panel, draw_strip
from fer_edge.bench.explain.video import FrameExplanation, VideoExplainer
from fer_edge.core.errors import DataError, InputError
from fer_edge.core.files import expect_new
from fer_edge.core.json import expect
from fer_edge.core.json_report import JsonReport
from fer_edge.core.preprocess import crop_rectangle
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.inference import NetworkInfo
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_source import VideoSource

__all__ = ["ExplainOptions", "SourceExplanation", "explain_source"]


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What to explain, and what to write; nothing is written by default.

    Attributes:
        out: picture to write: an image for a photograph; a video, or an image of the last window, for a recording.
        occlusion: also cover the face's regions in turn (`face_maps`).
        whole_frame: the frames are face crops; no detector runs.
        until_s: end of the part to explain, in seconds from the recording's start.
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
        if source.kind == "image" and source.frames != 1:
            raise InputError(f"source: got {source.frames} photographs, expected one; explain them one by one")
        if self.out is not None:
            check_annotation_path(self.out, still=self.draws_image(source))
            expect_new(self.out, overwrite=self.overwrite, inputs=[source.name])

    def draws_image(self, source: VideoSource) -> bool:
        """Return whether `out` is one image: of a photograph, or of a recording's last window."""
        return source.kind == "image" or (self.out is not None and is_image_path(self.out))


@dataclass(frozen=True, kw_only=True)
class SourceExplanation(JsonReport):
    """The explanations of a source's frames.

    Attributes:
        source: as given.
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
    frames: list[FrameExplanation] = []
    with contextlib.ExitStack() as stack:
        video = None
        if options.out is not None and not options.draws_image(source):
            video = stack.enter_context(annotated_video(options.out, frame_rate=source.frame_rate))
        for frame in source:
            if options.until_s is not None and frame.timestamp_s > options.until_s:
                break
            boxes = frame.boxes
            if options.whole_frame:
                boxes = ((0.0, 0.0, float(frame.image.shape[1]), float(frame.image.shape[0])),)
            if source.kind == "image":
                found = explainer.process_still(frame.image, boxes=boxes)
            else:
                found = explainer.process(frame.image, timestamp_s=frame.timestamp_s, boxes=boxes)
            frames.append(found)
            if video is not None:
                box, spec = found.box_xyxy, recognizer.manifest.preprocess
                drawn = draw_frame(frame.image, found, box and crop_rectangle(frame.image, box, spec))
                video.write(drawn, timestamp_s=frame.timestamp_s)
            if on_frame is not None:
                on_frame(found)
    if not frames:
        raise DataError(f"{source.name}: got no frame, expected at least one")
    explained = [frame for frame in frames if frame.face is not None]
    if options.out is not None and options.draws_image(source):
        _write_last_window(options.out, explainer, explained, source)
    grid = len(explained[0].face.attention) if explained and explained[0].face else 0
    return SourceExplanation(source=source.name, info=recognizer.info, grid=grid, frames=tuple(frames))


def _write_last_window(
    out: Path, explainer: VideoExplainer, explained: list[FrameExplanation], source: VideoSource
) -> None:
    """Write the panel of a photograph's face, or the strip of a recording's last window."""
    if not explained:
        raise DataError(f"{source.name}: got no face to draw, expected at least one; for face crops pass --whole-frame")
    faces, newest = explainer.window_faces, explained[-1]
    assert newest.face is not None
    drawn = draw_panel(faces[0].crop, newest.face) if newest.window is None else draw_strip(faces, newest)
    write_annotated_image(out, drawn)
