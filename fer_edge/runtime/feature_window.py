"""The window of features that the sequence head looks at, resampled to the rate it was trained for.

The head was trained on windows whose frames lie 1 / frame_rate apart. A camera is rarely that slow and never that
even, so the buffer keeps the last features with their times, and at each frame the window is read off backwards from
the newest one: slot j holds the feature nearest to ``newest - j / frame_rate``. So

- every frame counts at once: the newest slot is always the newest frame, also when it comes early, and is let go when
  the next one comes, unless a slot falls due at it;
- the slots lie 1 / frame_rate apart whatever the camera's rate; a slower camera's features are held;
- a pause longer than `max_gap_s` starts over, because what was seen before it says nothing about now;
- features belong to the encoder that computed them: another encoder's feature empties the window first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.bundle import SequenceSpec
from fer_edge.core.errors import InputError
from fer_edge.core.types import Float32

__all__ = ["FeatureWindow", "WindowView"]

_KEPT_PER_SLOT: Final = 8
"""Features kept for one slot's time: a camera up to eight times as fast as the window is kept whole."""


@dataclass(frozen=True, kw_only=True)
class WindowView:
    """The window as the head takes it.

    Attributes:
        features: float32 (T, F), oldest first; slots before the oldest real one repeat it.
        length: how many of the T slots are real, 1 to T.
        largest_gap_s: the longest time between the features of two neighbouring real slots.
        times_s: float64 (T,), when the frame of each slot's feature was taken.
    """

    features: Float32
    length: int
    largest_gap_s: float
    times_s: NDArray[np.float64]


class FeatureWindow:
    """A ring buffer of features with their times.

    Not safe for several threads at once: a window belongs to one stream.

    Args:
        spec: window, feature size and frame rate.
        max_gap_s: a longer pause than this empties the window.

    Raises:
        InputError: `max_gap_s` is not a positive number.
    """

    def __init__(self, spec: SequenceSpec, *, max_gap_s: float = 1.0) -> None:
        if not (math.isfinite(max_gap_s) and max_gap_s > 0):
            raise InputError(f"max_gap_s: got {max_gap_s}, expected a positive number of seconds")
        self._period_s = 1 / spec.frame_rate
        self._max_gap_s = max_gap_s
        # Two more: the newest, which is provisional, and the one just before the window's first slot.
        capacity = spec.window * _KEPT_PER_SLOT + 2
        self._features = np.zeros((capacity, spec.feature_size), np.float32)
        self._times_s = np.zeros(capacity, np.float64)
        self._offsets_s = np.arange(spec.window - 1, -1, -1) * self._period_s
        self._encoder = ""
        self._count = 0  # features pushed and kept since the window was last empty

    def __len__(self) -> int:
        """Features kept."""
        return min(self._count, len(self._times_s))

    @property
    def newest_s(self) -> float | None:
        """Time of the newest feature, None where there is none."""
        return float(self._times_s[self._slot(self._count - 1)]) if self._count else None

    @property
    def oldest_s(self) -> float | None:
        """Time of the oldest feature kept, None where there is none."""
        return float(self._times_s[self._slot(self._count - len(self))]) if self._count else None

    def clear(self) -> None:
        """Forget every feature."""
        self._count = 0

    def check_time(self, timestamp_s: float) -> None:
        """Refuse a time that `push` would refuse.

        Raises:
            InputError: it is not finite, or not after the newest feature's.
        """
        if not math.isfinite(timestamp_s):
            raise InputError(f"timestamp_s: got {timestamp_s}, expected a finite number of seconds")
        if self.newest_s is not None and timestamp_s <= self.newest_s:
            raise InputError(
                f"timestamp_s: got {timestamp_s:.6f}, expected later than the previous frame's {self.newest_s:.6f}; "
                "start a new stream for a new recording"
            )

    def push(self, feature: Float32, *, timestamp_s: float, encoder: str = "") -> None:
        """Add one frame's feature.

        Args:
            feature: float32 (F,).
            timestamp_s: when the frame was taken; later than the one before.
            encoder: names the encoder, by its hash; a change empties the window first.

        Raises:
            InputError: another shape, or a time that is not finite or not later.
        """
        if feature.shape != self._features.shape[1:]:
            raise InputError(f"feature: got shape {feature.shape}, expected {self._features.shape[1:]}")
        self.check_time(timestamp_s)
        newest_s = self.newest_s
        if encoder != self._encoder or (newest_s is not None and timestamp_s - newest_s > self._max_gap_s):
            self.clear()
        self._encoder = encoder
        # Where frames come faster than the buffer can hold a window of, the newest one makes room for its successor.
        if self._count > 1:
            before_s = self._times_s[self._slot(self._count - 2)]
            if self._times_s[self._slot(self._count - 1)] - before_s < self._period_s / _KEPT_PER_SLOT:
                self._count -= 1
        slot = self._slot(self._count)
        self._features[slot] = feature
        self._times_s[slot] = timestamp_s
        self._count += 1

    def view(self) -> WindowView:
        """The window that ends at the newest feature.

        Raises:
            InputError: it is empty.
        """
        if not self._count:
            raise InputError("the window is empty; push a feature first")
        kept = len(self)
        order = np.arange(self._count - kept, self._count) % len(self._times_s)
        times_s = self._times_s[order]
        due_s = times_s[-1] - self._offsets_s
        after = np.clip(np.searchsorted(times_s, due_s), 1, kept - 1) if kept > 1 else np.zeros(len(due_s), np.int64)
        before = np.maximum(after - 1, 0)
        # Half-way between two frames, where a camera of half the rate always is, rounding must not decide.
        later = times_s[after] - due_s < due_s - times_s[before] - self._period_s / 100
        nearest = np.where(later, after, before)
        # A slot is real as long as the first feature lies at most half a period after its time.
        length = int(np.count_nonzero(due_s >= times_s[0] - self._period_s / 2))
        nearest[:-length] = nearest[-length]
        gaps = np.diff(times_s[nearest[-length:]])
        return WindowView(
            features=self._features[order[nearest]],
            length=length,
            largest_gap_s=float(gaps.max()) if len(gaps) else 0.0,
            times_s=times_s[nearest],
        )

    def _slot(self, index: int) -> int:
        return index % len(self._times_s)
