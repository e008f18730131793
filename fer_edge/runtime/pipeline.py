"""Runs a recognizer over a video source from its first frame to its last, and counts."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.json import encode
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.inference import NetworkInfo
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import FrameResult, VideoRecognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["RunSummary", "run_source"]

_TIMES_KEPT: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The results of a run.

    Attributes:
        source: as given.
        info: what ran.
        frames: frames read.
        frames_expected: as the file states, None where it does not.
        frames_skipped: frames that could not be read, with others after them.
        frames_with_face: frames with at least one recognised face.
        faces: number of tracks, up to the newest that was recognised; of photographs, of faces.
        driver_labels: number of frames by the driver's label.
        latency_ms: p50 and p99 of detection and tracking (``detect``) and of crops, encoder and head (``recognise``),
            over the last 65,536 frames.
        seconds: duration of the run.
        interrupted: Ctrl-C ended a camera's run.
        lost: why the camera gave no more frames; None otherwise.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import Recognizer, SourceFrame, VideoSource, run_source
        >>> drawn = (SourceFrame(image=np.zeros((48, 64, 3), np.uint8), timestamp_s=i / 10) for i in range(3))
        >>> source = VideoSource(drawn, name="mine", kind="file", frame_rate=10.0)
        >>> with Recognizer("nano") as recognizer:
        ...     run_source(recognizer, source, whole_frame=True).frames_with_face
        3
    """

    source: str
    info: NetworkInfo
    frames: int
    frames_expected: int | None
    frames_skipped: int
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
    detector: FaceDetector | None = None,
    tracking: TrackerOptions | None = None,
    whole_frame: bool = False,
    on_frame: Callable[[SourceFrame, FrameResult], None] | None = None,
) -> RunSummary:
    """Recognise every frame of a source; nothing is written and no frame is kept.

    A camera's run ends with Ctrl-C, or when the camera gives no more frames (`RunSummary.lost`). In a file's run Ctrl-C
    is passed on.

    Args:
        recognizer: stays open; the caller closes it.
        source: stays open; the caller closes it.
        detector: finds faces; `HaarDetector` by default.
        tracking: how faces are followed, who is the driver, and whether passengers are recognised.
        whole_frame: the frames are face crops; no detector runs.
        on_frame: called after every frame with the frame and its result.

    Raises:
        DataError: a source that cannot be read, or has no frame.
        SessionError: no detector is available, or the engine failed on a photograph.
    """
    clock = time.monotonic if source.live else None
    video = VideoRecognizer(recognizer, detector=detector, tracking=tracking, clock=clock)
    counts, still = _Counts(), source.kind == "image"
    started = time.perf_counter()
    interrupted = False
    try:
        for frame in source:
            result = _recognise(video, frame, still=still, whole_frame=whole_frame)
            if still:
                result = dataclasses.replace(result, index=counts.frames)
            counts.add(result, still=still)
            if on_frame is not None:
                on_frame(frame, result)
    except KeyboardInterrupt:
        if not source.live:
            raise
        interrupted = True
    seconds = time.perf_counter() - started
    return counts.summary(source=source, info=recognizer.info, seconds=seconds, interrupted=interrupted)


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
        self.frames = 0
        self._with_face = 0
        self._faces = 0
        self._labels: Counter[str] = Counter()
        self._times_ms = {stage: deque[float](maxlen=_TIMES_KEPT) for stage in ("detect", "recognise")}

    def add(self, result: FrameResult, *, still: bool = False) -> None:
        self.frames += 1
        self._with_face += bool(result.estimates)
        newest = max((estimate.track_id or 0 for estimate in result.estimates), default=0)  # ids count from 1
        self._faces = self._faces + newest if still else max(self._faces, newest)
        if result.driver is not None:
            self._labels[result.driver.label] += 1
        self._times_ms["detect"].append(result.detect_ms)
        self._times_ms["recognise"].append(result.recognise_ms)

    def summary(self, *, source: VideoSource, info: NetworkInfo, seconds: float, interrupted: bool) -> RunSummary:
        if not self.frames and not interrupted:
            raise DataError(f"{source.name}: got no frame, expected at least one")
        latency_ms = {
            stage: {f"p{rank}": float(np.percentile(times, rank)) for rank in (50, 99)}
            for stage, times in self._times_ms.items()
            if times
        }
        return RunSummary(
            source=source.name,
            info=info,
            frames=self.frames,
            frames_expected=source.frames,
            frames_skipped=source.skipped,
            frames_with_face=self._with_face,
            faces=self._faces,
            driver_labels=dict(self._labels.most_common()),
            latency_ms=latency_ms,
            seconds=seconds,
            interrupted=interrupted,
            lost=source.lost,
        )
