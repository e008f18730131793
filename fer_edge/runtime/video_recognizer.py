"""Video in, estimates out: find the faces, follow them, recognise each over its own window."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fer_edge.core.errors import InputError
from fer_edge.core.json import encode
from fer_edge.core.preprocess import check_image, crop_face
from fer_edge.core.types import Uint8
from fer_edge.runtime.detector import FaceDetector, FaceFinder
from fer_edge.runtime.estimate import UNKNOWN, BoxXyxy, ExpressionEstimate
from fer_edge.runtime.recognizer import ExpressionStream, Recognizer, StreamOptions
from fer_edge.runtime.tracker import FaceTrack, FaceTracker, TrackerOptions, prominence

__all__ = ["FrameResult", "VideoRecognizer"]


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """What one frame gave.

    Attributes:
        index: the frame's number, from 0.
        timestamp_s: when it was taken.
        estimates: one for every face followed, in the order of their track ids.
        detect_ms: time spent finding faces.
        recognise_ms: time spent on crops, encoder and head.
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
        """The fields by name."""
        return dict(encode(self))


class VideoRecognizer:
    """Faces of a video: detector, tracker, and a stream of expressions for each face followed.

    All faces of a frame go through the encoder and the head as one batch. A face that is lost from sight for a moment
    keeps its last estimate, DEGRADED and growing older, until its track ends. One thread uses it.

    Args:
        recognizer: stays the caller's to close.
        detector: finds faces; the Haar cascade of OpenCV 4 where none is given.
        tracking: how faces are followed and the driver is chosen (`FaceTracker`).
        streaming: when a face's window starts over, and when its estimates are DEGRADED.
        clock: the clock that the timestamps come from, for true ages (`Recognizer.stream`).

    Raises:
        InputError: the bundle aligns faces by the eyes, which no detector here finds.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        detector: FaceDetector | None = None,
        tracking: TrackerOptions | None = None,
        streaming: StreamOptions | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if recognizer.manifest.preprocess.alignment == "eyes":
            raise InputError(
                f"the bundle {recognizer.manifest.name!r} aligns faces by the eyes, which the video path cannot; "
                "crop the faces with crop_face(..., eyes=...) and use Recognizer.stream"
            )
        self._recognizer = recognizer
        self._faces = FaceFinder(detector)
        self._tracker = FaceTracker(tracking)
        self._streaming = streaming
        self._clock = clock
        self._streams: dict[int, ExpressionStream] = {}
        self._last: dict[int, ExpressionEstimate] = {}
        self._index = 0

    def process(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FrameResult:
        """Take the next frame.

        Args:
            frame: uint8 (H, W, 3) BGR or (H, W) grey.
            timestamp_s: when it was taken, in seconds; later than the one before.
            boxes: the faces' boxes where they are known already; the detector then is not asked.

        Raises:
            InputError: another type or shape, a box given that is not four finite numbers, or a time not later than the
                last one.
            SessionError, MissingPackageError: no face detector is to be had (`HaarDetector`).
        """
        started = time.perf_counter_ns()
        check_image(frame)
        found = self._faces.find(frame, boxes)
        detected = time.perf_counter_ns()
        size = (frame.shape[1], frame.shape[0])
        seen = self._tracker.update(found, timestamp_s=timestamp_s, image_size=size)
        self._forget_ended()
        self._recognise(frame, seen, timestamp_s)
        estimates = tuple(self._current(track, timestamp_s) for track in self._tracker.tracks)
        result = FrameResult(
            index=self._index,
            timestamp_s=timestamp_s,
            estimates=estimates,
            detect_ms=(detected - started) / 1e6,
            recognise_ms=(time.perf_counter_ns() - detected) / 1e6,
        )
        self._index += 1
        return result

    def process_still(self, image: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FrameResult:
        """Recognise the faces of a single photograph, each by itself; the most prominent is taken for the driver's.

        Raises:
            InputError: another type or shape, or a box given that is not four finite numbers.
            SessionError: the engine failed.
        """
        started = time.perf_counter_ns()
        check_image(image)
        found = self._faces.find(image, boxes)
        detected = time.perf_counter_ns()
        spec = self._recognizer.manifest.preprocess
        plain = self._recognizer.recognize_stills([crop_face(image, box, spec) for box in found])
        size = (image.shape[1], image.shape[0])
        first = max(found, key=lambda box: prominence(box, size), default=None)
        estimates = tuple(
            dataclasses.replace(estimate, track_id=number, driver=box is first, box_xyxy=box)
            for number, (estimate, box) in enumerate(zip(plain, found, strict=True), start=1)
        )
        return FrameResult(
            index=0,
            timestamp_s=0.0,
            estimates=estimates,
            detect_ms=(detected - started) / 1e6,
            recognise_ms=(time.perf_counter_ns() - detected) / 1e6,
        )

    def _forget_ended(self) -> None:
        alive = {track.track_id for track in self._tracker.tracks}
        for ended in self._streams.keys() - alive:
            del self._streams[ended]
        for ended in self._last.keys() - alive:
            del self._last[ended]

    def _recognise(self, frame: Uint8, tracks: Sequence[FaceTrack], timestamp_s: float) -> None:
        """Update the streams of the faces seen in this frame."""
        spec = self._recognizer.manifest.preprocess
        crops: dict[int, Uint8] = {}
        for track in tracks:
            try:
                crops[track.track_id] = crop_face(frame, track.box_xyxy, spec)
            except InputError as error:  # the detector's fault, not the caller's: reported, not raised
                self._last[track.track_id] = ExpressionEstimate(
                    label=UNKNOWN,
                    unknown_because="nothing could be computed",
                    timestamp_s=timestamp_s,
                    state="FAILED",
                    state_because=str(error),
                )
        for track_id in crops.keys() - self._streams.keys():
            self._streams[track_id] = self._recognizer.stream(clock=self._clock, options=self._streaming)
        streams = [self._streams[track_id] for track_id in crops]
        estimates = self._recognizer.update_streams(streams, list(crops.values()), timestamp_s=timestamp_s)
        self._last.update(zip(crops, estimates, strict=True))

    def _current(self, track: FaceTrack, timestamp_s: float) -> ExpressionEstimate:
        """The track's last estimate; grown older and DEGRADED where the face was not seen in this frame."""
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
