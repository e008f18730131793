"""Runs a recognizer over a video source in overlapping stages, and counts."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.json import encode
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.estimate import State
from fer_edge.runtime.frame_reader import FrameReader
from fer_edge.runtime.health import Health
from fer_edge.runtime.inference import NetworkInfo
from fer_edge.runtime.live import LiveRecognizer
from fer_edge.runtime.live_options import LiveOptions
from fer_edge.runtime.live_result import LiveResult
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import FrameResult, VideoRecognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["CameraOptions", "RunSummary", "run_source"]

_TIMES_KEPT: Final = 65_536
_RESULTS_KEPT: Final = 4  # each with its frame


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The results of a run.

    Attributes:
        source: as given.
        info: what ran.
        frames: frames recognised.
        frames_expected: as the file states, None where it does not.
        frames_skipped: frames that could not be read, with others after them, or not be used.
        frames_dropped: frames of a camera that a newer one replaced, or whose result was not taken in time.
        reopened: how often a lost camera gave frames again.
        frames_with_face: frames with at least one recognised face.
        faces: number of tracks, up to the newest that was recognised; of photographs, of faces.
        driver_labels: number of frames by the driver's label.
        latency_ms: p50 and p99 of detection and tracking (``detect``) and of crops, encoder and head (``recognise``),
            over the last 65,536 frames.
        seconds: duration of the run.
        interrupted: Ctrl-C ended a camera's run.
        lost: why the camera gave no frames at the end; None otherwise.

    Example:
        >>> import numpy as np
        >>> from fer_edge.bench.source_run import run_source
        >>> from fer_edge.runtime import Recognizer, SourceFrame, VideoSource
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
    frames_dropped: int
    reopened: int
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


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """How a camera's run is watched and kept going.

    Attributes:
        live: options of the `LiveRecognizer`; `LiveOptions.tracking` is replaced by that of the run.
        reopen: opens a lost camera again; without it the run ends.
        on_live: called once with the running recogniser.
        on_state: called with every result whose state differs from the one before; such a result may have no frame.
    """

    live: LiveOptions = field(default_factory=LiveOptions)
    reopen: Callable[[], VideoSource] | None = None
    on_live: Callable[[LiveRecognizer], object] = lambda live: None
    on_state: Callable[[LiveResult], object] = lambda result: None


def run_source(
    recognizer: Recognizer,
    source: VideoSource,
    *,
    detector: FaceDetector | None = None,
    tracking: TrackerOptions | None = None,
    whole_frame: bool = False,
    on_frame: Callable[[SourceFrame, FrameResult], None] | None = None,
    camera: CameraOptions | None = None,
) -> RunSummary:
    """Recognise the frames of a source; nothing is written and no frame is kept.

    Reading, recognition and `on_frame` overlap: the first two have threads of their own. Of a recording every frame is
    recognised; of a camera the newest one, and frames that arrive meanwhile are dropped. A frame that cannot be used is
    skipped. A camera's run ends with Ctrl-C, or when the camera is lost and nothing opens it again
    (`RunSummary.lost`). In a file's run Ctrl-C is passed on.

    Args:
        recognizer: stays open; the caller closes it.
        source: stays open; the caller closes it.
        detector: finds faces; `HaarDetector` by default.
        tracking: how faces are followed, who is the driver, and whether passengers are recognised.
        whole_frame: the frames are face crops; no detector runs.
        on_frame: called after every frame with the frame and its result.
        camera: how a camera's run is watched and kept going.

    Raises:
        DataError: a source that cannot be read, or has no frame.
        SessionError: no detector is available, or the engine failed on a photograph.
    """
    counts, camera = _Counts(), camera or CameraOptions()
    started = time.perf_counter()
    interrupted = False
    if source.kind == "image":
        video = VideoRecognizer(recognizer, detector=detector, tracking=tracking)
        for frame in source:
            result = video.process_still(frame.image, boxes=frame.whole_box if whole_frame else frame.boxes)
            result = dataclasses.replace(result, index=counts.frames)
            counts.add(result, still=True)
            if on_frame is not None:
                on_frame(frame, result)
        return counts.summary(source, recognizer.info, seconds=time.perf_counter() - started)
    options = dataclasses.replace(
        camera.live,
        tracking=tracking or TrackerOptions(),
        every_frame=not source.live,
        results_kept=_RESULTS_KEPT,
        copy_frames=False,
    )
    finder = detector or ("haar" if source.live and not whole_frame else None)
    with LiveRecognizer(recognizer, detector=finder, options=options) as live:
        camera.on_live(live)
        state: State = "OK"
        try:
            with FrameReader(source, live, reopen=camera.reopen, whole_frame=whole_frame):
                for result in live.estimates():
                    if result.state != state:
                        state = result.state
                        camera.on_state(result)
                    if result.token is not None:
                        counts.add(result)
                        if on_frame is not None:
                            on_frame(result.token, result)
        except KeyboardInterrupt:
            if not source.live:
                raise
            interrupted = True
        seconds, health = time.perf_counter() - started, live.health()
    lost = next((reason.because for reason in health.reasons if reason.name == "source"), source.lost)
    if health.reopened and lost == source.lost:
        lost = None
    return counts.summary(source, recognizer.info, seconds=seconds, interrupted=interrupted, health=health, lost=lost)


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

    def summary(
        self,
        source: VideoSource,
        info: NetworkInfo,
        *,
        seconds: float,
        interrupted: bool = False,
        health: Health | None = None,
        lost: str | None = None,
    ) -> RunSummary:
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
            frames_skipped=source.skipped + (sum(health.skipped.values()) if health else 0),
            frames_dropped=health.dropped + health.lost if health else 0,
            reopened=health.reopened if health else 0,
            frames_with_face=self._with_face,
            faces=self._faces,
            driver_labels=dict(self._labels.most_common()),
            latency_ms=latency_ms,
            seconds=seconds,
            interrupted=interrupted,
            lost=lost,
        )
