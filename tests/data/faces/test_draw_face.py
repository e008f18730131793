from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data.faces import Face, draw_face, face_in_scene, random_face
from fer_edge.data.faces.parameters import EXPRESSION_UNITS, ActionUnits, Camera, Identity, Light, Occlusion, Pose
from fer_edge.data.faces.random_source import Draws
from fer_edge.data.faces.render import apply_camera
from fer_edge.data.faces.scenes import backdrop, cabin
from fer_edge.runtime.detector import HaarDetector

GREY = np.full((120, 120, 3), 128, np.uint8)
BOX = (20.0, 20.0, 100.0, 100.0)


def drawn(**parts: object) -> np.ndarray:
    return draw_face(Face(**parts), GREY, box_xyxy=BOX)  # type: ignore[arg-type]


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(first.astype(int) - second).mean(axis=2)


class TestParameters:
    def test_every_expression_has_units_and_neutral_has_none(self) -> None:
        assert tuple(EXPRESSION_UNITS) == EXPRESSIONS
        assert EXPRESSION_UNITS["neutral"] == (ActionUnits(),)
        for expression in EXPRESSIONS[:-1]:
            assert all(variant != ActionUnits() for variant in EXPRESSION_UNITS[expression])

    def test_scaling(self) -> None:
        units = ActionUnits(au12=0.8, au6=0.4)
        assert units.scaled(0.5) == ActionUnits(au12=0.4, au6=0.2)
        assert units.scaled(0.0) == ActionUnits()

    @pytest.mark.parametrize(
        ("make", "named"),
        [
            (lambda: ActionUnits(au12=1.2), "au12: got 1.2, expected 0 to 1"),
            (lambda: ActionUnits(au1=float("nan")), "au1: got nan"),
            (lambda: ActionUnits().scaled(-0.1), "intensity: got -0.1"),
            (lambda: Pose(yaw_deg=60), "yaw_deg: got 60, expected -35 to 35"),
            (lambda: Light(contrast=2), "contrast: got 2"),
            (lambda: Camera(noise=-1), "noise: got -1"),
            (lambda: Identity(jaw_width=3), "jaw_width: got 3"),
            (lambda: Occlusion(kind="bar", x=9, y=0), "x: got 9"),
            (lambda: Draws(-1), "seed"),
        ],
    )
    def test_values_out_of_range_are_named(self, make: object, named: str) -> None:
        with pytest.raises(InputError, match=named):
            make()  # type: ignore[operator]


class TestDraws:
    def test_the_stream_never_changes(self) -> None:
        """PCG64 under SeedSequence, as NumPy has had it since 1.17: these figures hold in every version."""
        draws = Draws(3, 1, 4)
        assert [round(draws.between(0, 1), 6) for _ in range(3)] == [0.721386, 0.916054, 0.067128]
        assert Draws(3, 1, 5).between(0, 1) != Draws(3, 1, 4).between(0, 1)

    def test_pick_follows_the_weights(self) -> None:
        draws = Draws(0)
        picked = [draws.pick(("a", "b", "c"), (0, 3, 1)) for _ in range(400)]
        assert "a" not in picked
        assert 250 < picked.count("b") < 350

    def test_field_is_standardised(self) -> None:
        field = Draws(0).field((100, 100))
        assert field.dtype == np.float32
        assert abs(field.mean()) < 0.03
        assert abs(field.std() - 1) < 0.03


