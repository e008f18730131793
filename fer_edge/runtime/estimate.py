"""The estimate of one face's expression at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fer_edge.core.json import encode, expect
from fer_edge.core.labels import Reading

__all__ = ["CANNOT_BE_JUDGED", "UNKNOWN", "BoxXyxy", "ExpressionEstimate", "State", "failed_estimate"]

UNKNOWN: Final = "unknown"
"""The label where no expression is probable enough, or nothing could be computed."""

CANNOT_BE_JUDGED: Final = "face cannot be judged"
"""The reason for ``"unknown"`` where the head `crowd` rejects the picture."""

State = Literal["OK", "DEGRADED", "FAILED"]
BoxXyxy = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, kw_only=True)
class ExpressionEstimate:
    """One face's expression at one moment.

    Attributes:
        label: one of the bundle's labels, or ``"unknown"``.
        unknown_because: reason, where the label is ``"unknown"``; else None.
        probabilities: by label, of sum 1; empty where the state is FAILED or the crop was rejected.
        quality: how fit the crop is to be judged, 0 to 1; below 0.5 it is rejected: the label is ``"unknown"``, there
            are no probabilities, and the window goes on without the frame. None where it was not measured.
        quality_reasons: why the crop is rejected, the worst first: ``"too small"``, ``"dark"``, ``"bright"``,
            ``"flat"``, ``"blurred"``, ``"covered"``, ``"turned away"``, ``"not a face"``, or a reason of the caller's.
        not_judgeable: probability that the face cannot be judged, or that there is none; apart from `probabilities`,
            which are those if it can. None where the head does not compute it.
        reading: whose labels these are: ``"crowd"`` or ``"fer2013"``; None where FAILED.
        timestamp_s: capture time of the newest frame, in the caller's clock; None for a still.
        age_ms: age of that frame when the estimate was given.
        window_fill: real frames in the window over the window's length, above 0 to 1; 0 where FAILED.
        state: OK; DEGRADED (usable, but based on fewer or older frames than intended); FAILED (nothing computed).
        state_because: reason, where the state is not OK; else None.
        track_id: the face's number in a video, from 1; None outside videos.
        driver: the face is taken for the driver's.
        box_xyxy: the face's box in the frame, in pixels; None where the caller gave a crop.

    Raises:
        InputError: a label without a probability, or a missing or superfluous reason.

    Example:
        >>> from fer_edge.runtime import ExpressionEstimate
        >>> estimate = ExpressionEstimate(label="happy", probabilities={"happy": 0.75, "sad": 0.25}, window_fill=1.0)
        >>> estimate.probability, estimate.state
        (0.75, 'OK')
    """

    label: str
    unknown_because: str | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    quality: float | None = None
    quality_reasons: tuple[str, ...] = ()
    not_judgeable: float | None = None
    reading: Reading | None = None
    timestamp_s: float | None = None
    age_ms: float = 0.0
    window_fill: float = 0.0
    state: State = "OK"
    state_because: str | None = None
    track_id: int | None = None
    driver: bool = False
    box_xyxy: BoxXyxy | None = None

    def __post_init__(self) -> None:
        unknown = self.label == UNKNOWN
        explained = unknown == (self.unknown_because is not None)
        expect(explained, "unknown_because", self.unknown_because, "a reason exactly where the label is 'unknown'")
        explained = (self.state == "OK") == (self.state_because is None)
        expect(explained, "state_because", self.state_because, "a reason exactly where the state is not OK")
        expect(unknown or self.label in self.probabilities, "label", self.label, "one that has a probability")
        expect(0 <= self.window_fill <= 1, "window_fill", self.window_fill, "0 to 1")

    @property
    def probability(self) -> float:
        """Probability of the most probable expression, whether or not it is the label; 0 where FAILED."""
        return max(self.probabilities.values(), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name; the probabilities as an object by label."""
        return dict(encode(self))


def failed_estimate(reason: str, *, timestamp_s: float | None, age_ms: float = 0.0) -> ExpressionEstimate:
    """Build the estimate of a face for which nothing could be computed."""
    return ExpressionEstimate(
        label=UNKNOWN,
        unknown_because="nothing could be computed",
        timestamp_s=timestamp_s,
        age_ms=age_ms,
        state="FAILED",
        state_because=reason,
    )
