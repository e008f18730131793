from __future__ import annotations

import itertools

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data.faces import synthetic_frames

NEUTRAL = EXPRESSIONS.index("neutral")
SMALL = (200, 150)


class Clip:
    """All frames of a clip, as arrays."""

    def __init__(self, expression: object, **options: object) -> None:
        drawn = list(synthetic_frames(expression, **options))  # type: ignore[arg-type]
        self.frames = np.stack([frame.image for frame in drawn])
        self.labels = np.array([frame.label for frame in drawn])
        self.intensities = np.array([frame.intensity for frame in drawn])
        self.boxes_xyxy = np.array([frame.box_xyxy for frame in drawn])
        self.timestamps_s = [frame.time_s for frame in drawn]


def runs(labels: np.ndarray) -> list[str]:
    return [EXPRESSIONS[label] for label, _ in itertools.groupby(labels)]


def test_neutral_to_apex_to_neutral() -> None:
    clip = Clip("happy", frames=30, frame_rate=15.0, seed=3, size=SMALL)
    assert (clip.frames.dtype, clip.frames.shape) == (np.uint8, (30, 150, 200, 3))
    assert runs(clip.labels) == ["neutral", "happy", "neutral"]
    assert clip.intensities[0] == clip.intensities[-1] == 0
    assert clip.intensities.max() == 1
    assert ((clip.intensities >= 0.5) == (clip.labels != NEUTRAL)).all()
    rise = clip.intensities[: int(clip.intensities.argmax()) + 1]
    assert (np.diff(rise) >= 0).all()
    assert clip.timestamps_s[-1] == pytest.approx(29 / 15)


def test_several_expressions_of_one_person() -> None:
    clip = Clip(("sad", "surprise"), frames=24, seed=1, size=SMALL)
    assert runs(clip.labels) == ["neutral", "sad", "neutral", "surprise", "neutral"]


def test_a_neutral_clip_stays_neutral() -> None:
    clip = Clip("neutral", frames=6, seed=1, size=SMALL)
    assert (clip.labels == NEUTRAL).all()


def test_boxes_are_square_inside_and_move_a_little() -> None:
    clip = Clip("fear", frames=24, frame_rate=8.0, seed=5, size=(320, 240))
    left, top, right, bottom = clip.boxes_xyxy.T
    assert np.allclose(right - left, bottom - top, atol=1e-3)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 320).all()
    assert (bottom <= 240).all()
    steps = np.abs(np.diff(clip.boxes_xyxy, axis=0))
    assert 0 < steps.max() < 0.1 * (right - left).min()


def test_the_face_lies_in_its_box() -> None:
    """What changes from neutral to the apex of a wide-eyed, open-mouthed face is in and just below the box."""
    clip = Clip("surprise", frames=20, frame_rate=1000.0, seed=2, size=SMALL)  # too fast for the head to move
    apex = int(clip.intensities.argmax())
    changed = np.abs(clip.frames[apex].astype(int) - clip.frames[0]).sum(axis=2) > 60  # more than the camera's noise
    left, top, right, bottom = clip.boxes_xyxy[apex].round().astype(int)
    assert changed[top:bottom, left:right].mean() > 0.05
    assert changed[top : bottom + (bottom - top) // 4, left:right].sum() > 0.9 * changed.sum()


def test_a_seed_repeats_itself_and_another_shows_another_person() -> None:
    first = Clip("angry", frames=5, seed=7, size=SMALL)
    again = Clip("angry", frames=5, seed=7, size=SMALL)
    other = Clip("angry", frames=5, seed=8, size=SMALL)
    assert (first.frames == again.frames).all()
    assert (first.frames != other.frames).any()


def test_frames_are_drawn_as_they_are_asked_for() -> None:
    clip = Clip("angry", frames=6, seed=7, size=SMALL)
    first, second = itertools.islice(synthetic_frames("angry", frames=6, seed=7, size=SMALL), 2)
    assert (first.image == clip.frames[0]).all()
    assert second.time_s == clip.timestamps_s[1]
    assert first.box_xyxy == pytest.approx(tuple(clip.boxes_xyxy[0]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"expression": "bored"}, "bored"),
        ({"expression": ()}, "at least one"),
        ({"expression": ("sad", "happy"), "frames": 9}, "frames: got 9, expected at least 5 per expression"),
        ({"frame_rate": 0.0}, "frame_rate: got 0.0"),
        ({"frame_rate": float("nan")}, "frame_rate: got nan"),
        ({"seed": -2}, "seed: got -2"),
        ({"size": (640, 20)}, r"size: got \(640, 20\)"),
    ],
)
def test_bad_arguments_are_named_at_once(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        synthetic_frames(**{"expression": "sad", "frames": 10, **arguments})  # type: ignore[arg-type]
