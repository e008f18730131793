"""Four ways to estimate an expression from a stream of features, from the newest frame to the sequence head.

All use one bundle: the first three take the head's probabilities of single frames, the fourth its window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data.clips import TRAINED, UNSEEN, ClipPlan, make_clips
from fer_edge.data.corruptions import LEVELS
from fer_edge.runtime.inference import Network

__all__ = [
    "AVERAGED",
    "METHODS",
    "SEQUENCE",
    "SINGLE",
    "SMOOTHED",
    "ClipFeatures",
    "Condition",
    "changing_conditions",
    "constant_conditions",
    "encode_condition",
    "last_window",
    "smooth",
    "streamed",
]


SINGLE: Final = "single frame"
AVERAGED: Final = "averaged"
SMOOTHED: Final = "smoothed"
SEQUENCE: Final = "sequence head"
METHODS: Final = (SINGLE, AVERAGED, SMOOTHED, SEQUENCE)
"""The newest frame's probabilities; their mean over the window; their exponential smoothing; the head on the window."""

FRAMES_AFTER: Final = 24
"""Frames of a changing clip after the latest change: an expression that is not reported in them counts as never."""

_SEED: Final = 4_711  # of the evaluated clips; training has the recipe's


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Corruption and change of one set of clips.

    Attributes:
        name: ``"clean"``, a corruption, or ``"mixed"``.
        level: 1 to 3 for a corruption.
        family: whether the head was trained on such clips.
    """

    name: str
    level: int | None
    family: str
    plan: ClipPlan

    @property
    def title(self) -> str:
        """The name with its level, and whether the expression changes."""
        level = "" if self.level is None else f" {self.level}"
        return f"{self.name}{level}{', changing' if self.plan.changing else ''}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipFeatures:
    """One condition's clips as the head sees them.

    Attributes:
        features: float32 (N, T, F).
        singles: float32 (N, T, classes), probabilities of every frame on its own.
        stills: int64 (N, T), the still that a frame shows.
        changed: int64 (N,), the frame from which the second still is shown; T where there is none.
    """

    features: Float32
    singles: Float32
    stills: Int64
    changed: Int64


def constant_conditions(window: int) -> Iterator[Condition]:
    """Plan clips of one window and one expression: clean, then every corruption at every level."""
    yield Condition(name="clean", level=None, family="clean", plan=ClipPlan(frames=window, seed=_SEED))
    for family, names in (("trained", TRAINED), ("unseen", UNSEEN)):
        for name in names:
            for level in LEVELS:
                plan = ClipPlan(frames=window, corruptions=(name,), level=(level, level), seed=_SEED)
                yield Condition(name=name, level=level, family=family, plan=plan)


def changing_conditions(window: int) -> Iterator[Condition]:
    """Plan clips whose expression changes after a full window: clean, then under one or two corruptions."""
    change = (window, window + 4)
    for name, corruptions in (("clean", ()), ("mixed", TRAINED)):
        plan = ClipPlan(
            frames=change[1] + FRAMES_AFTER,
            corruptions=corruptions,
            together=2,
            changing=1.0,
            change=change,
            seed=_SEED,
        )
        yield Condition(name=name, level=None, family="clean" if name == "clean" else "trained", plan=plan)


def encode_condition(
    network: Network,
    images: Uint8,
    labels: Int64,
    condition: Condition,
    *,
    progress: Progress | None = None,
) -> ClipFeatures:
    """Make a condition's clips and encode them.

    Args:
        images: uint8 (N, H, W) grey stills.
        labels: int64 (N,).

    Raises:
        InputError: the images cannot be used.
        SessionError: the engine failed.
    """
    features, singles, stills, changed = [], [], [], []
    for block in make_clips(images, labels, condition.plan):
        count, steps = block.frames.shape[:2]
        frames = block.frames.reshape(-1, *block.frames.shape[2:])
        found = network.encode(prepare_stills(frames, network.manifest.preprocess))
        alone = network.probabilities(found[:, None], np.ones(len(found), np.int64))
        features.append(found.reshape(count, steps, -1))
        singles.append(alone.reshape(count, steps, -1))
        stills.append(block.stills)
        changed.append(block.changed)
        if progress is not None:
            progress(f"clips: {condition.title}", block.start + count, len(images))
    return ClipFeatures(
        features=np.concatenate(features),
        singles=np.concatenate(singles),
        stills=np.concatenate(stills),
        changed=np.concatenate(changed),
    )


def last_window(network: Network, clips: ClipFeatures, steps: int, smoothing: float) -> dict[str, Int64]:
    """Return what each method reports at the end of the clips' last `steps` frames: int64 (N,) by method."""
    singles = clips.singles[:, -steps:]
    window = np.ascontiguousarray(clips.features[:, -steps:])
    scores = {
        SINGLE: singles[:, -1],
        AVERAGED: singles.mean(axis=1),
        SMOOTHED: smooth(singles, smoothing)[:, -1],
        SEQUENCE: _head(network, window, np.full(len(window), steps)),
    }
    return {method: score.argmax(axis=-1) for method, score in scores.items()}


def streamed(network: Network, clips: ClipFeatures, window: int, smoothing: float) -> dict[str, Int64]:
    """Return what each method reports at every frame of a stream: int64 (N, T) by method."""
    count, steps = clips.singles.shape[:2]
    total = np.cumsum(clips.singles, axis=1)
    before = np.concatenate((np.zeros_like(total[:, :window]), total[:, :-window]), axis=1)[:, :steps]
    ahead = np.repeat(clips.features[:, :1], window - 1, axis=1)
    padded = np.concatenate((ahead, clips.features), axis=1)
    found = [
        _head(network, np.ascontiguousarray(padded[:, step : step + window]), np.full(count, min(step + 1, window)))
        for step in range(steps)
    ]
    scores: Mapping[str, NDArray[np.floating]] = {
        SINGLE: clips.singles,
        AVERAGED: total - before,
        SMOOTHED: smooth(clips.singles, smoothing),
        SEQUENCE: np.stack(found, axis=1),
    }
    return {method: score.argmax(axis=-1) for method, score in scores.items()}


def smooth(singles: Float32, constant: float) -> Float32:
    """Smooth exponentially along the frames, from the first on: p = constant x p + (1 - constant) x new."""
    smoothed = singles.copy()
    for step in range(1, singles.shape[1]):
        smoothed[:, step] = constant * smoothed[:, step - 1] + (1 - constant) * singles[:, step]
    return smoothed


def _head(network: Network, windows: Float32, length: Int64, *, size: int = 512) -> Float32:
    starts: Sequence[int] = range(0, len(windows), size)
    return np.concatenate([network.logits(windows[at : at + size], length[at : at + size]) for at in starts])
