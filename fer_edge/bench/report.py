"""The bench JSON as frozen dataclasses, with its one reader and writer. Tables, plots and pages are made from it.

Rates are fractions, deltas are variant minus original, `speedup` and `size_ratio` are original over variant (above 1 is
better), `x` is a variant's time over the reference CNN's (below 1 is faster).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fer_edge.bench.latency import LatencySummary
from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.json import expect
from fer_edge.core.json_report import JsonReport
from fer_edge.core.metrics import AccuracyReport

__all__ = [
    "SCHEMA",
    "BenchReport",
    "Comparison",
    "DataRead",
    "OwnComparison",
    "ReferenceResult",
    "StatedAccuracy",
    "Throughput",
    "Timing",
    "VariantResult",
]

SCHEMA: Final = 1
"""The schema of bench JSON that this version writes and reads."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Rounds and samples.

    Attributes:
        rounds: timing rounds per variant.
        per_round: samples of each stage in each round.
        warm_up: untimed calls beforehand.
        batch: faces in one call where throughput is measured.
        cold_starts: fresh processes started for each variant; 0 measures neither cold start nor memory.
        idle_s: seconds without work before each single streaming step of `after_idle`; None leaves it out.
        idle_repeats: samples of `after_idle`.
    """

    rounds: int = 20
    per_round: int = 10
    warm_up: int = 10
    batch: int = 32
    cold_starts: int = 3
    idle_s: float | None = None
    idle_repeats: int = 5

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("per_round", 1), ("warm_up", 0), ("batch", 1), ("cold_starts", 0)):
            value = getattr(self, name)
            expect(value >= least, name, value, f"at least {least}")
        expect(self.idle_s is None or 0 < self.idle_s <= 600, "idle_s", self.idle_s, "above 0, at most 600 seconds")
        expect(self.idle_repeats >= 1, "idle_repeats", self.idle_repeats, "at least 1")

    @classmethod
    def choose(
        cls, *, quick: bool = False, rounds: int | None = None, batch: int | None = None, idle_s: float | None = None
    ) -> Timing:
        """Return the default or, where `quick`, a timing of seconds instead of minutes, with the given values.

        Raises:
            InputError: a number out of range.
        """
        usual = cls(rounds=5, per_round=4, warm_up=2, batch=8, cold_starts=1, idle_repeats=2) if quick else cls()
        return replace(usual, rounds=rounds or usual.rounds, batch=batch or usual.batch, idle_s=idle_s)


@dataclass(frozen=True, kw_only=True)
class StatedAccuracy:
    """A variant's accuracy: measured in this run, or `recorded` in its manifest when it was made.

    Attributes:
        report: of the head `fer2013`, against the data set's labels.
        recorded: read from the manifest.
        crowd: of the head `crowd`, against the FER+ votes; None where the variant has none, or the data no votes.
    """

    report: AccuracyReport
    recorded: bool
    crowd: CrowdAccuracy | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report's keys and `recorded`, side by side, and `crowd` where there is one."""
        value = {**self.report.to_json(), "recorded": self.recorded}
        return value if self.crowd is None else {**value, "crowd": self.crowd.to_json()}

    @classmethod
    def from_json(cls, value: Any) -> StatedAccuracy:
        """Read what `to_json` returned.

        Raises:
            InputError: a key is missing, unknown or out of range.
        """
        expect(isinstance(value, Mapping) and isinstance(value.get("recorded"), bool), "accuracy", value, "an accuracy")
        rest = {key: entry for key, entry in value.items() if key not in ("recorded", "crowd")}
        crowd = CrowdAccuracy.from_json(value["crowd"]) if "crowd" in value else None
        return cls(report=AccuracyReport.from_json(rest), recorded=value["recorded"], crowd=crowd)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A variant against an FP32 original on the same provider.

    `flip_rate`, `mcnemar_p` and `ece_delta` need both evaluated in this run, so they are None without data;
    `top1_delta` then comes from the recorded accuracies.
    """

    speedup_p50: float
    size_ratio: float
    top1_delta: float | None
    ece_delta: float | None
    flip_rate: float | None
    mcnemar_p: float | None


@dataclass(frozen=True, kw_only=True)
class OwnComparison(Comparison):
    """A variant against the FP32 variant of its bundle: `max_abs_logit_diff` is before temperature."""

    encoder_speedup_p50: float
    max_abs_logit_diff: float


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Faces a second, encoder + head at T = 1, with `batch` faces in one call."""

    batch: int
    fps: float


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """One variant on one provider.

    Attributes:
        bundle: the bundle's name.
        sha256: of the bundle's manifest.
        name: the variant's name.
        batch: of the latencies (1).
        window: T of the streaming step.
        graph_bytes: encoder + head.
        parameters: encoder + head.
        macs: encoder for one frame + head for one window; None where the manifest has none.
        x: encoder + head at T = 1 over the reference CNN, round by round: the median.
        x_quartiles: first and third quartile of the same.
        streaming_ratio: encoder + head at T = window over the encoder alone, round by round: the median.
        latency_ms: `preprocess`, `encoder`, `head` (T = 1), `head_window` (T = window), `frame` (encoder + head,
            T = 1), `streaming_step` (encoder + head, T = window), `end_to_end` (box in a camera frame to probabilities)
            and, where measured, `cold_start` (process start -> first probabilities) and `after_idle` (streaming step).
        rss_peak_bytes: of the fresh process of the cold start; None where it was not measured.
    """

    bundle: str
    sha256: str
    name: str
    precision: str
    provider: str
    provider_version: str
    threads: int
    batch: int
    window: int
    graph_bytes: int
    parameters: int
    macs: int | None
    x: float
    x_quartiles: tuple[float, ...]
    streaming_ratio: float
    latency_ms: Mapping[str, LatencySummary]
    throughput_fps: Throughput
    rss_peak_bytes: int | None
    accuracy: StatedAccuracy | None
    against_own_fp32: OwnComparison | None
    against_original: Comparison | None


@dataclass(frozen=True, kw_only=True)
class ReferenceResult:
    """The reference CNN in the same run: FP32, ONNX Runtime, CPU."""

    sha256: str
    provider: str
    provider_version: str
    latency_ms: LatencySummary


@dataclass(frozen=True, kw_only=True)
class DataRead:
    """The data that accuracies of this run were measured on."""

    source: str
    sha256: str
    split: str
    split_sha256: str
    n: int


@dataclass(frozen=True, kw_only=True)
class BenchReport(JsonReport):
    """A whole benchmark.

    Attributes:
        created: ISO 8601 time.
        command: the command line; None where the library was called.
        device: machine, packages and load at the start.
        timing: rounds and samples.
        reference: the denominator of `x`.
        original: ``"bundle/variant"`` that `against_original` refers to.
        data: what accuracies were measured on; None where they are recorded ones.
        logits_on: what `max_abs_logit_diff` was measured on.
    """

    schema: int = SCHEMA
    created: str
    command: str | None
    device: Mapping[str, Any]
    timing: Timing
    reference: ReferenceResult
    original: str | None
    data: DataRead | None
    logits_on: str
    variants: tuple[VariantResult, ...]

    def __post_init__(self) -> None:
        expect(self.schema == SCHEMA, "schema", self.schema, str(SCHEMA))
