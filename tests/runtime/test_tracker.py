from __future__ import annotations

import numpy as np
import pytest

from fer_edge.core.errors import FrameError, InputError
from fer_edge.runtime.tracker import FaceTracker, TrackerOptions, box_overlaps, prominence

_SIZE = (640, 480)
_MIDDLE = (270.0, 190.0, 370.0, 290.0)
_SIDE = (20.0, 190.0, 120.0, 290.0)


def _moved(box: tuple[float, float, float, float], across: float) -> tuple[float, float, float, float]:
    return (box[0] + across, box[1], box[2] + across, box[3])


def test_overlaps() -> None:
    boxes = [(0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0), (20.0, 20.0, 30.0, 30.0)]
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(box_overlaps(boxes, boxes), expected)
    assert box_overlaps([], boxes).shape == (0, 3)


def test_prominence_falls_with_size_and_distance() -> None:
    assert prominence(_MIDDLE, _SIZE) > prominence(_SIDE, _SIZE) > 0
    assert prominence((0, 0, 640, 480), _SIZE) == 1


class TestTracks:
    def test_moving_faces_keep_their_numbers_in_any_order(self) -> None:
        tracker = FaceTracker()
        for index in range(10):
            boxes = [_moved(_MIDDLE, 8 * index), _moved(_SIDE, 8 * index)]
            if index % 2:
                boxes.reverse()
            tracks = tracker.update(boxes, timestamp_s=index / 10, image_size=_SIZE)
            numbers = [track.track_id for track in tracks]
            assert numbers == ([2, 1] if index % 2 else [1, 2])
            assert [track.box_xyxy for track in tracks] == boxes

    def test_the_best_overlap_wins(self) -> None:
        tracker = FaceTracker()
        tracker.update([_MIDDLE, _moved(_MIDDLE, 60)], timestamp_s=0.0, image_size=_SIZE)
        tracks = tracker.update([_moved(_MIDDLE, 55), _moved(_MIDDLE, 10)], timestamp_s=0.1, image_size=_SIZE)
        assert [track.track_id for track in tracks] == [2, 1]

    def test_a_face_that_comes_back_in_time_is_the_same(self) -> None:
        tracker = FaceTracker()
        tracker.update([_MIDDLE], timestamp_s=0.0, image_size=_SIZE)
        tracker.update([], timestamp_s=0.5, image_size=_SIZE)
        assert len(tracker.tracks) == 1
        [track] = tracker.update([_MIDDLE], timestamp_s=0.9, image_size=_SIZE)
        assert (track.track_id, track.hits) == (1, 2)

    def test_a_face_that_comes_back_late_is_another(self) -> None:
        tracker = FaceTracker()
        tracker.update([_MIDDLE], timestamp_s=0.0, image_size=_SIZE)
        tracker.update([], timestamp_s=1.1, image_size=_SIZE)
        assert tracker.tracks == ()
        [track] = tracker.update([_MIDDLE], timestamp_s=1.2, image_size=_SIZE)
        assert track.track_id == 2

    @pytest.mark.parametrize("time_s", [1.0, 0.0, float("nan")])
    def test_time_goes_forward(self, time_s: float) -> None:
        tracker = FaceTracker()
        tracker.update([], timestamp_s=1.0, image_size=_SIZE)
        with pytest.raises(FrameError, match="timestamp_s"):
            tracker.update([], timestamp_s=time_s, image_size=_SIZE)


class TestDriver:
    def test_nobody_until_a_face_is_stable(self) -> None:
        tracker = FaceTracker()
        drivers = []
        for index in range(4):
            tracker.update([_MIDDLE], timestamp_s=index / 10, image_size=_SIZE)
            drivers.append(tracker.driver_id)
        assert drivers == [None, None, 1, 1]

    def test_the_most_prominent(self) -> None:
        tracker = FaceTracker()
        for index in range(5):
            tracker.update([_SIDE, _MIDDLE], timestamp_s=index / 10, image_size=_SIZE)
        assert tracker.driver_id == 2

    def test_a_moment_of_prominence_changes_nothing(self) -> None:
        """Someone leans in for two frames; the driver stays the driver."""
        tracker = FaceTracker()
        leaning = (100.0, 100.0, 300.0, 300.0)
        near = (110.0, 110.0, 290.0, 290.0)
        for index in range(20):
            other = leaning if index in (10, 11) else near if index == 12 else (150.0, 150.0, 250.0, 250.0)
            tracker.update([_moved(_MIDDLE, 60), other], timestamp_s=index / 10, image_size=_SIZE)
            if index >= 2:
                assert tracker.driver_id == 1

    def test_a_clearly_more_prominent_face_takes_over(self) -> None:
        tracker = FaceTracker()
        for index in range(10):
            tracker.update([_SIDE], timestamp_s=index / 10, image_size=_SIZE)
        assert tracker.driver_id == 1
        for index in range(10, 40):
            tracker.update([_SIDE, (220.0, 140.0, 420.0, 340.0)], timestamp_s=index / 10, image_size=_SIZE)
        assert tracker.driver_id == 2

    def test_when_the_driver_leaves_the_next_face_is_asked(self) -> None:
        tracker = FaceTracker()
        for index in range(5):
            tracker.update([_SIDE, _MIDDLE], timestamp_s=index / 10, image_size=_SIZE)
        for index in range(5, 20):
            tracker.update([_SIDE], timestamp_s=index / 10, image_size=_SIZE)
        assert tracker.driver_id == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_overlap", 0), ("min_overlap", 1), ("stable_after", 0), ("max_lost_s", 0), ("settle_s", -1), ("takeover", 0)],
)
def test_options_are_checked(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field}: got {value}"):
        TrackerOptions(**{field: value})
