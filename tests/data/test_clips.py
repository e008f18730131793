"""Clips from stills: the same for the same plan, every frame's still known, motion apart from corruption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.data.clips import BLOCK, TRAINED, UNSEEN, ClipBlock, ClipPlan, make_clips
from fer_edge.data.corruptions import CORRUPTIONS


@pytest.fixture(scope="module")
def stills() -> tuple[np.ndarray, np.ndarray]:
    """Faces of one grey a label: uint8 (100, 24, 24), labels 0, 1, 2."""
    labels = np.arange(100) % 3
    return np.repeat(60 + 70 * labels, 24 * 24).reshape(100, 24, 24).astype(np.uint8), labels


def whole(blocks: list[ClipBlock]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.concatenate([getattr(block, name) for block in blocks]) for name in ("frames", "stills", "changed"))  # type: ignore[return-value]


PLAN = ClipPlan(frames=9, corruptions=TRAINED, together=2, clean=0.3, changing=0.5, change=(2, 6), mirrored=0.5, seed=3)


class TestTheSameAgain:
    def test_by_the_plan(self, stills: tuple[np.ndarray, np.ndarray]) -> None:
        first, again, other = (
            whole(list(make_clips(*stills, plan))) for plan in (PLAN, replace(PLAN), replace(PLAN, seed=4))
        )
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not np.array_equal(first[0], other[0])

    def test_from_anywhere(self, stills: tuple[np.ndarray, np.ndarray]) -> None:
        (later,) = make_clips(*stills, PLAN, begin=BLOCK)
        assert later.start == BLOCK
        assert np.array_equal(later.frames, whole(list(make_clips(*stills, PLAN)))[0][BLOCK:])
        with pytest.raises(InputError, match=f"multiple of {BLOCK}"):
            next(make_clips(*stills, PLAN, begin=3))

    def test_a_corruption_moves_nothing_otherwise(self) -> None:
        images, labels = np.random.default_rng(0).integers(0, 256, (8, 24, 24), dtype=np.uint8), np.zeros(8, np.int64)
        clean = ClipPlan(frames=5, seed=1)
        plans = (clean, replace(clean, corruptions=("blur",), level=(0, 0)), replace(clean, corruptions=("blur",)))
        still, untouched, blurred = (whole(list(make_clips(images, labels, plan)))[0] for plan in plans)
        assert np.array_equal(still, untouched)
        assert not np.array_equal(still, blurred)


class TestChanges:
    def test_every_frame_knows_its_still(self, stills: tuple[np.ndarray, np.ndarray]) -> None:
        images, labels = stills
        frames, shown, changed = whole(list(make_clips(images, labels, replace(PLAN, corruptions=()))))
        changes = changed < 9
        assert 0.3 < changes.mean() < 0.7
        assert set(changed[changes]) <= {2, 3, 4, 5, 6}
        assert np.array_equal(shown[:, 0], np.arange(100))
        assert (labels[shown[changes, 0]] != labels[shown[changes, -1]]).all()
        assert (shown[~changes] == shown[~changes, :1]).all()
        grey = frames.mean(axis=(2, 3))
        fading = (np.arange(9) == changed[:, None]) | (np.arange(9) == changed[:, None] - 1)
        assert np.allclose(grey[~fading], 60 + 70 * labels[shown][~fading])
        nearer = np.abs(grey - (60 + 70 * labels[shown])) < 0.3 * 140 + 1
        assert nearer.all(), "while it fades, a frame looks more like the still it is taken for"

    def test_a_clip_of_one_frame_has_no_place_for_a_change(self, stills: tuple[np.ndarray, np.ndarray]) -> None:
        block = whole(list(make_clips(*stills, ClipPlan(frames=1, change=(1, 0)))))
        assert block[0].shape[1] == 1

    def test_there_must_be_another_expression(self) -> None:
        images = np.zeros((4, 8, 8), np.uint8)
        with pytest.raises(InputError, match="at least two expressions"):
            next(make_clips(images, np.ones(4, np.int64), replace(PLAN, changing=1.0)))


def test_families_part_the_corruptions() -> None:
    assert not set(TRAINED) & set(UNSEEN)
    assert {*TRAINED, *UNSEEN} == set(CORRUPTIONS)
    assert len(UNSEEN) >= 2


def test_clean_clips_are_among_the_corrupted(stills: tuple[np.ndarray, np.ndarray]) -> None:
    frames = whole(list(make_clips(*stills, ClipPlan(frames=4, corruptions=("noise",), level=(2, 2), clean=0.4))))[0]
    flat = frames.std(axis=(1, 2, 3)) == 0
    assert 0.2 < flat.mean() < 0.6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frames": 0}, "frames: got 0, expected 1 or more"),
        ({"corruptions": ("fog",)}, r"corruptions: got \[\'fog\'\], expected some of"),
        ({"level": (2.0, 1.0)}, "expected 0 <= low"),
        ({"clean": 1.5}, "expected a share from 0 to 1"),
        ({"changing": 0.5, "change": (0, 3)}, "expected frames 1 to 15"),
    ],
)
def test_plans_that_cannot_be(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ClipPlan(**change)  # type: ignore[arg-type]


def test_images_of_another_type() -> None:
    with pytest.raises(InputError, match="float64"):
        next(make_clips(np.zeros((2, 8, 8)), np.zeros(2, np.int64), ClipPlan()))  # type: ignore[arg-type]
