"""Video in, estimates out: find the faces, track them, recognise each over its own window."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fer_edge.core.errors import FrameError, InputError
from fer_edge.core.json import encode
from fer_edge.core.preprocess import cut_face
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.detector import FaceDetector, FaceFinder, FoundFaces
from fer_edge.runtime.estimate import BoxXyxy, ExpressionEstimate, failed_estimate
from fer_edge.runtime.recognizer import ExpressionStream, Recognizer
from fer_edge.runtime.streaming import StreamOptions, StreamOutputs
from fer_edge.runtime.tracker import FaceTrack, FaceTracker, TrackerOptions, prominence

__all__ = ["FrameResult", "TrackObserver", "VideoRecognizer"]

TrackObserver = Callable[[Sequence[FaceTrack], StreamOutputs], None]
"""Called with the tracks that were recognised in a frame, and what the network computed for them, in that order."""


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """The estimates of one frame.

    Attributes:
        index: the frame's number, from 0.
        timestamp_s: capture time of the frame.
        estimates: one per tracked face, in the order of their track ids.
        detect_ms: time spent on face detection.
        recognise_ms: time spent on tracking, crops, encoder and head.

    Example:
        >>> from fer_edge.runtime import FrameResult
        >>> FrameResult(index=0, timestamp_s=0.0, estimates=(), detect_ms=2.0, recognise_ms=0.0).driver is None
        True
    """

    index: int
    timestamp_s: float
    estimates: tuple[ExpressionEstimate, ...]
    detect_ms: float
    recognise_ms: float

    @property
    def driver(self) -> ExpressionEstimate | None:
        """The driver's estimate, None where there is no driver yet."""
        return next((estimate for estimate in self.estimates if estimate.driver), None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(encode(self))


class VideoRecognizer:
    """Recognises the faces of a video: detector, tracker, and a stream of expressions per tracked face.

    All faces of a frame go through the encoder and the head as one batch. A face that is not found for a moment keeps
    its last estimate, DEGRADED and with growing age, until its track ends. Use one from one thread at a time; the two
    stages of `process` may run in different threads: `find` (detector) and `recognize` (all else).

    Args:
        recognizer: stays open; the caller closes it.
        detector: finds faces; `HaarDetector` where None.
        tracking: options of the tracker and of the driver's choice.
        streaming: options of each face's stream.
        clock: the clock of the timestamps, for true ages (`Recognizer.stream`).
        observer: called after every frame in which faces were recognised.

    Raises:
        InputError: an argument of another type, or a bundle that aligns by the eyes, which no detector here finds.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import Recognizer, VideoRecognizer
        >>> frames = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), dtype=np.uint8)
        >>> with Recognizer("nano") as recognizer:
        ...     video = VideoRecognizer(recognizer)
        ...     for index, frame in enumerate(frames):
        ...         result = video.process(frame, timestamp_s=index / 30, boxes=[(40, 20, 120, 100)])
        ...     result.driver.track_id
        1
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        detector: FaceDetector | None = None,
        tracking: TrackerOptions | None = None,
        streaming: StreamOptions | None = None,
        clock: Callable[[], float] | None = None,
        observer: TrackObserver | None = None,
    ) -> None:
        check_type("recognizer", recognizer, Recognizer, "a Recognizer")
        if recognizer.manifest.preprocess.alignment == "eyes":
            raise InputError(
                f"alignment: got the bundle {recognizer.manifest.name!r}, which aligns faces by the eyes, expected one "
                "that does not; crop the faces with cut_face(..., eyes=...) and use Recognizer.stream"
            )
        self._recognizer = recognizer
        self._finder = FaceFinder(detector)
        self._tracker = FaceTracker(tracking)
        self._clock = clock
        self._streaming = streaming
        recognizer.stream(clock=clock, options=streaming)  # refuses wrong options here, not at the first face
        self._observer = observer
        self._streams: dict[int, ExpressionStream] = {}
        self._last: dict[int, ExpressionEstimate] = {}
        self._index = 0

    def process(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FrameResult:
        """Recognise the next frame: `find`, then `recognize`.

        Args:
            frame: uint8 (H, W, 3) BGR or (H, W) grey.
            timestamp_s: capture time of the frame, in seconds; later than the previous one.
            boxes: the faces' boxes where they are known; the detector is then not run.

        Raises:
            FrameError: another type or shape, a given box that is not four finite numbers, or a time not later than the
                last one. The frame is skipped; the next call may succeed.
            SessionError, MissingPackageError: no face detector is available (`HaarDetector`).
        """
        self._tracker.check_time(timestamp_s)
        started = time.perf_counter_ns()
        found = self.find(frame, boxes=boxes)
        detect_ms = (time.perf_counter_ns() - started) / 1e6
        return dataclasses.replace(self.recognize(found, timestamp_s=timestamp_s), detect_ms=detect_ms)

    def find(self, frame: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FoundFaces:
        """Find the faces of a frame, the first stage of `process`; it touches no track.

        Raises:
            FrameError, SessionError, MissingPackageError: as `process`.
        """
        return self._finder.find(frame, boxes)

    def recognize(self, found: FoundFaces, *, timestamp_s: float) -> FrameResult:
        """Track and recognise the faces found in a frame, the second stage of `process`.

        Raises:
            InputError: another type than `find` returns.
            FrameError: a time not later than the last one.
        """
        check_type("found", found, FoundFaces, "the result of find")
        started = time.perf_counter_ns()
        seen = self._tracker.update(found.boxes, timestamp_s=timestamp_s, image_size=found.size)
        alive = {track.track_id for track in self._tracker.tracks}
        self._streams = {track: stream for track, stream in self._streams.items() if track in alive}
        self._last = {track: estimate for track, estimate in self._last.items() if track in alive}
        self._update_streams(found, seen, timestamp_s)
        result = FrameResult(
            index=self._index,
            timestamp_s=timestamp_s,
            estimates=tuple(self._current(track, timestamp_s) for track in self._tracker.tracks),
            detect_ms=0.0,
            recognise_ms=(time.perf_counter_ns() - started) / 1e6,
        )
        self._index += 1
        return result

    def process_still(self, image: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FrameResult:
        """Recognise the faces of a single photograph, each by itself; the most prominent one counts as the driver's.

        Raises:
            FrameError: another type or shape, or a given box that is not four finite numbers.
            SessionError: the engine failed.
        """
        started = time.perf_counter_ns()
        found = self.find(image, boxes=boxes)
        detected = time.perf_counter_ns()
        plain = self._recognizer.recognize_stills([self._cut(found, box) for box in found.boxes])
        first = max(found.boxes, key=lambda box: prominence(box, found.size), default=None)
        estimates = tuple(
            dataclasses.replace(estimate, track_id=number, driver=box is first, box_xyxy=box)
            for number, (estimate, box) in enumerate(zip(plain, found.boxes, strict=True), start=1)
        )
        return FrameResult(
            index=0,
            timestamp_s=0.0,
            estimates=estimates,
            detect_ms=(detected - started) / 1e6,
            recognise_ms=(time.perf_counter_ns() - detected) / 1e6,
        )

    def _cut(self, found: FoundFaces, box: BoxXyxy) -> Uint8:
        return cut_face(found.image, found.geometry.apply(box), self._recognizer.manifest.preprocess)

    def _update_streams(self, found: FoundFaces, seen: Sequence[FaceTrack], timestamp_s: float) -> None:
        crops: dict[int, Uint8] = {}
        for track in seen:
            try:
                crops[track.track_id] = self._cut(found, track.box_xyxy)
            except FrameError as error:  # one bad box must not cost the other faces their estimates
                self._last[track.track_id] = failed_estimate(str(error), timestamp_s=timestamp_s)
        for track_id in crops.keys() - self._streams.keys():
            self._streams[track_id] = self._recognizer.stream(clock=self._clock, options=self._streaming)
        recognised = [track for track in seen if track.track_id in crops]
        observer = self._observer
        estimates = self._recognizer.update_streams(
            [self._streams[track_id] for track_id in crops],
            list(crops.values()),
            timestamp_s=timestamp_s,
            observer=None if observer is None else lambda outputs: observer(recognised, outputs),
        )
        self._last.update(zip(crops, estimates, strict=True))

    def _current(self, track: FaceTrack, timestamp_s: float) -> ExpressionEstimate:
        """Return the track's last estimate, aged and DEGRADED where the face was not found in this frame."""
        estimate = dataclasses.replace(
            self._last[track.track_id],
            track_id=track.track_id,
            driver=track.track_id == self._tracker.driver_id,
            box_xyxy=track.box_xyxy,
        )
        lost_s = timestamp_s - track.seen_s
        if lost_s == 0:
            return estimate
        age_ms = estimate.age_ms + lost_s * 1e3
        if estimate.state == "FAILED":
            return dataclasses.replace(estimate, age_ms=age_ms)
        reason = f"the face was last seen {lost_s:.2f} s ago"
        return dataclasses.replace(estimate, age_ms=age_ms, state="DEGRADED", state_because=reason)
