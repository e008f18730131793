"""Video in, estimates out: find the faces, track them, recognise each over its own window."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fer_edge.core.errors import FrameError, InputError
from fer_edge.core.json import encode
from fer_edge.core.types import Uint8
from fer_edge.runtime.appearance import Appearance
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.detector import Face, FaceDetector
from fer_edge.runtime.estimate import UNKNOWN, BoxXyxy, ExpressionEstimate, failed_estimate
from fer_edge.runtime.face_finder import FaceFinder, FoundFaces, cut_tilted
from fer_edge.runtime.follower import FaceFollower, FollowedFaces
from fer_edge.runtime.one_process import OneProcess
from fer_edge.runtime.recognizer import ExpressionStream, Recognizer
from fer_edge.runtime.streaming import StreamOptions, StreamOutputs
from fer_edge.runtime.tracker import FaceTrack, TrackerOptions, prominence

__all__ = ["FaceRule", "FrameResult", "TrackObserver", "VideoRecognizer"]

TrackObserver = Callable[[Sequence[FaceTrack], StreamOutputs], None]
"""Called with the tracks that were recognised in a frame, and what the network computed for them, in that order."""

FaceRule = Callable[[Uint8, Face], "str | None"]
"""Called with a raw crop, uint8 (H, W) grey, and its face in the frame: returns why it must not be judged, or None.

The face's estimate is then ``"unknown"`` for that reason, and its window goes on without the frame."""


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """The estimates of one frame.

    Attributes:
        index: the frame's number, from 0.
        timestamp_s: capture time of the frame.
        estimates: one per recognised face, in the order of their track ids; without `TrackerOptions.passengers` that is
            the driver's alone, or the most prominent one's until a driver is chosen.
        detect_ms: time spent on face detection and tracking.
        recognise_ms: time spent on crops, encoder and head.
        boxes: every face that is followed, recognised or not, where it was last seen.

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
    boxes: tuple[BoxXyxy, ...] = ()

    @property
    def driver(self) -> ExpressionEstimate | None:
        """The driver's estimate, None where there is no driver yet."""
        return next((estimate for estimate in self.estimates if estimate.driver), None)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(encode(self))


