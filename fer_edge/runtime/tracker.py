"""Faces over time, by overlap, and which of them is the driver's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.runtime.estimate import BoxXyxy

__all__ = ["FaceTrack", "FaceTracker", "TrackerOptions", "box_overlaps", "prominence"]

_FIRST_STEP_S: Final = 1 / 30  # what the first frame counts for, which has none before it


def box_overlaps(first: Sequence[BoxXyxy], second: Sequence[BoxXyxy]) -> NDArray[np.float64]:
    """Intersection over union of every box with every other: float64 (len(first), len(second)), 0 to 1."""
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def prominence(box: BoxXyxy, image_size: tuple[int, int]) -> float:
    """Share of the image's area, times a weight that falls from 1 in the middle to 1/2 at the edge: 0 to 1."""
    width, height = image_size
    left, top, right, bottom = box
    across = abs((left + right) / width - 1)
    down = abs((top + bottom) / height - 1)
    return (right - left) * (bottom - top) / (width * height) * (1 - min(1.0, math.hypot(across, down)) / 2)


@dataclass(frozen=True, kw_only=True)
class TrackerOptions:
    """How faces are followed.

    Attributes:
        min_overlap: intersection over union from which a box continues a track.
        max_lost_s: a track that was not seen for longer ends.
        stable_after: times a face must be seen before it can be the driver's.
        settle_s: time in which a face's prominence counts; the driver changes no faster.
        takeover: another face must be this many times as prominent to take the driver's place.
    """

    min_overlap: float = 0.3
    max_lost_s: float = 1.0
    stable_after: int = 3
    settle_s: float = 1.0
    takeover: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.min_overlap < 1:
            raise InputError(f"min_overlap: got {self.min_overlap}, expected between 0 and 1")
        if self.stable_after < 1:
            raise InputError(f"stable_after: got {self.stable_after}, expected 1 or more")
        for name in ("max_lost_s", "settle_s", "takeover"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}: got {value}, expected a positive number")


@dataclass(kw_only=True)
class FaceTrack:
    """One face followed over frames.

    Attributes:
        track_id: its number, from 1; never used again.
        box_xyxy: where it was seen last, in pixels.
        seen_s: when it was seen last.
        hits: how often it was seen.
        prominence: share of the image times nearness to the middle, smoothed over time; a new face's rises from 0.
    """

    track_id: int
    box_xyxy: BoxXyxy
    seen_s: float
    hits: int = 1
    prominence: float = 0.0


class FaceTracker:
    """Greedy matching by overlap, best pair first.

    The driver is the most prominent stable face: large, and near the middle of the image. Once named it stays the
    driver until its track ends or another face has been clearly more prominent for a while (`TrackerOptions`).
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self._options = options or TrackerOptions()
        self._tracks: list[FaceTrack] = []
        self._driver: int | None = None
        self._next_id = 1
        self._now_s: float | None = None

    @property
    def tracks(self) -> tuple[FaceTrack, ...]:
        """The faces being followed, those not seen in the newest frame included; oldest first."""
        return tuple(self._tracks)

    @property
    def driver_id(self) -> int | None:
        """The driver's track, None where no face is stable yet."""
        return self._driver

    def update(
        self, boxes: Sequence[BoxXyxy], *, timestamp_s: float, image_size: tuple[int, int]
    ) -> tuple[FaceTrack, ...]:
        """Continue the tracks with one frame's boxes.

        Args:
            boxes: the faces found, in pixels.
            timestamp_s: when the frame was taken; later than the one before.
            image_size: width and height of the frame.

        Returns:
            The track of each box, in the boxes' order.

        Raises:
            InputError: a time that is not finite or not later.
        """
        if not math.isfinite(timestamp_s) or (self._now_s is not None and timestamp_s <= self._now_s):
            raise InputError(f"timestamp_s: got {timestamp_s}, expected later than {self._now_s}")
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
