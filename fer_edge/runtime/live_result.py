"""A result of a live recogniser: the estimates of a frame and the state of the whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from fer_edge.runtime.estimate import ExpressionEstimate, State
from fer_edge.runtime.video_recognizer import FrameResult

__all__ = ["LiveResult"]


@dataclass(frozen=True, kw_only=True)
class LiveResult(FrameResult):
    """The estimates of one frame and the recogniser's state; without estimates where only the state changed.

    Attributes:
        state: of the whole recogniser: OK, DEGRADED or FAILED (`Health`).
        state_because: why it is not OK.
        token: what the caller gave `LiveRecognizer.push` with the frame; None where only the state changed.

    Example:
        >>> from fer_edge.runtime import LiveResult
        >>> result = LiveResult(index=0, timestamp_s=0.0, estimates=(), detect_ms=0.0, recognise_ms=0.0)
        >>> result.state, result.driver
        ('OK', None)
    """

    state: State = "OK"
    state_because: str | None = None
    token: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def without_frame(cls, index: int, timestamp_s: float) -> LiveResult:
        """Build a result that only tells the state; index and time are the last frame's."""
        return cls(index=index, timestamp_s=timestamp_s, estimates=(), detect_ms=0.0, recognise_ms=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, without the token."""
        return {name: value for name, value in super().to_json().items() if name != "token"}

    def aged(self, now_s: float, *, max_age_ms: float) -> LiveResult:
        """Return the result with the ages of its estimates at this moment; one that is too old by now is DEGRADED."""
        return dataclasses.replace(self, estimates=tuple(_aged(each, now_s, max_age_ms) for each in self.estimates))


def _aged(estimate: ExpressionEstimate, now_s: float, limit_ms: float) -> ExpressionEstimate:
    """Return the estimate with its age at this moment; DEGRADED where it is too old by now."""
    if estimate.timestamp_s is None:
        return estimate
    age_ms = max(estimate.age_ms, (now_s - estimate.timestamp_s) * 1e3)
    if estimate.state != "OK" or age_ms <= limit_ms:
        return dataclasses.replace(estimate, age_ms=age_ms)
    late = f"the frame is {age_ms:.0f} ms old, more than {limit_ms:.0f}"
    return dataclasses.replace(estimate, age_ms=age_ms, state="DEGRADED", state_because=late)
