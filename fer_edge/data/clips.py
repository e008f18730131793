"""Clips from stills: what a camera in a car would have seen of a face whose expression is known.

A still moves a little, as a head does under a detector's boxes, while light, focus, noise and compression drift and
now and then a hand or a steering wheel passes in front. In a changing clip one still gives way to another of another
expression within a few frames, at a frame that is known. So every frame has a label, which no video of FER2013 has.

Two faces of one clip are two people's: FER2013 names no subjects. What a clip cannot have is an expression in the
making; CK+ sequences have that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError, require
from fer_edge.core.types import Array, Float32, Int64, Progress, Uint8
from fer_edge.data.corruptions import CORRUPTIONS, LEVELS, corrupt

__all__ = ["BLOCK", "TRAINED", "UNSEEN", "ClipBlock", "ClipPlan", "make_clips"]


TRAINED: Final = ("poor_light", "blur", "noise", "compression", "hand", "steering_wheel")
"""The corruptions that the sequence head is trained on."""

UNSEEN: Final = ("sun_flicker", "salt_and_pepper", "low_resolution")
"""The corruptions that nothing is trained on: they tell how the head does on what it has never seen."""

BLOCK: Final = 64
"""Clips made at once; what they are depends on it, so it is no option."""

_FADE: Final = (0.25, 0.75)
"""Share of the new still in the last frame of the old label and in the first of the new one."""

_TURN_DEGREES, _SCALE, _SHIFT, _JITTER = 9.0, 0.07, 0.06, 0.008
"""Largest rotation, relative size and shift of the head, and a detected box's jitter; both as fractions of the side."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """What clips to make.

    Attributes:
        frames: frames T of a clip.
        corruptions: those that a clip's are drawn from.
        together: at most so many of them in one clip.
        level: the least and the largest level a clip's corruptions are drawn from, 0 to 3.
        clean: share of the clips without any corruption.
        changing: share of the clips whose expression changes.
        change: the first and the last frame at which a change may come; the new label holds from that frame on.
        mirrored: share of the clips made of mirrored stills.
        seed: two plans of one seed move and change the same clips in the same way.
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
        if self.frames < 1 or self.together < 1:
            raise InputError(f"a clip has at least one frame and one corruption; got {self.frames}, {self.together}")
        if unknown := [name for name in self.corruptions if name not in CORRUPTIONS]:
            raise InputError(f"corruptions {', '.join(unknown)} are unknown; there are: {', '.join(CORRUPTIONS)}")
        if not 0 <= self.level[0] <= self.level[1] <= LEVELS[-1]:
            raise InputError(f"level: got {self.level}, expected 0 <= least <= largest <= {LEVELS[-1]}")
        shares = (self.clean, self.changing, self.mirrored)
        if not all(0 <= share <= 1 for share in shares):
            raise InputError(f"clean, changing and mirrored are shares; got {', '.join(map(str, shares))}")
        if self.changing and not 1 <= self.change[0] <= self.change[1] < self.frames:
            raise InputError(f"change: got {self.change}, expected frames 1 to {self.frames - 1}")


@dataclass(frozen=True, kw_only=True)
class ClipBlock:
    """Some of the clips, in the order of their stills.

    Attributes:
        start: number of the first still.
        frames: uint8 (n, T, H, W).
        stills: int64 (n, T), the still that each frame shows.
        changed: int64 (n,), the frame from which the second still is shown; T where there is none.
    """

    start: int
    frames: Uint8
    stills: Int64
    changed: Int64


def make_clips(
    images: Uint8,
    labels: Int64,
    plan: ClipPlan,
    *,
    begin: int = 0,
    progress: Progress | None = None,
) -> Iterator[ClipBlock]:
    """A clip of every still, in blocks.

    Clip i depends on the plan, on i and on the stills given, not on how far the iteration went before.

    Args:
        images: uint8 (N, H, W) grey faces; may be memory-mapped.
        labels: int64 (N,), expressions: a changing clip's two stills have different ones.
        plan: what clips.
        begin: number of the still to begin with, a multiple of `BLOCK`.
        progress: called with (clips made, N).

    Raises:
        InputError: images or labels of another type or shape, or clips are to change and all stills have one label.
        MissingPackageError: OpenCV is not installed.
    """
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != (len(images),):
        raise InputError(
            f"expected uint8 (N, H, W) and one label an image; got {images.dtype} {images.shape}, {labels.shape}"
        )
    if plan.changing and len(np.unique(labels)) < 2:
        raise InputError("clips that change need stills of at least two expressions")
    if begin % BLOCK or begin < 0:
        raise InputError(f"begin: got {begin}, expected a multiple of {BLOCK}")
    for start in range(begin, len(images), BLOCK):
        yield _block(images, labels, plan, start, min(start + BLOCK, len(images)))
        if progress is not None:
            progress("making clips", min(start + BLOCK, len(images)), len(images))


def _block(images: Uint8, labels: Int64, plan: ClipPlan, start: int, stop: int) -> ClipBlock:
    # A stream for each purpose: what corrupts a clip does not move it otherwise.
    motion, change, spoil = (np.random.default_rng((plan.seed, start, purpose)) for purpose in range(3))
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
    frames = _moved(faces, share, motion)
    return ClipBlock(
        start=start,
        frames=_spoilt(frames, plan, spoil),
        stills=np.where(after, second[:, None], first[:, None]),
        changed=changed,
    )


def _changes(labels: Int64, first: Int64, plan: ClipPlan, generator: np.random.Generator) -> tuple[Int64, Int64]:
    """The second still and the frame of the change, for each clip of a block."""
    count = len(first)
    changes = generator.random(count) < plan.changing
    # A clip of one frame has no place for a change, and changes nothing where none is asked for.
    when = generator.integers(plan.change[0], max(plan.change), count, endpoint=True)
    # Expressions are drawn evenly, then a still of that expression: else most changes would be to the most frequent.
    present = np.unique(labels)
    rows = [np.flatnonzero(labels == label) for label in present]
    second = first.copy()
    for place in np.flatnonzero(changes):
        others = [of for label, of in zip(present, rows, strict=True) if label != labels[first[place]]]
        second[place] = generator.choice(others[generator.integers(len(others))])
    return second, np.where(changes, when, plan.frames)


def _moved(faces: Uint8, share: Float32, generator: np.random.Generator) -> Uint8:
    """Pairs of stills (n, 2, H, W), mixed by the second's share (n, T), under a smoothly moving pose: (n, T, H, W)."""
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


def _spoilt(frames: Uint8, plan: ClipPlan, generator: np.random.Generator) -> Uint8:
    """Each clip under its corruptions, whose levels drift between half and all of the clip's own."""
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
    """Curves in -1..1 that change over a second or more at 10 Hz: float64 (count, steps)."""
    period = generator.uniform(12, 60, (2, count, 1))
    phase = generator.uniform(0, 2 * math.pi, (2, count, 1))
    weight = generator.uniform(0, 1, (2, count, 1))
    waves: Array = np.sin(2 * math.pi * np.arange(steps) / period + phase) * weight
    return np.asarray(waves.sum(axis=0) / np.maximum(weight.sum(axis=0), 1.0))