class VideoRecognizer(OneProcess):
    """Recognises the driver's face in a video, or every face: detector, tracker, a stream of expressions per face.

    All recognised faces of a frame go through the encoder and the head as one batch. A face that is out of sight for a
    moment keeps its last estimate, DEGRADED and with growing age, until its track ends. Use one from one thread at a
    time; the two stages of `process` may run in different threads: `follow` (detector, tracker), then `recognize`.

    Args:
        recognizer: stays open; the caller closes it.
        detector: finds faces; `HaarDetector` where None.
        tracking: how faces are followed, who is the driver, and whether passengers are recognised.
        streaming: options of each face's stream.
        clock: the clock of the timestamps, for true ages (`Recognizer.stream`).
        observer: called after every frame in which faces were recognised.
        reject: a rule of your own for face crops (`FaceRule`), applied before the recogniser's own
            (`Recognizer`, ``quality``).

    Raises:
        InputError: an argument of another type, or a bundle that aligns faces by the eyes without a
            detector that finds them.

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
        reject: FaceRule | None = None,
    ) -> None:
        if reject is not None and not callable(reject):
            raise InputError(f"reject: got {type(reject).__name__}, expected a function of a crop and its face")
        self._reject = reject
        self._finds_tilt = getattr(detector, "finds_tilt", False)
        self._finder = FaceFinder(detector)
        self._follower = FaceFollower(self._finder, tracking)
        self._clock = clock
        self._streaming = streaming
        self._observer = observer
        self._looks: dict[int, Appearance] = {}
        self.change_recognizer(recognizer)
        self._last: dict[int, ExpressionEstimate] = {}
        self._index = 0

    def process(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FrameResult:
        """Recognise the next frame: `follow`, then `recognize`.

        Args:
            frame: uint8 (H, W, 3) BGR or (H, W) grey.
            timestamp_s: capture time of the frame, in seconds, as `FrameClock` accepts it: later than the previous one.
            boxes: the faces' boxes where they are known; the detector is not run. A box is left, top, right, bottom in
                pixels, framed as FER2013's faces are, from forehead to chin: it is cut as it is. Boxes of a detector
                with another framing go through its `CropGeometry.apply` first. An empty list: there is no face.

        Raises:
            FrameError: another type or shape, boxes of another form, or a wrong time; the message tells which. The
                frame is skipped, and the next call may succeed.
            SessionError, MissingPackageError: no face detector is available (`HaarDetector`).
        """
        started = time.perf_counter_ns()
        followed = self.follow(frame, timestamp_s=timestamp_s, boxes=boxes)
        detect_ms = (time.perf_counter_ns() - started) / 1e6
        return dataclasses.replace(self.recognize(followed), detect_ms=detect_ms)

    def reset(self) -> None:
        """Forget all faces and the last frame's time, for example for a new recording; not while another call runs."""
        self._follower.reset()
        self._streams.clear()
        self._looks.clear()
        self._last.clear()

    def change_tracking(self, tracking: TrackerOptions) -> None:
        """Follow faces by other options from the next frame on; tracks and windows stay.

        Raises:
            InputError: options of another type.
        """
        self._follower.change_options(tracking)

    def change_recognizer(self, recognizer: Recognizer) -> None:
        """Recognise with another network from the next frame on; tracks stay, and every face's window starts over.

        Raises:
            InputError: another type, or a bundle that aligns faces by the eyes without a detector that finds them.
        """
        check_type("recognizer", recognizer, Recognizer, "a Recognizer")
        if recognizer.manifest.preprocess.alignment == "eyes" and not self._finds_tilt:
            raise InputError(
                f"alignment: got the bundle {recognizer.manifest.name!r}, which aligns faces by the eyes, expected one "
                "that does not; pass a YuNetDetector, or crop with cut_face(..., eyes=...) and use Recognizer.stream"
            )
        recognizer.stream(clock=self._clock, options=self._streaming)  # refuses wrong options at once
        self._recognizer = recognizer
        self._streams: dict[int, ExpressionStream] = {}

    def follow(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FollowedFaces:
        """Find and track the faces of the next frame, the first stage of `process`.

        Raises:
            FrameError, SessionError, MissingPackageError: as `process`.
        """
        self.check_process()
        return self._follower.update(frame, timestamp_s=timestamp_s, boxes=boxes)

    def recognize(self, followed: FollowedFaces) -> FrameResult:
        """Recognise the faces of a frame, the second stage of `process`.

        Raises:
            InputError: another type than `follow` returns.
        """
        check_type("followed", followed, FollowedFaces, "the result of follow")
        started = time.perf_counter_ns()
        alive = {track.track_id for track in followed.tracks}
        self._streams = {track: stream for track, stream in self._streams.items() if track in alive}
        self._looks = {track: looks for track, looks in self._looks.items() if track in alive}
        self._last = {track: estimate for track, estimate in self._last.items() if track in alive}
        self._update_streams(followed)
        result = FrameResult(
            index=self._index,
            timestamp_s=followed.timestamp_s,
            estimates=tuple(
                self._current(track, followed) for track in followed.recognised if track.track_id in self._last
            ),
            detect_ms=0.0,
            recognise_ms=(time.perf_counter_ns() - started) / 1e6,
            boxes=tuple(track.box_xyxy for track in followed.tracks),
        )
        self._index += 1
        return result

    def find(self, image: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FoundFaces:
        """Find the faces of a single photograph; it touches no track.

        Raises:
            FrameError, SessionError, MissingPackageError: as `process`.
        """
        self.check_process()
        return self._finder.find(image, boxes)

    def process_still(self, image: Uint8, *, boxes: Sequence[BoxXyxy] | None = None) -> FrameResult:
        """Recognise the faces of a single photograph, each by itself; the most prominent one counts as the driver's.

        A face whose box is not finite or outside the photograph is FAILED; the others get their estimates.

        Raises:
            FrameError: another type or shape, or boxes of another form than `process` takes.
            SessionError: the engine failed.
        """
        started = time.perf_counter_ns()
        found = self.find(image, boxes=boxes)
        detected = time.perf_counter_ns()
        crops, refused = self._cut_all(found, found.faces, timestamp_s=None)
        plain = {**refused, **dict(zip(crops, self._recognizer.recognize_stills(list(crops.values())), strict=True))}
        judged = [index for index, estimate in plain.items() if estimate.state != "FAILED"]
        first = max(judged, key=lambda index: prominence(found.boxes[index], found.size), default=None)
        estimates = tuple(
            dataclasses.replace(
                plain[index],
                track_id=index + 1,
                driver=index == first,
                box_xyxy=box if all(map(math.isfinite, box)) else None,
            )
            for index, box in enumerate(found.boxes)
        )
        return FrameResult(
            index=0,
            timestamp_s=0.0,
            estimates=estimates,
            detect_ms=(detected - started) / 1e6,
            recognise_ms=(time.perf_counter_ns() - detected) / 1e6,
            boxes=found.boxes,
        )

    def _cut_all(
        self, found: FoundFaces | FollowedFaces, faces: Sequence[Face], *, timestamp_s: float | None
    ) -> tuple[dict[int, Uint8], dict[int, ExpressionEstimate]]:
        """Cut the faces; return the crops, and the estimates of those that cannot be cut or are rejected, by index."""
        crops, refused = dict[int, Uint8](), dict[int, ExpressionEstimate]()
        for index, face in enumerate(faces):
            try:
                crop = cut_tilted(found.image, face, found.geometry, self._recognizer.manifest.preprocess)
            except FrameError as error:  # one bad box must not cost the other faces their estimates
                refused[index] = failed_estimate(str(error), timestamp_s=timestamp_s)
                continue
            reason = self._reject(crop, face) if self._reject is not None else None
            if reason is None:
                crops[index] = crop
            else:
                check_type("reject", reason, str, "a function that returns a reason or None")
                refused[index] = ExpressionEstimate(
                    label=UNKNOWN, unknown_because=reason, quality=0.0, quality_reasons=(reason,),
                    timestamp_s=timestamp_s,
                )  # fmt: skip
        return crops, refused

    def _update_streams(self, followed: FollowedFaces) -> None:
        timestamp_s = followed.timestamp_s
        seen = [track for track in followed.recognised if track.seen_s == timestamp_s]
        cut, refused = self._cut_all(followed, [track.face for track in seen], timestamp_s=timestamp_s)
        crops = {seen[index].track_id: crop for index, crop in cut.items()}
        self._last.update({seen[index].track_id: estimate for index, estimate in refused.items()})
        for track_id, crop in crops.items():
            looks = Appearance.of(crop, time_s=timestamp_s)
            if (before := self._looks.get(track_id)) and looks.is_another(before):
                self._streams.pop(track_id, None)  # the features of another person are no context
            self._looks[track_id] = looks
        for track_id in crops.keys() - self._streams.keys():
            self._streams[track_id] = self._recognizer.stream(clock=self._clock, options=self._streaming)
        recognised = [track for track in seen if track.track_id in crops]
        observer = self._observer
        estimates = self._recognizer.update_streams(
            [self._streams[track_id] for track_id in crops],
            list(crops.values()),
            timestamp_s=timestamp_s,
            observer=observer and (lambda outputs: observer([recognised[row] for row in outputs.rows], outputs)),
        )
        self._last.update(zip(crops, estimates, strict=True))

    def _current(self, track: FaceTrack, followed: FollowedFaces) -> ExpressionEstimate:
        """Return the track's last estimate, aged and DEGRADED where the face was out of sight in this frame."""
        estimate = dataclasses.replace(
            self._last[track.track_id],
            track_id=track.track_id,
            driver=track.track_id == followed.driver_id,
            box_xyxy=track.box_xyxy,
        )
        lost_s = followed.timestamp_s - track.seen_s
        if lost_s == 0:
            return estimate
        age_ms = estimate.age_ms + lost_s * 1e3
        if estimate.state == "FAILED":
            return dataclasses.replace(estimate, age_ms=age_ms)
        reason = f"the face was last seen {lost_s:.2f} s ago"
        return dataclasses.replace(estimate, age_ms=age_ms, state="DEGRADED", state_because=reason)