class TestDrawFace:
    def test_the_background_stays_and_is_not_changed(self) -> None:
        picture = drawn()
        assert picture.dtype == np.uint8
        assert picture.shape == GREY.shape
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
        front = {"light": Light(azimuth_deg=0), "identity": Identity(hair="bald")}
        left, right = (drawn(pose=Pose(yaw_deg=yaw), **front) for yaw in (-25.0, 25.0))
        asymmetry = difference(left, right[:, ::-1]).mean()
        assert difference(left, right).mean() > 3 * asymmetry
        assert difference(left, drawn(**front)).mean() > 2 * asymmetry

    def test_light_comes_from_its_side(self) -> None:
        from_left = drawn(light=Light(azimuth_deg=-60, contrast=0.8))
        from_right = drawn(light=Light(azimuth_deg=60, contrast=0.8))
        left_cheek, right_cheek = np.s_[60:75, 30:42], np.s_[60:75, 78:90]
        assert from_left[left_cheek].mean() > from_left[right_cheek].mean() + 15
        assert from_right[right_cheek].mean() > from_right[left_cheek].mean() + 15

    @pytest.mark.parametrize("kind", ["hand", "bar", "glare"])
    def test_an_occlusion_covers_its_place(self, kind: str) -> None:
        plain = drawn()
        covered = drawn(occlusion=Occlusion(kind=kind, x=0.0, y=0.6, size=0.3))  # type: ignore[arg-type]
        change = difference(plain, covered)
        assert change[75:95, 40:80].mean() > 10
        assert change[:25].mean() < 2

    def test_identity_changes_hair_beard_and_glasses(self) -> None:
        plain = Identity(hair="bald")
        for part in ({"hair": "long"}, {"beard": "full"}, {"glasses": "thick"}, {"skin": (60.0, 80.0, 120.0)}):
            other = dataclasses.replace(plain, **part)
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
            (GREY[..., 0], BOX, r"background: got uint8 \(120, 120\)"),
            (GREY.astype(np.float32), BOX, "background: got float32"),
            (GREY[:0], BOX, "background"),
            (GREY, (0.0, 0.0, 40.0, 80.0), "box_xyxy"),
            (GREY, (0.0, 0.0, 8.0, 8.0), "at least 16 pixels"),
            (GREY, (0.0, 0.0, float("nan"), 8.0), "finite"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, background: np.ndarray, box: tuple[float, ...], named: str) -> None:
        with pytest.raises(InputError, match=named):
            draw_face(Face(), background, box_xyxy=box)  # type: ignore[arg-type]


class TestCamera:
    def test_blur_smooths_and_noise_roughens(self) -> None:
        picture = drawn()

        def roughness(image: np.ndarray) -> float:
            return float(np.abs(np.diff(image.astype(int), axis=1)).mean())

        plain = apply_camera(picture, Camera(), box_side=80, draws=Draws(0))
        assert (plain == picture).all()
        blurred = apply_camera(picture, Camera(blur=0.05), box_side=80, draws=Draws(0))
        smeared = apply_camera(picture, Camera(motion_blur=0.1), box_side=80, draws=Draws(0))
        noisy = apply_camera(picture, Camera(noise=10), box_side=80, draws=Draws(0))
        assert roughness(blurred) < roughness(picture)
        assert roughness(smeared) < roughness(picture)
        assert roughness(noisy) > roughness(picture) + 3

    def test_grey_pictures_too(self) -> None:
        grey = drawn()[..., 0]
        assert apply_camera(grey, Camera(noise=5), box_side=80, draws=Draws(0)).shape == grey.shape


def test_a_scene_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="8x200"):
        cabin(8, 200, Draws(0))


def test_haar_finds_frontal_faces() -> None:
    """At least 95 % of frontal faces of 64 to 160 pixels, in rooms and cars."""
    detector, found, count = HaarDetector(), 0, 70
    for index in range(count):
        draws = Draws(2024, index)
        side = draws.between(64, 160)
        x, y = draws.between(20, 300 - side), draws.between(20, 225 - side)
        box = (x, y, x + side, y + side)
        room = cabin(320, 240, draws) if index % 2 else backdrop(320, 240, draws, clutter=0.6)
        face = random_face(draws, EXPRESSIONS[index % 7], frontal=True)
        picture = face_in_scene(face, room, draws, box_xyxy=box)
        found += any(overlap(box, other) >= 0.5 for other in detector.detect(picture))
    assert found >= 0.95 * count


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)
