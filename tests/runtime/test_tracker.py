from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fer_edge.core.errors import FrameError, InputError
from fer_edge.runtime.detector import Face
from fer_edge.runtime.patch import box_overlaps, overlap
from fer_edge.runtime.tracker import FaceTrack, FaceTracker, TrackerOptions, prominence

_SIZE = (640, 480)
_MIDDLE = (270.0, 190.0, 370.0, 290.0)
_SIDE = (20.0, 190.0, 120.0, 290.0)


def _moved(box: tuple[float, float, float, float], across: float) -> tuple[float, float, float, float]:
    return (box[0] + across, box[1], box[2] + across, box[3])


def _update(
    tracker: FaceTracker, boxes: Sequence[tuple[float, float, float, float]], time_s: float, **carried: Any
) -> tuple[FaceTrack, ...]:
    faces = [Face(box_xyxy=box) for box in boxes]
    return tracker.update(faces, timestamp_s=time_s, image_size=_SIZE, **carried)


def test_overlaps() -> None:
    boxes = [(0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0), (20.0, 20.0, 30.0, 30.0)]
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(box_overlaps(boxes, boxes), expected)
    assert box_overlaps([], boxes).shape == (0, 3)
    assert [overlap(boxes[0], box) for box in boxes] == pytest.approx(expected[0])


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
            tracks = _update(tracker, boxes, index / 10)
            numbers = [track.track_id for track in tracks]
            assert numbers == ([2, 1] if index % 2 else [1, 2])
            assert [track.box_xyxy for track in tracks] == boxes

    def test_the_best_overlap_wins(self) -> None:
        tracker = FaceTracker()
        _update(tracker, [_MIDDLE, _moved(_MIDDLE, 60)], 0.0)
        tracks = _update(tracker, [_moved(_MIDDLE, 55), _moved(_MIDDLE, 10)], 0.1)
        assert [track.track_id for track in tracks] == [2, 1]

    def test_a_face_that_comes_back_in_time_is_the_same(self) -> None:
        tracker = FaceTracker()
        _update(tracker, [_MIDDLE], 0.0)
        _update(tracker, [], 0.5)
        assert len(tracker.tracks) == 1
        [track] = _update(tracker, [_MIDDLE], 0.9)
        assert (track.track_id, track.hits) == (1, 2)

    def test_a_face_that_comes_back_late_is_another(self) -> None:
        tracker = FaceTracker()
        _update(tracker, [_MIDDLE], 0.0)
        _update(tracker, [], 1.1)
        assert tracker.tracks == ()
        [track] = _update(tracker, [_MIDDLE], 1.2)
        assert track.track_id == 2

    @pytest.mark.parametrize("time_s", [1.0, 0.0, float("nan")])
    def test_time_goes_forward(self, time_s: float) -> None:
        tracker = FaceTracker()
        _update(tracker, [], 1.0)
        with pytest.raises(FrameError, match="timestamp_s"):
            _update(tracker, [], time_s)


