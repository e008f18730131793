"""Tracks faces over frames by box overlap, and chooses the driver's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.json import expect, is_one_of
from fer_edge.runtime.arguments import check_type, number, whole_number
from fer_edge.runtime.detector import CropGeometry, Face
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.frame_clock import FrameClock
from fer_edge.runtime.patch import box_overlaps

__all__ = ["FaceTrack", "FaceTracker", "TrackerOptions", "prominence"]

_FIRST_STEP_S: Final = 1 / 30  # assumed before the first frame
_SMOOTHING: Final = 0.5  # share of the detector's box where flow has carried the face as well
_COVERED: Final = 0.4  # share of a carried face that a nearer one covers; its points then move with the nearer one
_RETURN: Final = 2.0  # boxes are enlarged by this for a face that moved far, or was out of sight and may have moved
_SEATED_S: Final = 10.0  # time constant of a face's presence in the driver's region


def prominence(box: BoxXyxy, image_size: tuple[int, int]) -> float:
    """Compute the box's share of the image, weighted 1 in the middle to 1/2 at the edge: 0 to 1."""
    width, height = image_size
    left, top, right, bottom = box
    across = abs((left + right) / width - 1)
    down = abs((top + bottom) / height - 1)
    return (right - left) * (bottom - top) / (width * height) * (1 - min(1.0, math.hypot(across, down)) / 2)


@dataclass(frozen=True, kw_only=True)
class TrackerOptions:
    """How faces are followed, how the driver is chosen, and which faces are recognised.

    The driver is the largest central face, of those in the driver's region where one is given. A face that comes from
    outside that region, such as a passenger who leans in, becomes the driver's only after several seconds there.

    Attributes:
        seat: the driver's region is the ``"left"`` or the ``"right"`` half of the picture.
        driver_roi: the driver's region as left, top, right, bottom: in pixels, or in fractions where all are at most 1.
        passengers: recognise every face; otherwise the driver's alone, or the most likely one's until it is stable.
        search_s: a followed face is searched near its last box this often; optical flow carries it in between.
        sweep_s: a search of the whole picture for new faces takes this long, a part at a time.
        carry_s: optical flow carries a face that the detector does not find for at most this long.
        max_lost_s: a track ends when its face was not found or carried for longer.
        min_overlap: smallest intersection over union with which a box continues a track.
        stable_after: frames in which the detector must find a face before it can be the driver's.
        settle_s: time constant of the smoothed prominence.
        takeover: another face must be this many times as prominent to become the driver's,
        takeover_s: and for this long.

    Raises:
        InputError: a value outside its range, or both a seat and a region.

    Example:
        >>> from fer_edge.runtime import TrackerOptions
        >>> TrackerOptions(seat="left", max_lost_s=0.5).stable_after
        3
    """

    seat: Literal["left", "right"] | None = None
    driver_roi: BoxXyxy | None = None
    passengers: bool = False
    search_s: float = 0.1
    sweep_s: float = 2.0
    carry_s: float = 3.0
    max_lost_s: float = 1.0
    min_overlap: float = 0.3
    stable_after: int = 3
    settle_s: float = 1.0
    takeover: float = 1.5
    takeover_s: float = 1.0

    def __post_init__(self) -> None:
        names = ("search_s", "sweep_s", "carry_s", "max_lost_s", "min_overlap", "settle_s", "takeover", "takeover_s")
        for name in names:
            number(name, getattr(self, name))
        if self.min_overlap >= 1:
            raise InputError(f"min_overlap: got {self.min_overlap}, expected between 0 and 1")
        whole_number("stable_after", self.stable_after, least=1)
        expect(is_one_of(self.seat, (None, "left", "right")), "seat", self.seat, "'left' or 'right'")
        expect(isinstance(self.passengers, bool), "passengers", self.passengers, "true or false")
        if self.driver_roi is not None:
            expect(self.seat is None, "driver_roi", self.driver_roi, "no seat beside it")
            left, top, right, bottom = _region(self.driver_roi)
            expect(left < right and top < bottom, "driver_roi", self.driver_roi, "left < right and top < bottom")

    def region(self, image_size: tuple[int, int]) -> BoxXyxy | None:
        """Return the driver's region in pixels of a picture of this width and height; None for the whole picture."""
        roi = {"left": (0.0, 0.0, 0.5, 1.0), "right": (0.5, 0.0, 1.0, 1.0)}.get(self.seat or "", self.driver_roi)
        if roi is None:
            return None
        width, height = image_size if max(roi) <= 1 else (1, 1)
        return roi[0] * width, roi[1] * height, roi[2] * width, roi[3] * height


