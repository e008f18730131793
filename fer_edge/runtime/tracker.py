"""Tracks faces over frames by box overlap, and chooses the driver's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.runtime.arguments import check_timestamp, check_type, number, whole_number
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["FaceTrack", "FaceTracker", "TrackerOptions", "box_overlaps", "prominence"]

_FIRST_STEP_S: Final = 1 / 30  # assumed before the first frame


def box_overlaps(first: Sequence[BoxXyxy], second: Sequence[BoxXyxy]) -> NDArray[np.float64]:
    """Compute the intersection over union of all pairs of boxes: float64 (len(first), len(second)), 0 to 1."""
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def prominence(box: BoxXyxy, image_size: tuple[int, int]) -> float:
    """Compute the box's share of the image, weighted 1 in the middle to 1/2 at the edge: 0 to 1."""
    width, height = image_size
    left, top, right, bottom = box
    across = abs((left + right) / width - 1)
    down = abs((top + bottom) / height - 1)
    return (right - left) * (bottom - top) / (width * height) * (1 - min(1.0, math.hypot(across, down)) / 2)


@dataclass(frozen=True, kw_only=True)
class TrackerOptions:
    """How faces are tracked, and how the driver is chosen.

    Attributes:
        min_overlap: smallest intersection over union with which a box continues a track.
        max_lost_s: a track ends when its face was not found for longer.
        stable_after: frames in which a face must be found before it can be the driver's.
        settle_s: time constant of the smoothed prominence; the driver changes no faster.
        takeover: another face must be this many times as prominent to become the driver's.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> from fer_edge.runtime import TrackerOptions
        >>> TrackerOptions(max_lost_s=0.5).stable_after
        3
    """

    min_overlap: float = 0.3
    max_lost_s: float = 1.0
    stable_after: int = 3
    settle_s: float = 1.0
    takeover: float = 1.5

    def __post_init__(self) -> None:
        for name in ("min_overlap", "max_lost_s", "settle_s", "takeover"):
            number(name, getattr(self, name))
        if self.min_overlap >= 1:
            raise InputError(f"min_overlap: got {self.min_overlap}, expected between 0 and 1")
        whole_number("stable_after", self.stable_after, least=1)


@dataclass(kw_only=True)
class FaceTrack:
    """One tracked face.

    Attributes:
        track_id: its number, from 1; never reused.
        box_xyxy: its last box, in pixels.
        seen_s: time of the last frame in which it was found.
        hits: number of frames in which it was found.
        prominence: `prominence` of its boxes, smoothed over time from 0.
    """

    track_id: int
    box_xyxy: BoxXyxy
    seen_s: float
    hits: int = 1
    prominence: float = 0.0


class FaceTracker:
    """Matches boxes to tracks greedily by overlap, best pair first.

    The driver is the most prominent stable face: large, and near the middle of the image. It stays the driver until its
    track ends or another face has been clearly more prominent for a while (`TrackerOptions`).
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self._options = TrackerOptions() if options is None else options
        check_type("tracking", self._options, TrackerOptions, "TrackerOptions")
        self._tracks: list[FaceTrack] = []
        self._driver: int | None = None
        self._next_id = 1
        self._now_s: float | None = None

    @property
    def tracks(self) -> tuple[FaceTrack, ...]:
        """The tracked faces, including those not found in the newest frame; oldest first."""
        return tuple(self._tracks)

    @property
    def driver_id(self) -> int | None:
        """Track id of the driver's face, None where no face is stable yet."""
        return self._driver

    def check_time(self, timestamp_s: float) -> float:
        """Check a time as `update` does, before any work is done for its frame.

        Raises:
            FrameError: a time that is not finite or not later.
        """
        return check_timestamp(timestamp_s, previous_s=self._now_s)

    def update(
        self, boxes: Sequence[BoxXyxy], *, timestamp_s: float, image_size: tuple[int, int]
    ) -> tuple[FaceTrack, ...]:
        """Continue the tracks with the boxes of one frame.

        Args:
            boxes: boxes of the faces, in pixels.
            timestamp_s: capture time of the frame; later than the previous one.
            image_size: width and height of the frame.

        Returns:
            The track of each box, in the boxes' order.

        Raises:
            FrameError: a time that is not finite or not later.
        """
        timestamp_s = self.check_time(timestamp_s)
        elapsed_s = _FIRST_STEP_S if self._now_s is None else timestamp_s - self._now_s
        self._now_s = timestamp_s
        self._tracks = [track for track in self._tracks if timestamp_s - track.seen_s <= self._options.max_lost_s]
        matched = self._match(boxes)
        for index, box in enumerate(boxes):
            track = matched.get(index)
            if track is None:
                track = FaceTrack(track_id=self._next_id, box_xyxy=box, seen_s=timestamp_s)
                self._next_id += 1
                self._tracks.append(track)
                matched[index] = track
            else:
                track.box_xyxy, track.seen_s, track.hits = box, timestamp_s, track.hits + 1
        self._weigh(image_size, elapsed_s)
        self._choose_driver()
        return tuple(matched[index] for index in range(len(boxes)))

    def _match(self, boxes: Sequence[BoxXyxy]) -> dict[int, FaceTrack]:
        matched: dict[int, FaceTrack] = {}
        if not boxes or not self._tracks:
            return matched
        overlaps = box_overlaps([track.box_xyxy for track in self._tracks], boxes)
        taken: set[int] = set()
        for flat in np.argsort(-overlaps, axis=None, kind="stable"):
            row, column = divmod(int(flat), len(boxes))
            if overlaps[row, column] < self._options.min_overlap:
                break
            if column not in matched and row not in taken:
                matched[column] = self._tracks[row]
                taken.add(row)
        return matched

    def _weigh(self, image_size: tuple[int, int], elapsed_s: float) -> None:
        share = 1 - math.exp(-elapsed_s / self._options.settle_s)
        for track in self._tracks:
            seen = prominence(track.box_xyxy, image_size) if track.seen_s == self._now_s else 0.0
            track.prominence += share * (seen - track.prominence)

    def _choose_driver(self) -> None:
        stable = [track for track in self._tracks if track.hits >= self._options.stable_after]
        best = max(stable, key=lambda track: track.prominence, default=None)
        driver = next((track for track in stable if track.track_id == self._driver), None)
        if driver is None or (best and best.prominence > self._options.takeover * driver.prominence):
            driver = best
        self._driver = driver.track_id if driver else None
