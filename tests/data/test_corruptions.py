"""Corruptions: every one changes faces more with every level, by the generator alone, and moves as it should."""

from __future__ import annotations

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.data.corruptions import CORRUPTIONS, LEVELS, corrupt


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Smooth faces of a sort: a bright oval with two dark eyes and a mouth, uint8 (12, 48, 48)."""
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    base = (
        190
        - 120 * (x**2 / 0.7 + y**2)
        - 90.0 * (np.hypot(np.abs(x) - 0.35, y + 0.25) < 0.14)
        - 70.0 * ((np.abs(x) < 0.3) & (np.abs(y - 0.5) < 0.08))
    )
    return np.stack([np.clip(base + 3 * k, 0, 255) for k in range(12)]).astype(np.uint8)


@pytest.mark.parametrize("name", list(CORRUPTIONS))
class TestEveryCorruption:
    def test_grows_with_the_level(self, name: str, faces: np.ndarray) -> None:
        error = [
            np.abs(corrupt(faces, name, level=level, generator=np.random.default_rng(3)).astype(int) - faces).mean()
            for level in (0, *LEVELS)
        ]
        assert error[0] == 0
        assert error[0] < error[1] < error[2] < error[3]

    def test_depends_on_the_generator_alone_and_leaves_its_input(self, name: str, faces: np.ndarray) -> None:
        given = faces.copy()
        first, again = (corrupt(given, name, level=2, generator=np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first, again)
        assert np.array_equal(given, faces)
        assert first.shape == faces.shape
        assert first.dtype == np.uint8

    def test_leaves_the_frames_at_level_0(self, name: str, faces: np.ndarray) -> None:
        clips = np.repeat(faces[:, None], 4, axis=1)
        level = np.array([0.0, 3.0, 3.0, 0.0])
        spoilt = corrupt(clips, name, level=level, generator=np.random.default_rng(0))
        assert np.array_equal(spoilt[:, [0, 3]], clips[:, [0, 3]])
        assert not np.array_equal(spoilt[:, 1:3], clips[:, 1:3])

    def test_takes_faces_of_any_size(self, name: str) -> None:
        for shape in ((2, 20, 31), (1, 3, 128, 128), (0, 48, 48)):
            images = np.full(shape, 120, np.uint8)
            assert corrupt(images, name, level=3, generator=np.random.default_rng(0)).shape == shape


class TestMotion:
    @pytest.mark.parametrize("name", ["hand", "steering_wheel"])
    def test_an_occlusion_passes(self, name: str, faces: np.ndarray) -> None:
        clips = np.repeat(faces[:, None], 24, axis=1)
        spoilt = corrupt(clips, name, level=2, generator=np.random.default_rng(1))
        hidden = (spoilt != clips).any(axis=(2, 3))
        assert hidden.any(axis=1).all(), "it comes in every clip"
        assert (hidden.sum(axis=1) < 16).all(), "and it goes again"
        changes = np.abs(np.diff(hidden.astype(int), axis=1)).sum(axis=1)
        assert (changes <= 2).all(), "once"

    @pytest.mark.parametrize("name", ["noise", "salt_and_pepper"])
    def test_noise_is_new_in_every_frame(self, name: str, faces: np.ndarray) -> None:
        clips = np.repeat(faces[:, None], 2, axis=1)
        spoilt = corrupt(clips, name, level=2, generator=np.random.default_rng(1))
        assert (spoilt[:, 0] != spoilt[:, 1]).any(axis=(1, 2)).all()


class TestRefusals:
    def test_an_unknown_name(self, faces: np.ndarray) -> None:
        with pytest.raises(InputError, match=r"got 'fog', expected one of poor_light"):
            corrupt(faces, "fog", level=1, generator=np.random.default_rng(0))

    @pytest.mark.parametrize("level", [-1, 3.5, float("nan")])
    def test_a_level_outside(self, faces: np.ndarray, level: float) -> None:
        with pytest.raises(InputError, match="expected 0 to 3"):
            corrupt(faces, "blur", level=level, generator=np.random.default_rng(0))

    def test_another_type(self, faces: np.ndarray) -> None:
        with pytest.raises(InputError, match="float64"):
            corrupt(faces.astype(float), "blur", level=1, generator=np.random.default_rng(0))  # type: ignore[arg-type]
