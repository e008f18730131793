"""Follows faces through a video: a full search to find them, local searches and optical flow to keep them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fer_edge.core.errors import FrameError, require
from fer_edge.core.preprocess import check_image, to_grey
from fer_edge.core.types import Uint8
from fer_edge.runtime.detector import CropGeometry, Face
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.face_finder import FaceFinder, given_faces
from fer_edge.runtime.flow import carry_faces
from fer_edge.runtime.tracker import FaceTrack, FaceTracker, TrackerOptions

__all__ = ["FaceFollower", "FollowedFaces"]

_FLOW_SIDE: Final = 320  # frames are shrunk to this many pixels for optical flow
_FARTHEST: Final = 1e6  # pixels; no frame is as large
_TILT_DEG: Final = 18.0  # of the searches for a head that is not found upright
_LOST_TILTS: Final = (0.0, _TILT_DEG, 0.0, -_TILT_DEG)
_UNCONFIRMED_S: Final = 0.35  # a face that was not found again within this time was none


@dataclass(frozen=True, kw_only=True, eq=False)
class FollowedFaces:
    """The tracked faces of one frame of a video.

    Attributes:
        image: the frame, uint8 (H, W, 3) BGR or (H, W), as the crops are cut from it.
        timestamp_s: capture time of the frame.
        tracks: the tracks, oldest first; those seen in this frame have its time in `FaceTrack.seen_s`.
        driver_id: track id of the driver's face, None where no face is stable yet.
        recognised: the tracks to recognise in this frame.
        geometry: how their boxes are cut.
    """

    image: Uint8
    timestamp_s: float
    tracks: tuple[FaceTrack, ...]
    driver_id: int | None
    recognised: tuple[FaceTrack, ...]
    geometry: CropGeometry


@dataclass(kw_only=True)
class _LocalSearch:
    """When a track's face was last searched for, and how often in a row it was not found."""

    searched_s: float
    misses: int = 0


