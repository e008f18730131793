"""Faces followed through clips with known boxes and identities: textured tiles and a detector that sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from fer_edge.data.faces import draw_face, random_face
from fer_edge.data.faces.scenes import backdrop
from fer_edge.runtime.detector import Face
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.face_finder import FaceFinder
from fer_edge.runtime.flow import carry_faces
from fer_edge.runtime.follower import FaceFollower, FollowedFaces
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.patch import overlap
from fer_edge.runtime.tracker import TrackerOptions

_SIZE = (320, 240)
_RATE = 30.0


def _texture(seed: int, width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)


def _box(x: float, y: float, side: float) -> BoxXyxy:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


@dataclass
class Scene:
    """Tiles in a picture; later ones cover earlier ones, and the detector sees those that are not covered."""

    boxes: list[BoxXyxy | None]
    blind: bool = False
    calls: list[str] = field(default_factory=list)

    def picture(self) -> np.ndarray:
        picture = _texture(99, *_SIZE)
        for seed, box in enumerate(self.boxes):
            if box is not None:
                left, top, right, bottom = (round(edge) for edge in box)
                tile = _texture(seed, right - left, bottom - top)
                x, y = max(0, left), max(0, top)
                part = picture[y:bottom, x:right]
                part[:] = tile[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]]
        return picture

    def visible(self) -> list[BoxXyxy]:
        known = [(index, box) for index, box in enumerate(self.boxes) if box is not None]
        return [
            box
            for index, box in known
            if not self.blind and not any(other > index and overlap(box, cover) > 0.25 for other, cover in known)
        ]


class Seeing:
    """A detector of a scene's tiles that can search near a face."""

    grey = True
    parts = 3

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def detect(self, image: np.ndarray) -> list[BoxXyxy]:
        return [face.box_xyxy for face in self.search(image)]

    def search(self, image: np.ndarray, *, part: int | None = None, tilt_deg: float = 0.0) -> list[Face]:
        self._scene.calls.append("whole" if part is None else f"part {part}")
        return [Face(box_xyxy=box) for box in self._scene.visible() if part in (None, 1)]

    def search_near(self, image: np.ndarray, face: Face) -> Face | None:
        self._scene.calls.append("near")
        near = [box for box in self._scene.visible() if overlap(box, face.box_xyxy) > 0.2]
        best = max(near, key=lambda box: overlap(box, face.box_xyxy), default=None)
        return None if best is None else Face(box_xyxy=best)


def _play(
    frames: int, boxes: Callable[[int], list[BoxXyxy | None]], *, blind: Sequence[int] = (), **options: object
) -> tuple[list[FollowedFaces], Scene]:
    scene = Scene(boxes=boxes(0))
    tracking = TrackerOptions(passengers=True, **options)  # type: ignore[arg-type]
    follower = FaceFollower(FaceFinder(Seeing(scene)), tracking)
    results = []
    for index in range(frames):
        scene.boxes, scene.blind = boxes(index), index in blind
        results.append(follower.update(scene.picture(), timestamp_s=index / _RATE))
    return results, scene


def _at(result: FollowedFaces, box: BoxXyxy) -> int | None:
    """The track that is seen at a box in this frame."""
    seen = [track for track in result.tracks if track.seen_s == result.timestamp_s]
    best = max(seen, key=lambda track: overlap(track.box_xyxy, box), default=None)
    return best.track_id if best and overlap(best.box_xyxy, box) >= 0.5 else None


def test_flow_moves_and_scales_a_box() -> None:
    before, after = _texture(1, *_SIZE), _texture(1, *_SIZE)
    matrix = np.array([[1.03, 0.0, 3.0], [0.0, 1.03, -4.0]])
    after = cv2.warpAffine(before, matrix, _SIZE, borderMode=cv2.BORDER_REPLICATE)
    [face] = carry_faces(before, after, [Face(box_xyxy=(200.0, 160.0, 320.0, 280.0), tilt_deg=5)], scale=0.5)
    assert face is not None
    expected = (200 * 1.03 + 6, 160 * 1.03 - 8, 320 * 1.03 + 6, 280 * 1.03 - 8)
    assert face.box_xyxy == pytest.approx(expected, abs=2)
    assert face.tilt_deg == 5


