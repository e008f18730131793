"""Options of a live recogniser."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fer_edge.core.json import expect
from fer_edge.runtime.arguments import check_type, number, whole_number
from fer_edge.runtime.deadline import DeadlineOptions
from fer_edge.runtime.frame_layout import check_layout
from fer_edge.runtime.inference import BundleSource
from fer_edge.runtime.quality import QualityLimits
from fer_edge.runtime.streaming import StreamOptions
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import FaceRule

__all__ = ["LiveOptions"]


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options of a `LiveRecognizer`.

    Attributes:
        tracking: how faces are followed, and whether passengers are recognised.
        streaming: options of each face's stream.
        quality: the limits of a crop's quality, as `Recognizer` takes them.
        reject: a rule of your own for face crops, as `VideoRecognizer` takes it.
        deadline: the budget of a frame; what happens beyond it: `DeadlinePolicy`.
        stall_after_s: without a usable frame for this long the recogniser is FAILED.
        fallback: a smaller bundle that takes over under load, as `Recognizer` takes it; None for none.
        fallback_variant: its variant; of the same bundle a smaller variant.
        keep_warm_s: the network runs on an empty picture when no frame came for this long, for engines whose first run
            after a pause is slow; None for never.
        results_kept: results that wait for a slow consumer; older ones are removed and counted.
        white_level: of 16-bit infrared frames (`convert_frame`).
        copy_frames: `push` copies the frame; without it the caller must leave the buffer alone.
        every_frame: for recordings: `push` waits, no frame and no result is left out, no deadline and no stall; the
            times are the recording's.
        clock: the clock of the frames' times, in seconds.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> from fer_edge.runtime import DeadlineOptions, LiveOptions
        >>> LiveOptions(stall_after_s=1.0, fallback="nano", deadline=DeadlineOptions(frame_budget_ms=20)).results_kept
        16
    """

    tracking: TrackerOptions = field(default_factory=TrackerOptions)
    streaming: StreamOptions = field(default_factory=StreamOptions)
    quality: QualityLimits | Literal["measured"] | None = "measured"
    reject: FaceRule | None = None
    deadline: DeadlineOptions = field(default_factory=DeadlineOptions)
    stall_after_s: float = 2.0
    fallback: BundleSource | None = None
    fallback_variant: str = "auto"
    keep_warm_s: float | None = None
    results_kept: int = 16
    white_level: int | None = None
    copy_frames: bool = True
    every_frame: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        check_type("tracking", self.tracking, TrackerOptions, "TrackerOptions")
        check_type("deadline", self.deadline, DeadlineOptions, "DeadlineOptions")
        number("stall_after_s", self.stall_after_s)
        if self.keep_warm_s is not None:
            number("keep_warm_s", self.keep_warm_s)
        whole_number("results_kept", self.results_kept, least=1)
        if self.white_level is not None:
            check_layout("grey16", self.white_level)
        expect(callable(self.clock), "clock", self.clock, "a function that returns seconds")
