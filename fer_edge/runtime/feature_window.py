"""The window of features that the sequence head reads, resampled to the frame rate it was trained at.

Training windows have frames 1 / frame_rate apart. A camera is usually faster and never exactly regular, so the buffer
keeps recent features with their times and reads the window backwards from the newest one: slot j holds the feature
nearest to ``newest - j / frame_rate``. Therefore

- every frame counts at once: the newest slot is the newest frame, even when it is early for its slot;
- the slots are 1 / frame_rate apart at any camera rate; a slower camera's features fill several slots;
- a pause longer than `max_gap_s` empties the window;
- a feature of another encoder empties the window, because features of two encoders do not mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import InputError
from fer_edge.core.manifest import SequenceSpec
from fer_edge.core.types import Float32
from fer_edge.runtime.arguments import number
from fer_edge.runtime.frame_clock import FrameClock

__all__ = ["FeatureWindow", "WindowView"]

_KEPT_PER_SLOT: Final = 8  # cameras up to eight times as fast as the window are kept completely


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowView:
    """The window as the head takes it.

    Attributes:
        features: float32 (T, F), oldest first; slots before the oldest real one repeat it.
        length: number of real slots, 1 to T.
        largest_gap_s: longest time between the features of two neighbouring real slots.
        times_s: float64 (T,), time of the frame in each slot.
    """

    features: Float32
    length: int
    largest_gap_s: float
    times_s: NDArray[np.float64]


class FeatureWindow:
    """A ring buffer of features with their times; use one per stream, from one thread at a time.

    Args:
        spec: window, feature size and frame rate.
        max_gap_s: a longer pause empties the window.

    Raises:
        InputError: `max_gap_s` is not a positive number.
    """

    def __init__(self, spec: SequenceSpec, *, max_gap_s: float = 1.0) -> None:
        self._period_s = 1 / spec.frame_rate
        self._max_gap_s = number("max_gap_s", max_gap_s)
        # Two more: the newest, which is provisional, and the one just before the window's first slot.
        capacity = spec.window * _KEPT_PER_SLOT + 2
        self._features = np.zeros((capacity, spec.feature_size), np.float32)
        self._times_s = np.zeros(capacity, np.float64)
        self._offsets_s = np.arange(spec.window - 1, -1, -1) * self._period_s
        self._encoder = ""
        self._count = 0  # features pushed and kept since the window was last empty
        self._clock = FrameClock()

    def __len__(self) -> int:
        """Return the number of features kept."""
        return min(self._count, len(self._times_s))

    @property
    def newest_s(self) -> float | None:
        """Time of the newest feature; None where the window is empty."""
        return float(self._times_s[self._slot(self._count - 1)]) if self._count else None

    def clear(self) -> None:
        """Empty the window and forget the time of its frames."""
        self._count = 0
        self._clock.reset()

    def check_time(self, timestamp_s: float) -> float:
        """Check a time as `push` does, before any work is done for its frame.

        Raises:
            FrameError: as `FrameClock.check`.
        """
        return self._clock.check(timestamp_s)

    def push(self, feature: Float32, *, timestamp_s: float, encoder: str = "") -> None:
        """Add one frame's feature; a feature of the newest one's time replaces it.

        Args:
            feature: float32 (F,).
            timestamp_s: capture time of the frame; later than the previous one, or of a clock that was set anew, which
                empties the window first.
            encoder: identifies the encoder, by its hash; a change empties the window first.

        Raises:
            InputError: another shape.
            FrameError: as `FrameClock.check`.
        """
        if feature.shape != self._features.shape[1:]:
            raise InputError(f"feature: got shape {feature.shape}, expected {self._features.shape[1:]}")
        newest_s = self.newest_s
        paused = newest_s is not None and timestamp_s - newest_s > self._max_gap_s
        if timestamp_s == newest_s:
            self._count -= 1
            restarts = False
        else:
            restarts = self._clock.accept(self.check_time(timestamp_s))
        if restarts or paused or encoder != self._encoder:
            self._count = 0
        self._encoder = encoder
        # Frames that come faster than the buffer can hold a window of: the newest one is replaced.
        if self._count > 1:
            before_s = self._times_s[self._slot(self._count - 2)]
            if self._times_s[self._slot(self._count - 1)] - before_s < self._period_s / _KEPT_PER_SLOT:
                self._count -= 1
        slot = self._slot(self._count)
        self._features[slot] = feature
        self._times_s[slot] = timestamp_s
        self._count += 1

    def skip(self, timestamp_s: float) -> None:
        """Note the time of a frame that has no feature.

        Raises:
            FrameError: as `FrameClock.check`.
        """
        if self._clock.accept(self.check_time(timestamp_s)):
            self._count = 0

    def view(self) -> WindowView:
        """Return the window that ends at the newest feature.

        Raises:
            InputError: it is empty.
        """
        if not self._count:
            raise InputError("window: got no feature, expected at least one; push a feature first")
        kept = len(self)
        order = np.arange(self._count - kept, self._count) % len(self._times_s)
        times_s = self._times_s[order]
        due_s = times_s[-1] - self._offsets_s
        after = np.clip(np.searchsorted(times_s, due_s), 1, kept - 1) if kept > 1 else np.zeros(len(due_s), np.int64)
        before = np.maximum(after - 1, 0)
        # Half-way between two frames, where a camera of half the rate always is, rounding must not decide.
        later = times_s[after] - due_s < due_s - times_s[before] - self._period_s / 100
        nearest = np.where(later, after, before)
        # A slot is real as long as the first feature is at most half a period after its time.
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
