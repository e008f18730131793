"""What is left out when frames take longer than their budget, and when it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fer_edge.core.errors import InputError
from fer_edge.core.json import expect
from fer_edge.runtime.arguments import number

__all__ = ["DeadlineOptions", "DeadlinePolicy", "LoadMeasure"]

LoadMeasure = Literal["detection spread out", "driver only", "fallback model"]
"""What is done against overload, in this order."""

_SMOOTHING_S: Final = 0.5  # time constant of the smoothed time per frame
_LONGEST_STEP_S: Final = 1.0  # a pause between two frames counts as at most this
_MAX_RECOVER: Final = 32.0  # a measure that was needed again and again is kept up to this many times longer


@dataclass(frozen=True, kw_only=True)
class DeadlineOptions:
    """The budget of a frame and the hysteresis around it.

    Attributes:
        frame_budget_ms: detection, tracking and recognition of a frame shall take at most this.
        patience_s: the smoothed time must exceed the budget for this long before the next measure is taken.
        recover_share: below this share of the budget there is room again,
        recover_s: and after this long with room the last measure is withdrawn. Each time the measure is needed again
            soon after, this doubles, up to 32 times.

    Raises:
        InputError: a value that is not a positive number, or a share of 1 or more.

    Example:
        >>> from fer_edge.runtime import DeadlineOptions
        >>> DeadlineOptions(frame_budget_ms=15).recover_s
        10.0
    """

    frame_budget_ms: float = 33.0
    patience_s: float = 1.0
    recover_share: float = 0.6
    recover_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("frame_budget_ms", "patience_s", "recover_share", "recover_s"):
            number(name, getattr(self, name))
        expect(self.recover_share < 1, "recover_share", self.recover_share, "below 1")


class DeadlinePolicy:
    """Takes one measure after the other while frames exceed their budget, and withdraws them in reverse order.

    It depends on nothing but the times that it is given.

    Args:
        measures: what can be done, in order.
        options: budget and hysteresis.
    """

    def __init__(self, measures: Sequence[LoadMeasure], options: DeadlineOptions | None = None) -> None:
        self.measures = tuple(measures)
        self.level = 0
        self._options = DeadlineOptions() if options is None else options
        if not isinstance(self._options, DeadlineOptions):
            raise InputError(f"options: got {type(options).__name__}, expected DeadlineOptions")
        self._smoothed_ms: float | None = None
        self._last_s: float | None = None
        self._over_s = 0.0
        self._room_s = 0.0
        self._withdrawn_s: float | None = None
        self._recover_s = self._options.recover_s

    @property
    def active(self) -> tuple[LoadMeasure, ...]:
        """The measures in force."""
        return self.measures[: self.level]

    def update(self, spent_ms: float, *, now_s: float) -> int:
        """Note the time that a frame took; return the number of measures to have in force.

        Args:
            spent_ms: time spent on the frame.
            now_s: when it was finished; monotonic.
        """
        options = self._options
        step_s = 0.0 if self._last_s is None else min(max(now_s - self._last_s, 0.0), _LONGEST_STEP_S)
        self._last_s = now_s
        if self._smoothed_ms is None:
            self._smoothed_ms = spent_ms
        share = step_s / (step_s + _SMOOTHING_S)
        self._smoothed_ms += share * (spent_ms - self._smoothed_ms)
        over = self._smoothed_ms > options.frame_budget_ms
        room = self._smoothed_ms < options.recover_share * options.frame_budget_ms
        self._over_s = self._over_s + step_s if over else 0.0
        self._room_s = self._room_s + step_s if room else 0.0
        if self._over_s >= options.patience_s and self.level < len(self.measures):
            again = self._withdrawn_s is not None and now_s - self._withdrawn_s < self._recover_s
            longest_s = _MAX_RECOVER * options.recover_s
            self._recover_s = min(2 * self._recover_s, longest_s) if again else options.recover_s
            self._change(1)
        elif self._room_s >= self._recover_s and self.level:
            self._change(-1)
            self._withdrawn_s = now_s
        return self.level

    def _change(self, step: int) -> None:
        self.level += step
        self._over_s = self._room_s = 0.0
        self._smoothed_ms = None  # times under the other measures say nothing about these