def test_flow_gives_up_where_nothing_can_be_followed() -> None:
    faces = [Face(box_xyxy=(40.0, 40.0, 120.0, 120.0))]
    assert carry_faces(_texture(1, *_SIZE), _texture(2, *_SIZE), faces, scale=1.0) == [None]
    assert carry_faces(_texture(1, 100, 80), _texture(2, *_SIZE), faces, scale=1.0) == [None]
    outside = [Face(box_xyxy=(900.0, 900.0, 950.0, 950.0))]
    assert len(carry_faces(_texture(1, *_SIZE), _texture(2, *_SIZE), outside, scale=1.0)) == 1


def test_a_moving_face_is_searched_rarely_and_never_twice_in_a_frame() -> None:
    place = lambda index: _box(100 + index, 120, 70)  # noqa: E731
    results, scene = _play(90, lambda index: [place(index)])
    assert {_at(result, place(index)) for index, result in enumerate(results)} == {1}
    assert scene.calls.count("whole") == 1
    near, parts = scene.calls.count("near"), len([call for call in scene.calls if call.startswith("part")])
    assert 25 <= near <= 33, "ten times a second"
    assert 3 <= parts <= 5, "a third of the picture every two thirds of a second"
    assert len(scene.calls) <= 90


def test_flow_carries_a_face_that_the_detector_misses_for_a_bounded_time() -> None:
    place = lambda index: _box(100 + index, 120, 70)  # noqa: E731
    results, _ = _play(120, lambda index: [place(index)], blind=range(20, 120), carry_s=2.0)
    seen = [_at(result, place(index)) for index, result in enumerate(results)]
    assert seen[:78] == [1] * 78
    assert seen[84:] == [None] * 36


def test_boxes_are_smoothed() -> None:
    """The detector's jumps by 4 pixels between hits become at most 2."""
    results, _ = _play(60, lambda index: [_box(160, 120, 70)])
    jump = [result.tracks[0].box_xyxy for result in results]
    assert np.ptp(np.array(jump), axis=0).max() < 1
    scene = Scene(boxes=[_box(160, 120, 70)])
    still, hits = scene.picture(), iter(range(1000))

    class Jumping(Seeing):
        def search_near(self, image: np.ndarray, face: Face) -> Face | None:
            return Face(box_xyxy=_box(160 + 4 * (next(hits) % 2), 120, 70))

    follower = FaceFollower(FaceFinder(Jumping(scene)))
    boxes = [follower.update(still, timestamp_s=index / _RATE).tracks[0].box_xyxy for index in range(60)]
    assert np.abs(np.diff(np.array(boxes)[10:], axis=0)).max() < 2.1


def test_faces_that_cross_keep_their_identities() -> None:
    def boxes(index: int) -> list[BoxXyxy | None]:
        return [_box(60 + 2 * index, 110, 60), _box(260 - 2 * index, 120, 84)]  # the second is nearer

    results, _ = _play(100, boxes)
    far, near = (_at(results[30 - 15], box) for box in boxes(15) if box)
    assert {far, near} == {1, 2}
    assert [_at(result, boxes(index)[1] or (0, 0, 0, 0)) for index, result in enumerate(results)] == [near] * 100
    assert [_at(results[index], boxes(index)[0] or (0, 0, 0, 0)) for index in range(90, 100)] == [far] * 10
    assert max(track.track_id for track in results[-1].tracks) == 2, "no face became a third one"