def _region(values: Sequence[float]) -> BoxXyxy:
    try:
        left, top, right, bottom = (number("driver_roi", value, positive=False) for value in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"driver_roi: got {values!r}, expected left, top, right, bottom") from error
    return left, top, right, bottom


@dataclass(kw_only=True)
class FaceTrack:
    """One tracked face.

    Attributes:
        track_id: its number, from 1; never reused.
        face: its last box and tilt.
        seen_s: time of the last frame in which it was found or carried.
        found_s: time of the last frame in which it was found by the detector or given by the caller.
        hits: number of frames in which it was found.
        prominence: `prominence` of its boxes, smoothed over time from 0.
        seated: share of its time in the driver's region, smoothed; 1 without a region.
    """

    track_id: int
    face: Face
    seen_s: float
    found_s: float
    hits: int = 1
    prominence: float = 0.0
    seated: float = 1.0

    @property
    def box_xyxy(self) -> BoxXyxy:
        """Its last box, in pixels."""
        return self.face.box_xyxy


class FaceTracker:
    """Matches boxes to tracks greedily by overlap, best pair first; tracks seen in the last frame match first.

    The driver stays the driver until its track ends, or another face has been clearly more prominent for a while
    (`TrackerOptions`).
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self._options = TrackerOptions() if options is None else options
        check_type("tracking", self._options, TrackerOptions, "TrackerOptions")
        self._next_id = 1
        self.clock = FrameClock()
        self.reset()

    def reset(self) -> None:
        """End all tracks and forget the driver and the time; numbers of tracks go on."""
        self._tracks: list[FaceTrack] = []
        self._driver: int | None = None
        self._challenged_s: float | None = None
        self._now_s: float | None = None
        self.clock.reset()

    def change_options(self, options: TrackerOptions) -> None:
        """Go on with other options; tracks and the driver stay.

        Raises:
            InputError: options of another type.
        """
        check_type("tracking", options, TrackerOptions, "TrackerOptions")
        self._options = options

    @property
    def tracks(self) -> tuple[FaceTrack, ...]:
        """The tracked faces, including those not seen in the newest frame; oldest first."""
        return tuple(self._tracks)

    @property
    def driver_id(self) -> int | None:
        """Track id of the driver's face, None where no face is stable yet."""
        return self._driver

    @property
    def likely_driver_id(self) -> int | None:
        """Track id of the driver's face, or of the most prominent one until one is stable."""
        best = max(self._seated(), key=lambda track: track.prominence, default=None)
        return self._driver or (best.track_id if best else None)

    def update(
        self,
        faces: Sequence[Face],
        *,
        timestamp_s: float,
        image_size: tuple[int, int],
        carried: Mapping[int, Face] | None = None,
    ) -> tuple[FaceTrack, ...]:
        """Continue the tracks with the faces of one frame.

        Args:
            faces: the faces that the detector found in this frame, or that the caller gave.
            timestamp_s: capture time of the frame; later than the previous one (`FaceFollower` resets the tracker where
                the clock was set anew).
            image_size: width and height of the frame.
            carried: tracks' faces that optical flow has carried into this frame, by track id.

        Returns:
            The track of each face, in the order of `faces`.

        Raises:
            FrameError: as `FrameClock.check`.
        """
        timestamp_s = self.clock.check(timestamp_s)
        self.clock.accept(timestamp_s)
        elapsed_s = _FIRST_STEP_S if self._now_s is None else timestamp_s - self._now_s
        last_s, self._now_s = self._now_s, timestamp_s
        self._tracks = [track for track in self._tracks if timestamp_s - track.seen_s <= self._options.max_lost_s]
        carried = carried or {}
        places = {track.track_id: carried.get(track.track_id, track.face) for track in self._tracks}
        hidden = self._covered({track_id: places[track_id] for track_id in places if track_id in carried})
        visible = [track for track in self._tracks if track.seen_s == last_s and track.track_id not in hidden]
        matched: dict[int, FaceTrack] = {}
        self._match(faces, visible, [places[track.track_id].box_xyxy for track in visible], matched)
        fast = [track for track in visible if track not in matched.values() and track.track_id not in carried]
        self._match(faces, fast, [track.box_xyxy for track in fast], matched, reach=_RETURN)
        lost = [track for track in self._tracks if track not in visible]
        self._match(faces, lost, [track.box_xyxy for track in lost], matched, reach=_RETURN)
        for track in visible:
            if track.track_id in carried:
                track.face, track.seen_s = places[track.track_id], timestamp_s
        for index, face in enumerate(faces):
            if index in matched:
                self._continue(matched[index], face, smooth=matched[index].seen_s == timestamp_s)
            else:
                matched[index] = self._begin(face, image_size)
        self._weigh(image_size, elapsed_s)
        self._choose_driver()
        return tuple(matched[index] for index in range(len(faces)))

    def _covered(self, carried: Mapping[int, Face]) -> set[int]:
        """Return the tracks that another one covers: the farther, so the smaller face of a pair at one place."""
        tracks = {track.track_id: track for track in self._tracks}
        order = sorted(carried, key=lambda track_id: (_width(tracks[track_id].face), -track_id))
        return {
            small
            for index, small in enumerate(order)
            for large in order[index + 1 :]
            if _share_inside(carried[small].box_xyxy, carried[large].box_xyxy) > _COVERED
        }

    def _match(
        self,
        faces: Sequence[Face],
        tracks: Sequence[FaceTrack],
        boxes: Sequence[BoxXyxy],
        matched: dict[int, FaceTrack],
        *,
        reach: float = 1.0,
    ) -> None:
        """Match the faces that have no track yet to these tracks; `reach` enlarges all boxes."""
        if not faces or not tracks:
            return
        wide = CropGeometry(scale=reach)
        overlaps = box_overlaps([wide.apply(box) for box in boxes], [wide.apply(face.box_xyxy) for face in faces])
        taken: set[int] = set()
        for flat in np.argsort(-overlaps, axis=None, kind="stable"):
            row, column = divmod(int(flat), len(faces))
            if overlaps[row, column] < self._options.min_overlap:
                break
            if column not in matched and row not in taken:
                matched[column] = tracks[row]
                taken.add(row)

    def _begin(self, face: Face, image_size: tuple[int, int]) -> FaceTrack:
        assert self._now_s is not None
        track = FaceTrack(track_id=self._next_id, face=face, seen_s=self._now_s, found_s=self._now_s)
        track.seated = float(_inside(face.box_xyxy, self._options.region(image_size)))
        self._next_id += 1
        self._tracks.append(track)
        return track

    def _continue(self, track: FaceTrack, face: Face, *, smooth: bool) -> None:
        assert self._now_s is not None
        if smooth:
            old = track.face
            box = tuple(b + _SMOOTHING * (a - b) for a, b in zip(face.box_xyxy, old.box_xyxy, strict=True))
            tilt = old.tilt_deg + _SMOOTHING * (face.tilt_deg - old.tilt_deg)
            face = Face(box_xyxy=(box[0], box[1], box[2], box[3]), tilt_deg=tilt)
        track.face, track.seen_s, track.found_s, track.hits = face, self._now_s, self._now_s, track.hits + 1

    def _weigh(self, image_size: tuple[int, int], elapsed_s: float) -> None:
        share, seated_share = (1 - math.exp(-elapsed_s / time_s) for time_s in (self._options.settle_s, _SEATED_S))
        region = self._options.region(image_size)
        for track in self._tracks:
            seen = track.seen_s == self._now_s
            track.prominence += share * ((prominence(track.box_xyxy, image_size) if seen else 0.0) - track.prominence)
            if seen:
                track.seated += seated_share * (_inside(track.box_xyxy, region) - track.seated)

    def _seated(self) -> list[FaceTrack]:
        return [track for track in self._tracks if track.seated > 0.5]

    def _choose_driver(self) -> None:
        seated = self._seated()
        stable = [track for track in seated if track.hits >= self._options.stable_after]
        best = max(stable, key=lambda track: track.prominence, default=None)
        driver = next((track for track in stable if track.track_id == self._driver), None)
        challenged = driver and best and best.prominence > self._options.takeover * driver.prominence
        assert self._now_s is not None
        if not challenged:
            self._challenged_s = None
        elif self._challenged_s is None:
            self._challenged_s = self._now_s
        held = self._challenged_s is not None and self._now_s - self._challenged_s >= self._options.takeover_s
        likely = max(seated, key=lambda track: track.prominence, default=None)
        if held or (driver is None and best is likely):  # a more prominent face may become stable in a moment
            driver, self._challenged_s = best, None
        self._driver = driver.track_id if driver else None


def _width(face: Face) -> float:
    return face.box_xyxy[2] - face.box_xyxy[0]


def _share_inside(box: BoxXyxy, other: BoxXyxy) -> float:
    """Compute the share of a box that is inside another."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, width) * max(0.0, height) / max((box[2] - box[0]) * (box[3] - box[1]), 1e-12)


def _inside(box: BoxXyxy, region: BoxXyxy | None) -> bool:
    """Tell whether the middle of a box is in a region."""
    if region is None:
        return True
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return region[0] <= x <= region[2] and region[1] <= y <= region[3]
