"""Options of expression streams, and the network outputs that an observer of them gets."""

from __future__ import annotations

from dataclasses import dataclass

from fer_edge.core.json import expect
from fer_edge.core.types import Float32, Uint8
from fer_edge.runtime.arguments import number
from fer_edge.runtime.feature_window import WindowView

__all__ = ["StreamOptions", "StreamOutputs"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """When a stream empties its window, and when it marks an estimate DEGRADED.

    Attributes:
        max_gap_s: a longer pause between two frames empties the window.
        max_age_ms: an estimate delivered later than this after its frame is DEGRADED.
        max_stretch: an estimate is DEGRADED whose frames are further apart than this many frame periods of the model.
        change_margin: another label replaces the last one only where its probability is higher by this much; 0 shows
            the most probable one at once. A margin shows fewer changes, and shows them later (runtime/README.md).

    Raises:
        InputError: a value that is not a positive number, or a margin outside 0 to 1.

    Example:
        >>> from fer_edge.runtime import StreamOptions
        >>> StreamOptions(max_age_ms=200).max_gap_s
        1.0
    """

    max_gap_s: float = 1.0
    max_age_ms: float = 500.0
    max_stretch: float = 2.5
    change_margin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_gap_s", "max_age_ms", "max_stretch"):
            number(name, getattr(self, name))
        fits = 0 <= number("change_margin", self.change_margin, positive=False) < 1
        expect(fits, "change_margin", self.change_margin, "0 to below 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamOutputs:
    """What the network computed for the faces of one frame, for an observer of `Recognizer.update_streams`.

    Attributes:
        rows: the places of these N faces among those given; faces that were rejected are not computed.
        faces: uint8 (N, S, S), the prepared faces.
        region_attention: float32 (N, tokens), weights of the encoder's region tokens.
        views: the window of each stream.
        frame_attention: float32 (N, T), weights of the windows' frames.
        probabilities: float32 (N, C), the head's own, in the order of `Network.outputs` and without priors.
    """

    rows: tuple[int, ...]
    faces: Uint8
    region_attention: Float32
    views: tuple[WindowView, ...]
    frame_attention: Float32
    probabilities: Float32