@pytest.mark.parametrize(("away", "expected"), [(20, 1), (60, 2)])
def test_a_face_that_is_covered_for_a_second_is_the_same(away: int, expected: int) -> None:
    place = _box(160, 120, 70)
    results, _ = _play(130, lambda index: [None if 30 <= index < 30 + away else place])
    assert _at(results[29], place) == 1
    assert _at(results[35], place) is None
    assert _at(results[-1], place) == expected


def test_a_new_face_is_found_while_another_is_followed() -> None:
    driver, guest = _box(100, 120, 80), _box(250, 120, 60)
    results, _ = _play(120, lambda index: [driver, guest if index >= 20 else None])
    delay = next(index for index, result in enumerate(results) if _at(result, guest)) - 20
    assert delay <= 62, "within the two seconds of a sweep"
    assert {_at(result, driver) for result in results} == {1}


def test_where_no_face_is_visible_the_whole_picture_is_searched() -> None:
    """The face jumps; flow cannot carry it, and it is found again within a fifth of a second."""
    before, after = _box(70, 120, 60), _box(250, 120, 60)
    results, scene = _play(60, lambda index: [None if 30 <= index < 36 else before if index < 30 else after])
    assert _at(results[29], before) == 1
    assert next(index for index, result in enumerate(results) if _at(result, after)) <= 36 + 6
    assert 3 <= scene.calls.count("whole") <= 6


def test_a_hit_that_is_not_found_again_ends_soon() -> None:
    place = _box(160, 120, 70)
    results, _ = _play(60, lambda index: [place], blind=range(1, 60))
    assert _at(results[5], place) == 1
    assert [track for track in results[45].tracks if track.seen_s == results[45].timestamp_s] == []
    assert results[-1].tracks == ()
    assert {result.driver_id for result in results} == {None}


def test_a_detector_of_whole_frames_runs_ten_times_a_second() -> None:
    scene = Scene(boxes=[_box(160, 120, 70)])

    class Whole:
        grey = True

        def detect(self, image: np.ndarray) -> list[BoxXyxy]:
            return Seeing(scene).detect(image)

    follower = FaceFollower(FaceFinder(Whole()))
    picture = scene.picture()
    results = [follower.update(picture, timestamp_s=index / _RATE) for index in range(60)]
    assert {_at(result, _box(160, 120, 70)) for result in results} == {1}
    assert 18 <= len(scene.calls) <= 21


def test_drawn_people_are_followed_by_haar_upright_and_tilted() -> None:
    rng = np.random.default_rng(3)
    scene = backdrop(640, 480, rng, clutter=0.3)
    people = [random_face(rng, "neutral", turn=0.0) for _ in range(2)]
    follower = FaceFollower(FaceFinder(HaarDetector()), TrackerOptions(passengers=True))
    counts, ids = np.zeros(2, int), (set[int](), set[int]())
    for index in range(60):
        boxes = [_box(180 + index, 200, 130), _box(460 - 0.5 * index, 240, 150)]
        picture = scene
        for person, box in zip(people, boxes, strict=True):
            picture = draw_face(person, picture, box_xyxy=box)
        if index >= 30:  # the camera tilts by up to 20 degrees about the second face
            middle = ((boxes[1][0] + boxes[1][2]) / 2, (boxes[1][1] + boxes[1][3]) / 2)
            turn = cv2.getRotationMatrix2D(middle, min(20.0, index - 30), 1.0)
            picture = cv2.warpAffine(picture, turn, (640, 480), borderMode=cv2.BORDER_REPLICATE)
            corner = turn @ ((boxes[0][0] + boxes[0][2]) / 2, (boxes[0][1] + boxes[0][3]) / 2, 1)
            boxes[0] = _box(float(corner[0]), float(corner[1]), 130)
        result = follower.update(picture, timestamp_s=index / _RATE)
        for number, box in enumerate(boxes):
            found = _at(result, box)
            if found is not None:
                counts[number] += 1
                ids[number].add(found)
    assert counts.min() >= 54
    assert sorted(len(each) for each in ids) == [1, 1]