class TestDriver:
    def test_nobody_until_a_face_is_stable(self) -> None:
        tracker = FaceTracker()
        drivers = []
        for index in range(4):
            _update(tracker, [_MIDDLE], index / 10)
            drivers.append(tracker.driver_id)
        assert drivers == [None, None, 1, 1]

    def test_the_most_prominent(self) -> None:
        tracker = FaceTracker()
        for index in range(5):
            _update(tracker, [_SIDE, _MIDDLE], index / 10)
        assert tracker.driver_id == 2

    def test_a_moment_of_prominence_changes_nothing(self) -> None:
        """Someone leans in for two frames; the driver stays the driver."""
        tracker = FaceTracker()
        leaning = (100.0, 100.0, 300.0, 300.0)
        near = (110.0, 110.0, 290.0, 290.0)
        for index in range(20):
            other = leaning if index in (10, 11) else near if index == 12 else (150.0, 150.0, 250.0, 250.0)
            _update(tracker, [_moved(_MIDDLE, 60), other], index / 10)
            if index >= 2:
                assert tracker.driver_id == 1

    def test_a_clearly_more_prominent_face_takes_over(self) -> None:
        tracker = FaceTracker()
        for index in range(10):
            _update(tracker, [_SIDE], index / 10)
        assert tracker.driver_id == 1
        for index in range(10, 40):
            _update(tracker, [_SIDE, (220.0, 140.0, 420.0, 340.0)], index / 10)
        assert tracker.driver_id == 2

    def test_when_the_driver_leaves_the_next_face_is_asked(self) -> None:
        tracker = FaceTracker()
        for index in range(5):
            _update(tracker, [_SIDE, _MIDDLE], index / 10)
        for index in range(5, 20):
            _update(tracker, [_SIDE], index / 10)
        assert tracker.driver_id == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_overlap", 0),
        ("min_overlap", 1),
        ("stable_after", 0),
        ("max_lost_s", 0),
        ("settle_s", -1),
        ("takeover", 0),
        ("search_s", 0),
        ("seat", "middle"),
        ("driver_roi", (1, 0, 0, 1)),
        ("driver_roi", (0, 1)),
        ("driver_roi", 7),
        ("passengers", 1),
    ],
)
def test_options_are_checked(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{field}: got {re.escape(repr(value))}"):
        TrackerOptions(**{field: value})


class TestIdentity:
    @pytest.mark.parametrize("step", [20, 50, 70])
    @pytest.mark.parametrize("back", [False, True])
    def test_a_face_that_walks_over_a_hidden_ones_place_does_not_take_its_number(self, step: int, back: bool) -> None:
        """Also where it moves so far between two frames that its boxes hardly overlap."""
        tracker, number = FaceTracker(), {}
        for index in range(-6, 7):
            walking = _moved(_MIDDLE, step * (-index if back else index))
            boxes = {"walking": walking} | ({"sitting": _MIDDLE} if index in (-6, -5, -4, 6) else {})
            for name, track in zip(boxes, _update(tracker, list(boxes.values()), (index + 6) / 20), strict=True):
                assert number.setdefault(name, track.track_id) == track.track_id

    def test_flow_and_detector_are_averaged(self) -> None:
        tracker = FaceTracker()
        _update(tracker, [_MIDDLE], 0.0)
        carried = {1: Face(box_xyxy=_moved(_MIDDLE, 10), tilt_deg=4.0)}
        [track] = _update(tracker, [_moved(_MIDDLE, 20)], 0.1, carried=carried)
        assert track.box_xyxy == _moved(_MIDDLE, 15)
        assert (track.face.tilt_deg, track.hits, track.found_s) == (2.0, 2, 0.1)
        _update(tracker, [], 0.2, carried={1: Face(box_xyxy=_moved(_MIDDLE, 17))})
        assert (track.box_xyxy, track.seen_s, track.found_s) == (_moved(_MIDDLE, 17), 0.2, 0.1)

    def test_of_two_carried_to_one_place_the_nearer_stays(self) -> None:
        tracker = FaceTracker()
        near = (250.0, 170.0, 390.0, 310.0)
        _update(tracker, [_SIDE, near], 0.0)
        _update(tracker, [], 0.1, carried={1: Face(box_xyxy=_MIDDLE), 2: Face(box_xyxy=near)})
        far, large = tracker.tracks
        assert (far.box_xyxy, far.seen_s) == (_SIDE, 0.0), "it waits where it was last seen"
        assert (large.box_xyxy, large.seen_s) == (near, 0.1)


class TestSeat:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"seat": "left"}, 1),
            ({"seat": "right"}, 2),
            ({"driver_roi": (0.0, 0.0, 0.4, 1.0)}, 1),
            ({"driver_roi": (0.0, 0.0, 200.0, 480.0)}, 1),
            ({"driver_roi": (250.0, 100.0, 600.0, 400.0)}, 2),
            ({}, 2),
        ],
    )
    def test_the_driver_sits_in_the_region(self, options: dict[str, Any], expected: int) -> None:
        tracker = FaceTracker(TrackerOptions(**options))
        for index in range(10):
            _update(tracker, [_SIDE, _moved(_MIDDLE, 60)], index / 10)
        assert tracker.driver_id == expected

    def test_a_passenger_who_leans_in_does_not_become_the_driver(self) -> None:
        tracker = FaceTracker(TrackerOptions(seat="left"))
        drivers = set()
        for index in range(60):
            lean = min(max(index - 10, 0), 20)  # over two seconds, into the left half and nearer
            middle, half = 510 - 11 * lean, 50 + 3 * lean
            passenger = (middle - half, 240.0 - half, middle + half, 240.0 + half)
            step = [_SIDE, passenger] if index < 30 else [passenger]  # the driver is covered for three seconds
            _update(tracker, step, index / 10)
            if index >= 2:
                drivers.add(tracker.driver_id)
        assert drivers == {1, None}

    def test_nobody_in_the_region_is_no_driver(self) -> None:
        tracker = FaceTracker(TrackerOptions(seat="right"))
        for index in range(10):
            _update(tracker, [_SIDE], index / 10)
        assert tracker.driver_id is None
        assert tracker.likely_driver_id is None
