"""Clips made from labelled stills, as a camera in a car would see the face; every frame has a label.

A still moves slightly, as under a head's motion and a detector's boxes, while light, focus, noise and compression drift
and a hand or a steering wheel may pass. In a changing clip one still is blended into one of another expression, at a
known frame. FER2013 names no subjects, so the two faces of a changing clip are different people; for real onsets use
CK+ sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import require
from fer_edge.core.json import expect
from fer_edge.core.types import Array, Float32, Int64, Uint8
from fer_edge.data.corruptions import CORRUPTIONS, LEVELS, corrupt

__all__ = ["BLOCK", "TRAINED", "UNSEEN", "ClipBlock", "ClipPlan", "make_clips"]


TRAINED: Final = ("poor_light", "blur", "noise", "compression", "hand", "steering_wheel")
"""The corruptions that the sequence head is trained on."""

UNSEEN: Final = ("sun_flicker", "salt_and_pepper", "low_resolution")
"""Held-out corruptions, which nothing is trained on."""

BLOCK: Final = 64
"""Clips per block; the clips depend on it, so it is not an option."""

_FADE: Final = (0.25, 0.75)
"""Weight of the second still in the last frame before the change and in the first frame after it."""

_TURN_DEGREES, _SCALE, _SHIFT, _JITTER = 9.0, 0.07, 0.06, 0.008
"""Largest rotation, relative size and shift of the head, and jitter of the box; lengths as fractions of the side."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """The options of `make_clips`.

    Attributes:
        frames: frames T of a clip.
        corruptions: corruptions to choose from.
        together: largest number of corruptions in one clip.
        level: range of the corruptions' levels, within 0 to 3.
        clean: share of clips without corruption.
        changing: share of clips whose expression changes.
        change: range of the frame of the change; the new label applies from that frame on.
        mirrored: share of clips made of mirrored stills.
        seed: plans with the same seed have the same motion and changes.
    """

    frames: int = 16
    corruptions: tuple[str, ...] = ()
    together: int = 1
    level: tuple[float, float] = (0.0, 3.0)
    clean: float = 0.0
    changing: float = 0.0
    change: tuple[int, int] = (1, 1)
    mirrored: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "together"):
            expect(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        unknown = [name for name in self.corruptions if name not in CORRUPTIONS]
        expect(not unknown, "corruptions", unknown, f"some of {', '.join(CORRUPTIONS)}")
        low, high = self.level
        expect(0 <= low <= high <= LEVELS[-1], "level", self.level, f"0 <= low <= high <= {LEVELS[-1]}")
        for name in ("clean", "changing", "mirrored"):
            expect(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share from 0 to 1")
        first, last = self.change
        fits = not self.changing or 1 <= first <= last < self.frames
        expect(fits, "change", self.change, f"frames 1 to {self.frames - 1}")


@dataclass(frozen=True, kw_only=True)
class ClipBlock:
    """Consecutive clips, in the order of their stills.

    Attributes:
        start: index of the first still.
        frames: uint8 (n, T, H, W).
        stills: int64 (n, T), the index of the still in each frame.
        changed: int64 (n,), the first frame of the second still; T without a change.
    """

    start: int
    frames: Uint8
    stills: Int64
    changed: Int64


def make_clips(images: Uint8, labels: Int64, plan: ClipPlan, *, begin: int = 0) -> Iterator[ClipBlock]:
    """Make a clip of every still, in blocks.

    Clip i depends only on the plan, the stills and i.

    Args:
        images: uint8 (N, H, W) grey faces; may be memory-mapped.
        labels: int64 (N,), expressions; the two stills of a changing clip differ in it.
        begin: index of the first still, a multiple of `BLOCK`.

    Raises:
        InputError: images or labels of another type or shape, or changing clips of stills with one label.
        MissingPackageError: OpenCV is not installed.
    """
    fits = images.dtype == np.uint8 and images.ndim == 3 and labels.shape == (len(images),)
    got = f"{images.dtype} {images.shape} with labels {labels.shape}"
    expect(fits, "images", got, "uint8 (N, H, W) and one label per image")
    kinds = len(np.unique(labels))
    expect(not plan.changing or kinds >= 2, "labels", kinds, "at least two expressions for clips that change")
    expect(begin >= 0 and begin % BLOCK == 0, "begin", begin, f"a multiple of {BLOCK}")
    for start in range(begin, len(images), BLOCK):
        yield _block(images, labels, plan, start, min(start + BLOCK, len(images)))


def _block(images: Uint8, labels: Int64, plan: ClipPlan, start: int, stop: int) -> ClipBlock:
    # Separate streams, so that corruption does not change the motion.
    motion, change, degrade = (np.random.default_rng((plan.seed, start, purpose)) for purpose in range(3))
    first = np.arange(start, stop)
    second, changed = _changes(labels, first, plan, change)
    step = np.arange(plan.frames)
    after = step >= changed[:, None]
    share = np.where(after, 1.0, 0.0).astype(np.float32)  # of the second still in each frame
    share[step == changed[:, None] - 1] = _FADE[0]
    share[step == changed[:, None]] = _FADE[1]
    faces = np.stack((images[first], images[second]), axis=1)
    flipped = change.random(len(faces)) < plan.mirrored
    faces[flipped] = faces[flipped, ..., ::-1]
    frames = _move(faces, share, motion)
    return ClipBlock(
        start=start,
        frames=_corrupted(frames, plan, degrade),
        stills=np.where(after, second[:, None], first[:, None]),
        changed=changed,
    )


def _changes(labels: Int64, first: Int64, plan: ClipPlan, generator: np.random.Generator) -> tuple[Int64, Int64]:
    """Choose the second still and the frame of the change of each clip."""
    count = len(first)
    changes = generator.random(count) < plan.changing
    # A clip of one frame cannot change, and does not if no change is asked for.
    when = generator.integers(plan.change[0], max(plan.change), count, endpoint=True)
    # Uniform over expressions first: otherwise most changes would be to the most frequent one.
    present = np.unique(labels)
    rows = [np.flatnonzero(labels == label) for label in present]
    second = first.copy()
    for place in np.flatnonzero(changes):
        others = [of for label, of in zip(present, rows, strict=True) if label != labels[first[place]]]
        second[place] = generator.choice(others[generator.integers(len(others))])
    return second, np.where(changes, when, plan.frames)


def _move(faces: Uint8, share: Float32, generator: np.random.Generator) -> Uint8:
    """Blend pairs of stills (n, 2, H, W) by the weight of the second (n, T) and move them smoothly: (n, T, H, W)."""
    cv2 = require("cv2", needed_by="making clips", extra="cpu")
    count, steps = share.shape
    height, width = faces.shape[2:]
    turn, scale, right, down = (_smooth(count, steps, generator) for _ in range(4))
    angle, size = np.radians(_TURN_DEGREES) * turn, np.exp(_SCALE * scale)
    jitter = _JITTER * generator.standard_normal((2, count, steps))
    shift = np.stack((_SHIFT * right + jitter[0], _SHIFT * down + jitter[1]), axis=-1) * (width, height)
    cosine, sine = np.cos(angle) * size, np.sin(angle) * size
    matrix = np.stack((np.stack((cosine, -sine), axis=-1), np.stack((sine, cosine), axis=-1)), axis=-2)
    middle = (np.array([width, height]) - 1) / 2
    affine = np.concatenate((matrix, (middle + shift - matrix @ middle)[..., None]), axis=-1)
    result = np.empty((count, steps, height, width), np.uint8)
    for clip in range(count):
        for step in range(steps):
            mixed = float(share[clip, step])
            face = faces[clip, 0 if mixed == 0 else 1]
            if 0 < mixed < 1:
                face = cv2.addWeighted(faces[clip, 0], 1 - mixed, faces[clip, 1], mixed, 0)
            result[clip, step] = cv2.warpAffine(
                face, affine[clip, step], (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
    return result


def _corrupted(frames: Uint8, plan: ClipPlan, generator: np.random.Generator) -> Uint8:
    """Corrupt each clip, with levels that drift between half and all of the clip's level."""
    count, steps = frames.shape[:2]
    if not plan.corruptions:
        return frames
    many = generator.integers(1, plan.together, count, endpoint=True) * (generator.random(count) >= plan.clean)
    order = generator.random((count, len(plan.corruptions))).argsort(axis=1)  # the first `many` of each row are used
    result = frames.copy()
    for place, name in enumerate(plan.corruptions):
        level = generator.uniform(*plan.level, (count, 1)) * (0.75 + 0.25 * _smooth(count, steps, generator))
        used = (order[:, place] < many) & (level.max(axis=1) > 0)
        result[used] = corrupt(result[used], name, level=level[used], generator=generator)
    return result


def _smooth(count: int, steps: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw curves in -1..1 that change over at least a second at 10 Hz: float64 (count, steps)."""
    period = generator.uniform(12, 60, (2, count, 1))
    phase = generator.uniform(0, 2 * math.pi, (2, count, 1))
    weight = generator.uniform(0, 1, (2, count, 1))
    waves: Array = np.sin(2 * math.pi * np.arange(steps) / period + phase) * weight
    return np.asarray(waves.sum(axis=0) / np.maximum(weight.sum(axis=0), 1.0))