class FaceFollower:
    """Finds and tracks the faces of a video at a bounded cost per frame.

    Every frame, optical flow carries the faces along. At most one search is added, the most overdue one: near a face,
    where a head that is not found upright is also searched tilted, or one part of the search of the whole picture.
    Only where no face is visible is the whole picture searched at once. A detector without `search_near` searches the
    whole picture for both.

    Args:
        finder: the detector.
        options: how faces are followed.
    """

    def __init__(self, finder: FaceFinder, options: TrackerOptions | None = None) -> None:
        self._finder = finder
        self._tracker = FaceTracker(options)
        self._options = TrackerOptions() if options is None else options
        self.reset()

    def reset(self) -> None:
        """End all tracks and forget the last frame and its time."""
        self._tracker.reset()
        self._searches: dict[int, _LocalSearch] = {}
        self._previous: Uint8 | None = None
        self._last_s: float | None = None
        self._swept_s = -np.inf
        self._sweeps = 0

    def change_options(self, options: TrackerOptions) -> None:
        """Go on with other options; the followed faces stay.

        Raises:
            InputError: options of another type.
        """
        self._tracker.change_options(options)
        self._options = options

    def check_time(self, timestamp_s: float) -> float:
        """Refuse a time that `update` would refuse: `FrameClock.check`.

        Raises:
            FrameError: a wrong time.
        """
        return self._tracker.clock.check(timestamp_s)

    def update(self, frame: Uint8, *, timestamp_s: float, boxes: Sequence[BoxXyxy] | None = None) -> FollowedFaces:
        """Follow the faces into the next frame.

        Args:
            frame: uint8 (H, W, 3) BGR or (H, W) grey.
            timestamp_s: capture time of the frame, in seconds; later than the previous one, or of a clock that was set
                anew, which ends all tracks first.
            boxes: the faces' boxes where they are known; nothing is then searched or carried.

        Raises:
            FrameError: another type or shape, a given box that is not a face's in pixels, or a wrong time.
            SessionError, MissingPackageError: there is no detector on this machine.
        """
        timestamp_s = self.check_time(timestamp_s)
        check_image(frame)
        if self._tracker.clock.restarts(timestamp_s):
            self.reset()
        image, geometry, carried = frame, CropGeometry(), dict[int, Face]()
        if boxes is not None:
            faces: Sequence[Face] = given_faces(boxes, (frame.shape[1], frame.shape[0]))
            for face in faces:
                if not all(abs(side) < _FARTHEST for side in face.box_xyxy):
                    raise FrameError(f"boxes: got {face.box_xyxy}, expected finite pixels of the frame")
            self._previous = None
        else:
            image, geometry = self._finder.convert(frame), self._finder.geometry
            carried = self._carry(image, timestamp_s)
            faces = self._search(image, timestamp_s, carried)
        size = (frame.shape[1], frame.shape[0])
        matched = self._tracker.update(faces, timestamp_s=timestamp_s, image_size=size, carried=carried)
        self._note(matched, timestamp_s)
        self._last_s = timestamp_s
        tracks = tuple(dataclasses.replace(track) for track in self._tracker.tracks)
        shown = {self._tracker.likely_driver_id} if not self._options.passengers else {t.track_id for t in tracks}
        return FollowedFaces(
            image=image,
            timestamp_s=timestamp_s,
            tracks=tracks,
            driver_id=self._tracker.driver_id,
            recognised=tuple(track for track in tracks if track.track_id in shown),
            geometry=geometry,
        )

    def _carry(self, image: Uint8, now_s: float) -> dict[int, Face]:
        """Carry the faces seen in the last frame into this one, except those that flow has carried for too long."""
        cv2 = require("cv2", needed_by="face tracking", extra="cpu")
        scale = min(1.0, _FLOW_SIDE / max(image.shape[:2]))
        columns, rows = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
        small = image if scale == 1 else cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        previous, self._previous = self._previous, to_grey(small)
        if previous is None:
            return {}
        seen = [track for track in self._tracker.tracks if track.seen_s == self._last_s]
        kept = [track for track in seen if now_s - track.found_s <= self._patience_s(track)]
        faces = carry_faces(previous, self._previous, [track.face for track in kept], scale=scale)
        return {track.track_id: face for track, face in zip(kept, faces, strict=True) if face is not None}

    def _patience_s(self, track: FaceTrack) -> float:
        return self._options.carry_s if track.hits >= self._options.stable_after else _UNCONFIRMED_S

    def _search(self, image: Uint8, now_s: float, carried: dict[int, Face]) -> Sequence[Face]:
        """Run the most overdue search, if one is due."""
        search_near = getattr(self._finder.detector, "search_near", None)
        alone = search_near is None or not carried
        parts = 1 if alone else self._finder.detector.parts  # type: ignore[attr-defined]
        hidden = any(track.track_id not in carried for track in self._tracker.tracks)
        sweep_s = self._options.max_lost_s / 2 if hidden else self._options.sweep_s  # before its track ends
        due_s = {0: self._swept_s + (self._options.search_s if alone else sweep_s / parts)}
        if search_near is not None:
            due_s |= {track.track_id: self._due_s(track) for track in self._tracker.tracks}
        chosen = min(due_s, key=lambda key: due_s[key])
        if due_s[chosen] > now_s + 1e-6:
            return ()
        if chosen == 0:
            self._swept_s = now_s
            self._sweeps += 1
            if alone:
                return self._finder.search(image, tilt_deg=_LOST_TILTS[(self._sweeps - 1) % len(_LOST_TILTS)])
            return self._finder.search(image, part=self._sweeps % parts)
        assert search_near is not None
        search = self._searches[chosen]
        search.searched_s = now_s
        track = next(track for track in self._tracker.tracks if track.track_id == chosen)
        face = carried.get(chosen, track.face)
        tilt = _LOST_TILTS[search.misses % len(_LOST_TILTS)]
        search.misses += 1  # until the tracker matches a face to this track
        found = search_near(image, Face(box_xyxy=face.box_xyxy, tilt_deg=tilt))
        return () if found is None else (found,)

    def _due_s(self, track: FaceTrack) -> float:
        """Return when to search near a face: at once until it is stable, or until it was none."""
        confirmed = track.hits >= self._options.stable_after
        return self._searches[track.track_id].searched_s + (self._options.search_s if confirmed else 0.0)

    def _note(self, matched: Sequence[FaceTrack], now_s: float) -> None:
        """Count the searches of the tracks that still exist; a face found by any search is not due at once."""
        old = self._searches
        self._searches = {
            track.track_id: old.get(track.track_id) or _LocalSearch(searched_s=now_s) for track in self._tracker.tracks
        }
        for track in matched:
            self._searches[track.track_id] = _LocalSearch(searched_s=now_s)
