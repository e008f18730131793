from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from fer_edge.core.cascade import load_cascade
from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data.faces import Face, draw_face, face_in_scene, random_face
from fer_edge.data.faces.people import EXPRESSION_UNITS, ActionUnits, Identity
from fer_edge.data.faces.scenes import apply_camera, backdrop, cabin, random_cloth
from fer_edge.runtime.haar_detector import HaarDetector

GREY = np.full((120, 120, 3), 128, np.uint8)
BOX = (20.0, 20.0, 100.0, 100.0)


def drawn(**parts: object) -> np.ndarray:
    return draw_face(Face(**parts), GREY, box_xyxy=BOX)  # type: ignore[arg-type]


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(first.astype(int) - second).mean(axis=2)


class TestPeople:
    def test_every_expression_has_units_and_neutral_has_none(self) -> None:
        assert tuple(EXPRESSION_UNITS) == EXPRESSIONS
        for expression, variants in EXPRESSION_UNITS.items():
            assert all((variant == ActionUnits()) == (expression == "neutral") for variant in variants)

    def test_scaling(self) -> None:
        assert ActionUnits(au12=0.8, au6=0.4).scaled(0.5) == ActionUnits(au12=0.4, au6=0.2)

    def test_an_unknown_expression(self) -> None:
        with pytest.raises(InputError, match="'bored'"):
            random_face(np.random.default_rng(0), "bored")


class TestDrawFace:
    def test_the_background_stays_and_is_not_changed(self) -> None:
        picture = drawn()
        assert (picture.dtype, picture.shape) == (np.uint8, GREY.shape)
        assert (GREY == 128).all()
        assert (picture[:3, :3] == 128).all()
        assert (difference(picture, GREY)[30:90, 30:90] > 2).mean() > 0.9

    def test_each_expression_changes_the_face_where_its_units_act(self) -> None:
        neutral = drawn()
        brows, mouth = np.s_[35:55, 30:90], np.s_[70:95, 35:85]
        for units, part, other in (
            (ActionUnits(au1=1, au2=1), brows, mouth),
            (ActionUnits(au4=1), brows, mouth),
            (ActionUnits(au25=1, au26=1), mouth, brows),
            (ActionUnits(au15=1), mouth, brows),
        ):
            change = difference(drawn(units=units), neutral)
            assert change[part].mean() > 3 * change[other].mean()

    def test_a_turn_to_the_left_mirrors_one_to_the_right(self) -> None:
        front = {"light_deg": 0.0, "identity": Identity(hair="bald")}
        left, right = (drawn(yaw_deg=yaw, **front) for yaw in (-25.0, 25.0))
        asymmetry = difference(left, right[:, ::-1]).mean()
        assert difference(left, right).mean() > 3 * asymmetry
        assert difference(left, drawn(**front)).mean() > 2 * asymmetry

    def test_light_comes_from_its_side(self) -> None:
        from_left, from_right = (drawn(light_deg=angle, contrast=0.8) for angle in (-60.0, 60.0))
        left_cheek, right_cheek = np.s_[60:75, 30:42], np.s_[60:75, 78:90]
        assert from_left[left_cheek].mean() > from_left[right_cheek].mean() + 15
        assert from_right[right_cheek].mean() > from_right[left_cheek].mean() + 15

    def test_identity_changes_hair_beard_and_glasses(self) -> None:
        plain = Identity(hair="bald")
        for part in ({"hair": "long"}, {"beard": True}, {"glasses": True}, {"skin": (60.0, 80.0, 120.0)}):
            other = dataclasses.replace(plain, **part)  # type: ignore[arg-type]
            assert difference(drawn(identity=plain), drawn(identity=other)).max() > 40

    def test_a_box_over_the_edge_is_drawn_in_part(self) -> None:
        for box in ((-50.0, -50.0, 30.0, 30.0), (80.0, 90.0, 160.0, 170.0)):
            picture = draw_face(Face(), GREY, box_xyxy=box)
            assert 0.02 < (difference(picture, GREY) > 0).mean() < 0.9
        beside = draw_face(Face(), GREY, box_xyxy=(1000.0, 0.0, 1080.0, 80.0))
        assert (beside == GREY).all()

    @pytest.mark.parametrize(
        ("background", "box", "named"),
        [
            (GREY[..., 0], BOX, "background: got .*uint8"),
            (GREY.astype(np.float32), BOX, "background: got .*float32"),
            (GREY[:0], BOX, "background"),
            (GREY, (0.0, 0.0, 40.0, 80.0), "box_xyxy"),
            (GREY, (0.0, 0.0, 8.0, 8.0), "at least 16 pixels"),
            (GREY, (0.0, 0.0, float("nan"), 8.0), "finite"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, background: np.ndarray, box: tuple[float, ...], named: str) -> None:
        with pytest.raises(InputError, match=named):
            draw_face(Face(), background, box_xyxy=box)  # type: ignore[arg-type]


def test_blur_smooths_and_noise_roughens() -> None:
    picture = drawn()

    def roughness(**camera: float) -> float:
        seen = apply_camera(picture, np.random.default_rng(0), **{"blur": 0.0, "noise": 0.0, **camera})
        return float(np.abs(np.diff(seen.astype(int), axis=1)).mean())

    assert roughness(blur=4.0) < roughness() < roughness(noise=10.0) - 3


def test_a_scene_too_small_is_refused() -> None:
    with pytest.raises(InputError, match=r"size: got \(8, 200\)"):
        cabin(8, 200, np.random.default_rng(0))


def test_haar_finds_frontal_faces() -> None:
    """The plain cascade finds 95 % of frontal faces of 64 to 160 pixels; the product's faster search, nine of ten."""
    cascade, detector, count = load_cascade(), HaarDetector(), 70
    by_cascade = by_detector = 0
    for index in range(count):
        rng = np.random.default_rng((2024, index))
        side = rng.uniform(64, 160)
        x, y = rng.uniform(20, 300 - side), rng.uniform(20, 225 - side)
        box = (x, y, x + side, y + side)
        room = cabin(320, 240, rng) if index % 2 else backdrop(320, 240, rng, clutter=0.6)
        face = random_face(rng, EXPRESSIONS[index % 7], turn=0.3)
        picture = face_in_scene(face, room, box_xyxy=box, cloth=random_cloth(rng))
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
        hits = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(36, 36))
        by_cascade += any(overlap(box, (x, y, x + w, y + h)) >= 0.5 for x, y, w, h in hits)
        by_detector += any(overlap(box, other) >= 0.5 for other in detector.detect(picture))
    assert by_cascade >= 0.95 * count
    assert by_detector >= 0.9 * count


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)
