from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from normalisation import normalise

from fer_edge.core.errors import FrameError, InputError, MissingPackageError
from fer_edge.core.preprocess import (
    PreprocessSpec,
    crop_rectangle,
    cut_face,
    prepare_face,
    prepare_stills,
    to_grey,
)


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class TestSpec:
    def test_json_comes_back(self) -> None:
        spec = PreprocessSpec(size=64, margin=0.1, square=False, alignment="eyes", interpolation="cubic", median=3)
        assert PreprocessSpec.from_json(spec.to_json()) == spec

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("size", 4),
            ("size", 48.0),
            ("size", True),
            ("margin", float("nan")),
            ("margin", 3.0),
            ("alignment", "nose"),
            ("interpolation", "lanczos"),
            ("median", 4),
            ("normalisation", "z"),
        ],
    )
    def test_refuses_and_names_the_field(self, field: str, value: Any) -> None:
        with pytest.raises(InputError, match=rf"^{field}: got .*, expected"):
            PreprocessSpec(**{field: value})

    def test_unknown_key_gets_the_nearest(self) -> None:
        with pytest.raises(InputError, match="marginn: unknown field; did you mean 'margin'"):
            PreprocessSpec.from_json({"marginn": 0.1})


class TestCut:
    def test_inside_is_the_box(self) -> None:
        image = _noise(40, 50)
        crop = cut_face(image, (10, 5, 26, 21), PreprocessSpec(size=16))
        np.testing.assert_array_equal(crop, image[5:21, 10:26])

    def test_margin_widens_every_side(self) -> None:
        image = _noise(40, 50)
        crop = cut_face(image, (14, 9, 22, 17), PreprocessSpec(size=16, margin=0.5))
        np.testing.assert_array_equal(crop, image[5:21, 10:26])

    def test_square_widens_the_shorter_side_about_the_centre(self) -> None:
        image = _noise(40, 50)
        crop = cut_face(image, (14, 5, 22, 21), PreprocessSpec(size=16))
        np.testing.assert_array_equal(crop, image[5:21, 10:26])

    def test_without_square_the_box_keeps_its_shape(self) -> None:
        image = _noise(40, 50)
        crop = cut_face(image, (10, 5, 42, 21), PreprocessSpec(size=16, square=False))
        np.testing.assert_array_equal(crop, image[5:21, 10:42])

    def test_beyond_the_border_repeats_it(self) -> None:
        image = _noise(40, 50)
        crop = cut_face(image, (-8, -8, 8, 8), PreprocessSpec(size=16))
        np.testing.assert_array_equal(crop[8:, 8:], image[:8, :8])
        assert (crop[:8, :8] == image[0, 0]).all()
        far = cut_face(image, (42, 32, 58, 48), PreprocessSpec(size=16))
        np.testing.assert_array_equal(far[:8, :8], image[32:, 42:])
        assert (far[8:, 8:] == image[-1, -1]).all()

    def test_colour_is_bgr(self) -> None:
        image = np.zeros((16, 16, 3), np.uint8)
        image[..., 2] = 255
        assert (cut_face(image, (0, 0, 16, 16), PreprocessSpec(size=16)) == 76).all()  # red weighs 0.299

    def test_eyes_are_made_level(self) -> None:
        image = np.zeros((80, 80), np.uint8)
        cv2.circle(image, (30, 30), 3, 255, -1)
        cv2.circle(image, (50, 50), 3, 255, -1)
        spec = PreprocessSpec(size=64, alignment="eyes")
        crop = cut_face(image, (8, 8, 72, 72), spec, eyes=[(30, 30), (50, 50)])
        rows, columns = np.nonzero(crop > 128)
        left, right = columns < 32, columns >= 32
        assert abs(rows[left].mean() - rows[right].mean()) < 1
        assert columns[right].mean() - columns[left].mean() == pytest.approx(20 * 2**0.5, abs=1)

    @pytest.mark.parametrize("eyes", [None, [(1, 1), (1, 1)], [(1, 1)], [(1, 1), (float("nan"), 2)]])
    def test_eyes_are_needed_where_the_spec_aligns(self, eyes: Any) -> None:
        with pytest.raises(FrameError, match="eyes"):
            cut_face(_noise(40, 40), (4, 4, 20, 20), PreprocessSpec(size=16, alignment="eyes"), eyes=eyes)

    @pytest.mark.parametrize(
        "box",
        [
            (10, 10, 10, 20),
            (10, 10, 20, 10),
            (20, 10, 10, 20),
            (float("nan"), 0, 10, 10),
            (0, 0, float("inf"), 10),
            (60, 10, 70, 20),
            (-20, 0, -10, 10),
            (0, 0, 10),
            (0, 0, 1e9, 1e9),
        ],
    )
    def test_refuses_a_box_without_area_or_off_the_image(self, box: Any) -> None:
        with pytest.raises(FrameError, match="box_xyxy"):
            cut_face(_noise(40, 50), box, PreprocessSpec(size=16))

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((40, 50), np.float32),
            np.zeros((0, 50), np.uint8),
            np.zeros((40, 50, 4), np.uint8),
            np.zeros((1, 40, 50, 3), np.uint8),
            [[1, 2], [3, 4]],
        ],
    )
    def test_refuses_what_is_no_image(self, image: Any) -> None:
        with pytest.raises(FrameError, match="image: got"):
            cut_face(image, (0, 0, 10, 10), PreprocessSpec(size=16))

    @pytest.mark.parametrize("box", [(10, 5, 26, 21), (-8, -8, 8, 8), (42, 32, 58, 48), (3, 2, 47, 39)])
    @pytest.mark.parametrize("eyes", [None, [(8, 9), (16, 12)]])
    def test_a_slice_has_the_pixels_of_the_converted_frame(self, box: Any, eyes: Any) -> None:
        frame = _noise(40, 50, 3)
        spec = PreprocessSpec(size=16, margin=0.2, alignment="none" if eyes is None else "eyes")
        np.testing.assert_array_equal(
            cut_face(frame, box, spec, eyes=eyes), cut_face(to_grey(frame), box, spec, eyes=eyes)
        )

    def test_converts_the_crop_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shapes = []
        convert = cv2.cvtColor
        monkeypatch.setattr(cv2, "cvtColor", lambda image, code: shapes.append(image.shape) or convert(image, code))
        cut_face(_noise(400, 500, 3), (100, 50, 140, 90), PreprocessSpec(size=16))
        assert shapes == [(40, 40, 3)]

    def test_neither_resizes_nor_filters(self) -> None:
        image = _noise(40, 50)
        crop = cut_face(image, (10, 5, 42, 37), PreprocessSpec(size=16, median=5))
        np.testing.assert_array_equal(crop, image[5:37, 10:42])

    def test_has_the_size_of_the_rectangle(self) -> None:
        image, spec = _noise(40, 50), PreprocessSpec(size=16, margin=0.3)
        _, _, width, height = crop_rectangle(image, (30.4, 10, 49.9, 31), spec)
        assert cut_face(image, (30.4, 10, 49.9, 31), spec).shape == (height, width)

    @pytest.mark.parametrize("box", ["abcd", None, [1, 2, 3, 10**400], [[1, 2, 3, 4]], ["a", 1, 2, 3]])
    def test_refuses_what_is_no_box(self, box: Any) -> None:
        with pytest.raises(FrameError, match=r"box_xyxy: got .*expected four finite numbers"):
            cut_face(_noise(40, 50), box, PreprocessSpec(size=16))


