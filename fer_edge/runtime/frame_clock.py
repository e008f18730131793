"""The times of successive frames: wrong ones are refused, and a clock that was set anew is followed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from fer_edge.core.errors import FrameError
from fer_edge.runtime.arguments import number

__all__ = ["FrameClock"]

_LONGEST_PAUSE_S: Final = 86_400.0  # a longer step forward is a wrong clock, not a parked vehicle
_IN_STEP_S: Final = 10.0  # two refused frames at most this far apart come from one clock, which was set anew
_SLOW_STEP_S: Final = 2.0  # frames further apart than this cannot fill a window;
_HASTE: Final = 10.0  # those that arrive this many times as fast as their times claim
_HASTY_STEPS: Final = 2  # more often in a row than this have their times in another unit


class FrameClock:
    """Checks the times of one stream of frames before any work is done for a frame.

    A time that is repeated, goes back or jumps forward by more than a day costs its frame: it is refused. When the next
    frame follows the refused one by at most ten seconds, the clock itself was set anew: the stream then starts over
    with this frame. Frames that claim to be seconds apart, but arrive ten times as fast, have their times in
    milliseconds or another unit and are refused from the fourth on.

    Args:
        now: measures how fast frames arrive, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._newest_s: float | None = None
        self._arrived_s = 0.0
        self._refused_s: float | None = None
        self._hasty = 0

    def check(self, timestamp_s: Any) -> float:
        """Return a frame's time in seconds; a wrong one is refused, and the frames after it are not.

        Raises:
            FrameError: not a finite number, repeated, earlier, far later, or in another unit.
        """
        time_s = number("timestamp_s", timestamp_s, positive=False, error=FrameError)
        if fault := self._fault(time_s):
            self._refused_s = time_s
            raise FrameError(f"timestamp_s: got {time_s:.6f}, {fault}")
        return time_s

    def restarts(self, time_s: float) -> bool:
        """Return whether a checked time comes from a clock that was set anew, so that what was before is void."""
        return self._newest_s is not None and not 0 < time_s - self._newest_s <= _LONGEST_PAUSE_S

    def accept(self, time_s: float) -> bool:
        """Note the time of a frame that `check` accepted; return `restarts`."""
        restarts, now_s = self.restarts(time_s), self._now()
        hasty = self._newest_s is not None and not restarts and self._is_hasty(time_s - self._newest_s, now_s)
        self._hasty = self._hasty + 1 if hasty else 0
        self._newest_s, self._arrived_s, self._refused_s = time_s, now_s, None
        return restarts

    def _is_hasty(self, step_s: float, now_s: float) -> bool:
        return step_s > _SLOW_STEP_S and step_s > _HASTE * (now_s - self._arrived_s)

    def _fault(self, time_s: float) -> str | None:
        if self._newest_s is None:
            return None
        step_s = time_s - self._newest_s
        units = "if it counts milli-, micro- or nanoseconds, convert it to seconds"
        if 0 < step_s <= _LONGEST_PAUSE_S:
            if self._hasty < _HASTY_STEPS or not self._is_hasty(step_s, self._now()):
                return None
            return (
                f"{step_s:g} s after the previous frame, as those before it, though they arrive far faster, expected "
                f"seconds; {units}, and recognise pictures that are no video one by one"
            )
        if self._refused_s is not None and 0 < time_s - self._refused_s <= _IN_STEP_S:
            return None
        if step_s <= 0:
            cure = f"it goes back by {-step_s:g} s: drop late frames, and start a new stream for a new recording"
            cure = cure if step_s else "it is repeated: give every frame its own time"
            return f"expected later than the previous frame's {self._newest_s:.6f}; {cure}"
        return f"{step_s:g} s after the previous frame, expected at most a day; {units}"
