"""The comparison on clips: its results as JSON, tables and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fer_edge.bench.report import DataRead
from fer_edge.bench.temporal_methods import AVERAGED, SEQUENCE, SINGLE, SMOOTHED
from fer_edge.core.bootstrap import BootstrapReport
from fer_edge.core.json_report import JsonReport
from fer_edge.core.tables import Column, Table, percent, points

__all__ = [
    "ClipReport",
    "ConditionResult",
    "DelayResult",
    "MethodDelay",
    "PooledGain",
    "accuracy_table",
    "delay_table",
    "render_markdown",
]

_SHORT: Final = {AVERAGED: "avg", SMOOTHED: "exp", SEQUENCE: "head"}
_POOLED: Final = {
    "trained": "all that the head was trained on",
    "unseen": "all it was never trained on",
    "all": "all, clean too",
}


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """Accuracy on clips of one expression.

    Attributes:
        name: ``"clean"`` or the corruption.
        level: 1 to 3; None for clean.
        family: ``"clean"``, ``"trained"`` or ``"unseen"``: whether the head was trained on such clips.
        top1: by method, by T (a string, as JSON wants it), as fractions.
        gain: the sequence head minus averaging, both at the full window; rows are clips.
    """

    name: str
    level: int | None
    family: str
    top1: Mapping[str, Mapping[str, float]]
    gain: BootstrapReport

    @property
    def title(self) -> str:
        """The name with its level."""
        return self.name.replace("_", " ") + ("" if self.level is None else f" {self.level}")


@dataclass(frozen=True, kw_only=True)
class PooledGain:
    """The sequence head minus averaging at the full window, over several conditions; rows are stills."""

    name: str
    conditions: int
    top1: Mapping[str, float]
    gain: BootstrapReport


@dataclass(frozen=True, kw_only=True)
class MethodDelay:
    """How soon one method reports a changed expression, in frames after the first that shows it.

    Attributes:
        median: over the clips compared; None where there are none.
        p90: the same.
        mean: the same.
        never: share of all clips in which the new expression is not reported before the end.
        right: share of all frames, from the full window on, whose expression is reported.
    """

    median: float | None
    p90: float | None
    mean: float | None
    never: float
    right: float


@dataclass(frozen=True, kw_only=True)
class DelayResult:
    """Clips whose expression changes once.

    Delays are compared on the clips in which every method reports the old expression before the change and the new
    one after it: a delay has no meaning in the others.

    Attributes:
        name: ``"clean"`` or ``"mixed"``.
        clips: how many.
        compared: how many of them the delays are taken over.
        methods: by method.
        right_gain: the sequence head minus averaging in `MethodDelay.right`; rows are clips.
    """

    name: str
    clips: int
    compared: int
    methods: Mapping[str, MethodDelay]
    right_gain: BootstrapReport


@dataclass(frozen=True, kw_only=True)
class ClipReport(JsonReport):
    """One run of the comparison.

    Attributes:
        smoothing: constant of the exponential smoothing.
        smoothing_chosen: whether it was chosen in this run, on these clips.
    """

    schema: int = 1
    created: str
    command: str
    device: Mapping[str, Any]
    data: DataRead
    clips: int
    bundle: str
    sha256: str
    variant: str
    provider: str
    provider_version: str
    window: int
    smoothing: float
    smoothing_chosen: bool
    conditions: tuple[ConditionResult, ...]
    pooled: tuple[PooledGain, ...]
    delays: tuple[DelayResult, ...]


def accuracy_table(report: ClipReport) -> Table:
    """Tabulate the top-1 of every method at every T by condition, and the gain of the head over averaging."""
    steps = [step for step in report.conditions[0].top1[SINGLE] if step != "1"]
    by_step = [
        Column(f"T={step} {short}", priority=int(step != steps[-1])) for step in steps for short in _SHORT.values()
    ]
    columns: list[Column | str] = ["clips", "T=1", *by_step, "head − avg"]
    rows: list[list[str | None]] = []
    for each in report.conditions:
        cells = [percent(each.top1[method][step], digits=1) for step in steps for method in _SHORT]
        mark = " †" if each.family == "unseen" else ""
        rows.append([each.title + mark, percent(each.top1[SINGLE]["1"], digits=1), *cells, _interval(each.gain)])
    for pooled in report.pooled:
        last = [percent(pooled.top1[method], digits=1) for method in _SHORT]
        blank: list[str | None] = [None] * (len(columns) - 3 - len(last))
        name = f"{_POOLED[pooled.name]} ({pooled.conditions})"
        rows.append([name, percent(pooled.top1[SINGLE], digits=1), *blank, *last, _interval(pooled.gain)])
    chosen = "chosen on these clips" if report.smoothing_chosen else "chosen on the choosing split"
    caption = [
        f"Top-1 %, newest frame's expression, {report.clips} clips a row from {report.data.split} (no row that is "
        f"in Training), {report.bundle}/{report.variant} on {report.provider_version}.",
        "T=1: the newest frame alone. avg: mean of the window's single-frame probabilities. exp: their exponential "
        f"smoothing ({report.smoothing:g}, {chosen}). head: BiLSTM and temporal attention on the window.",
        f"head − avg: points at T={report.window}, with the 95 % interval of a paired bootstrap over stills. "
        "1 to 3: levels. † never trained on.",
    ]
    return Table(columns=columns, rows=rows, caption="\n".join(caption))


def delay_table(report: ClipReport) -> Table:
    """Tabulate how soon each method reports a changed expression."""
    mean, never = Column("mean", priority=2), Column("never %", priority=1)
    columns: list[Column | str] = ["clips", "method", "median", "p90", mean, never, "right %", "head − avg"]
    rows: list[list[str | None]] = []
    for each in report.delays:
        for method, delay in each.methods.items():
            gain = _interval(each.right_gain) if method == SEQUENCE else None
            times = (_frames(delay.median), _frames(delay.p90), _frames(delay.mean, digits=1))
            shares = (percent(delay.never, digits=1), percent(delay.right, digits=1))
            rows.append([f"{each.name} ({each.compared} of {each.clips})", method, *times, *shares, gain])
    caption = [
        f"Changing clips, T={report.window}: frames (10 a second) from the first that shows the new expression to the "
        "first report of it, over the clips in which every method reports the old one before and the new one after.",
        "never: share of all clips in which it is not reported within 24 frames. right: share of all frames reported "
        "right. mixed: one or two corruptions of any level.",
    ]
    return Table(columns=columns, rows=rows, caption="\n".join(caption))


def render_markdown(report: ClipReport) -> str:
    """Render both tables and their origin."""
    lines = [
        f"# What the sequence buys: {report.bundle}/{report.variant} on {report.data.split} clips",
        "",
        f"Measured {report.created} by `{report.command}`; bundle sha256 `{report.sha256}`.",
        "",
        accuracy_table(report).to_markdown(),
        delay_table(report).to_markdown(),
    ]
    return "\n".join(lines)


def _frames(count: float | None, *, digits: int = 0) -> str | None:
    return None if count is None else f"{count:.{digits}f}"


def _interval(gain: BootstrapReport) -> str:
    return f"{points(gain.difference)} ({points(gain.low)}, {points(gain.high)})"