class TestPrepare:
    def test_shrinking_averages(self) -> None:
        face = np.kron(_noise(16, 16), np.ones((2, 2), np.uint8))
        np.testing.assert_array_equal(prepare_face(face, PreprocessSpec(size=16)), face[::2, ::2])

    @pytest.mark.parametrize("aperture", [3, 5])
    def test_median_is_opencvs_after_the_resize(self, aperture: Any) -> None:
        face = _noise(48, 48)
        small = cv2.resize(face, (24, 24), interpolation=cv2.INTER_AREA)
        prepared = prepare_face(face, PreprocessSpec(size=24, median=aperture))
        np.testing.assert_array_equal(prepared, cv2.medianBlur(small, aperture))

    def test_a_stack_is_its_faces(self) -> None:
        spec = PreprocessSpec(size=24, median=3)
        stack = _noise(3, 48, 40)
        expected = np.stack([prepare_face(face, spec) for face in stack])
        np.testing.assert_array_equal(prepare_stills(stack, spec), expected)
        assert prepare_stills(stack[:0], spec).shape == (0, 24, 24)

    def test_nothing_to_do_changes_nothing(self) -> None:
        stack = _noise(3, 16, 16)
        np.testing.assert_array_equal(prepare_stills(stack, PreprocessSpec(size=16)), stack)

    @pytest.mark.parametrize("stack", [np.zeros((2, 8, 8)), np.zeros((2, 0, 8), np.uint8), np.zeros((8, 8), np.uint8)])
    def test_refuses_another_stack(self, stack: Any) -> None:
        with pytest.raises(InputError, match="images: got"):
            prepare_stills(stack, PreprocessSpec(size=16))


class TestNormalise:
    def test_is_the_formula(self) -> None:
        frames = _noise(3, 16, 16)
        pixels = frames.astype(np.float64) / 255
        mean = pixels.mean(axis=(1, 2), keepdims=True)
        variance = pixels.var(axis=(1, 2), keepdims=True)
        got = normalise(frames, PreprocessSpec(size=16))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, (pixels - mean) / np.sqrt(variance + 1e-6), atol=1e-5)

    @pytest.mark.parametrize("grey", [0, 1, 77, 255])
    def test_a_constant_frame_is_zeros(self, grey: int) -> None:
        assert not normalise(np.full((2, 48, 48), grey, np.uint8), PreprocessSpec()).any()

    def test_frames_do_not_mix(self) -> None:
        frames = _noise(3, 16, 16)
        spec = PreprocessSpec(size=16)
        np.testing.assert_array_equal(normalise(frames, spec)[1:2], normalise(frames[1:2], spec))

    def test_scale_only_divides(self) -> None:
        frames = _noise(2, 16, 16)
        got = normalise(frames, PreprocessSpec(size=16, normalisation="scale"))
        np.testing.assert_allclose(got, frames / 255, atol=1e-7)

    @pytest.mark.parametrize("frames", [np.zeros((2, 16, 16), np.float32), np.zeros((2, 8, 8), np.uint8)])
    def test_refuses_other_frames(self, frames: Any) -> None:
        with pytest.raises(InputError, match="frames: got"):
            normalise(frames, PreprocessSpec(size=16))


def test_opencv_is_loaded_when_it_is_needed() -> None:
    code = "import sys, fer_edge.core.preprocess as p; p.PreprocessSpec(); assert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'fer-edge\[cpu\]'"):
        prepare_face(_noise(40, 40), PreprocessSpec(size=16))
