"""The benchmark as tables: the verdict, what each variant costs, and how far another run's ratios hold in this one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fer_edge.bench.result import BenchReport, Comparison, VariantResult
from fer_edge.core.errors import InputError

__all__ = [
    "Table",
    "cost_table",
    "expect_common",
    "markdown",
    "megabytes",
    "percent",
    "points",
    "ratio_table",
    "verdict_table",
]

Cell: TypeAlias = "str | None"
_Column: TypeAlias = tuple[str, Callable[[VariantResult], Cell]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headings, cells (None where there is no value), the columns to align left, and what the figures mean."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: Sequence[str]
    caption: str


def verdict_table(report: BenchReport) -> Table:
    """Speed, size and accuracy of every variant beside the report's original, or else its own bundle's FP32."""
    columns: list[_Column] = [
        ("x", lambda result: f"{result.x:.3f}"),
        ("ms", lambda result: _p50(result, "frame")),
        ("speedup", _against(lambda other: f"{other.speedup_p50:.2f}")),
        ("MB", lambda result: megabytes(result.graph_bytes)),
        ("smaller", _against(lambda other: f"{other.size_ratio:.2f}")),
        ("top-1 %", _top1),
        ("unleaked %", _unleaked),
        ("Δ top-1", _against(lambda other: points(other.top1_delta))),
        ("flips %", _against(lambda other: percent(other.flip_rate))),
        ("McNemar", _against(lambda other: None if other.mcnemar_p is None else f"{other.mcnemar_p:.2g}")),
    ]
    if not any(_unleaked(result) for result in report.variants):
        columns = [column for column in columns if column[0] != "unleaked %"]
    compared = f"{report.original} on the same provider" if report.original else "the bundle's own FP32"
    caption = [
        "x: encoder + head on one frame over the reference CNN "
        f"({report.reference.latency_ms.p50:.3f} ms), interleaved; below 1 is faster. "
        f"ms: the same, p50 of {_timing(report)}.",
        f"speedup, smaller, Δ top-1 (points), flips and McNemar (p): against {compared}.",
        *_accuracy_note(report),
    ]
    return _table(report, columns, caption)


def cost_table(report: BenchReport) -> Table:
    """Milliseconds by stage with the tail, the streaming step, cold start and memory."""
    columns: list[_Column] = [
        ("encoder", lambda result: _p50(result, "encoder")),
        ("head", lambda result: _p50(result, "head")),
        ("p99", lambda result: f"{result.latency_ms['frame'].p99:.3f}"),
        ("stream", lambda result: _p50(result, "streaming_step")),
        ("×enc", lambda result: f"{result.streaming_ratio:.2f}"),
        ("camera", lambda result: _p50(result, "end_to_end")),
        ("idle", lambda result: _p50(result, "after_idle")),
        ("start", lambda result: _p50(result, "cold_start", digits=0)),
        ("RSS MB", lambda result: megabytes(result.rss_peak_bytes, digits=0)),
    ]
    windows = ", ".join(str(window) for window in sorted({result.window for result in report.variants}))
    caption = [
        f"ms, p50 of {_timing(report)}. p99: of encoder + head. stream: encoder + head on a window of {windows}, "
        "×enc: that over the encoder alone. camera: from a face box in a camera frame to probabilities.",
        "start: from starting Python to the first probabilities, in a fresh process; RSS: its peak.",
    ]
    if report.timing.idle_s is None:
        columns = [column for column in columns if column[0] != "idle"]
    else:
        caption.append(f"idle: the streaming step after {report.timing.idle_s:g} s in which nothing ran.")
    return _table(report, columns, caption)


def ratio_table(report: BenchReport, other: BenchReport) -> Table:
    """The ratios of this run beside those of another, for example of another machine: do they hold here?

    Args:
        report: this run.
        other: the run that it is held against.

    Raises:
        InputError: no variant on any provider stands in both.
    """
    there = {_identity(result): result for result in other.variants}
    pairs = [(result, there[_identity(result)]) for result in report.variants if _identity(result) in there]
    if not pairs:
        raise InputError("the two runs have no variant on a provider in common")
    columns: list[tuple[str, Callable[[VariantResult, VariantResult], Cell]]] = [
        ("x", lambda here, _: f"{here.x:.3f}"),
        ("x there", lambda _, then: f"{then.x:.3f}"),
        ("x ratio", lambda here, then: f"{here.x / then.x:.2f}"),
    ]
    if report.original == other.original:  # a speedup over something else says something else
        columns += [
            ("speedup", lambda here, _: _ratio(_speedup(here))),
            ("speedup there", lambda _, then: _ratio(_speedup(then))),
            ("speedup ratio", lambda here, then: _ratio(_speedup(here), _speedup(then))),
        ]
    if all(_judged_on(here) == _judged_on(then) for here, then in pairs):
        columns += [("top-1 %", lambda here, _: _top1(here)), ("top-1 % there", lambda _, then: _top1(then))]
    shares = [here.x / then.x for here, then in pairs]
    return Table(
        columns=("variant", "provider", *(name for name, _ in columns)),
        rows=[
            [f"{here.bundle}/{here.name}", here.provider, *(cell(here, then) for _, cell in columns)]
            for here, then in pairs
        ],
        left=("variant", "provider"),
        caption=f"there: {_machine(other)}, {other.created[:10]}; here: {_machine(report)}. ratio: here over there; "
        f"that of x is {statistics.median(shares):.2f} in the median, from {min(shares):.2f} to {max(shares):.2f}.",
    )


def expect_common(other: BenchReport, bundles: Sequence[str], providers: Sequence[str]) -> None:
    """Refuse, before anything is measured, another run that has none of these bundles on any of these providers.

    Raises:
        InputError: so it is; it says what the other run has.
    """
    there = {(result.bundle, result.provider) for result in other.variants}
    if not there & {(bundle, provider) for bundle in bundles for provider in providers}:
        has = ", ".join(f"{bundle} on {provider}" for bundle, provider in sorted(there))
        asked = ", ".join(f"{bundle} on {provider}" for bundle in bundles for provider in providers)
        raise InputError(f"the bench JSON to compare with has {has or 'nothing'}; expected one of {asked}")


def percent(rate: float | None, *, digits: int = 2) -> Cell:
    """A fraction as per cent, without the sign."""
    return None if rate is None else f"{100 * rate:.{digits}f}"


def points(delta: float | None) -> Cell:
    """A difference of fractions in percentage points, with its sign."""
    return None if delta is None else f"{100 * delta:+.2f}"


def megabytes(size_bytes: int | None, *, digits: int = 2) -> Cell:
    """Bytes as 10^6 bytes."""
    return None if size_bytes is None else f"{size_bytes / 1e6:.{digits}f}"


def _table(report: BenchReport, columns: Sequence[_Column], caption: Sequence[str]) -> Table:
    left: list[_Column] = [("variant", lambda result: f"{result.bundle}/{result.name}")]
    if {result.provider for result in report.variants} != {"cpu"}:
        left.append(("provider", lambda result: result.provider))
    return Table(
        columns=[name for name, _ in (*left, *columns)],
        rows=[[cell(result) for _, cell in (*left, *columns)] for result in report.variants],
        left=[name for name, _ in left],
        caption="\n".join(caption),
    )


def _identity(result: VariantResult) -> tuple[str, str, str]:
    return result.bundle, result.name, result.provider


def _machine(report: BenchReport) -> str:
    return str(report.device.get("cpu") or "a machine that was not named")


def _speedup(result: VariantResult) -> float | None:
    other = result.against_original or result.against_own_fp32  # neither where FP32 was not measured
    return None if other is None else other.speedup_p50


def _ratio(value: float | None, over: float | None = 1.0) -> Cell:
    return None if value is None or over is None else f"{value / over:.2f}"


def _judged_on(result: VariantResult) -> tuple[str, str] | None:
    return None if result.accuracy is None else (result.accuracy.report.dataset, result.accuracy.report.split)


def _against(cell: Callable[[Comparison], Cell]) -> Callable[[VariantResult], Cell]:
    def of(result: VariantResult) -> Cell:
        own = None if result.precision == "fp32" else result.against_own_fp32  # itself, with nothing to tell
        other = result.against_original or own
        return None if other is None else cell(other)

    return of


def _p50(result: VariantResult, stage: str, *, digits: int = 3) -> Cell:
    latency = result.latency_ms.get(stage)
    return None if latency is None else f"{latency.p50:.{digits}f}"


def _top1(result: VariantResult) -> Cell:
    if result.accuracy is None:
        return None
    return f"{percent(result.accuracy.report.top1)}{'*' if result.accuracy.recorded else ''}"


def _unleaked(result: VariantResult) -> Cell:
    return None if result.accuracy is None else percent(result.accuracy.report.top1_without_leaked)


def _timing(report: BenchReport) -> str:
    threads = sorted({result.threads for result in report.variants})
    count = ", ".join(str(number) for number in threads)
    return (
        f"{report.timing.rounds} rounds of {report.timing.per_round}, batch 1, {count} thread{'s' * (threads != [1])}"
    )


def _accuracy_note(report: BenchReport) -> list[str]:
    stated = [result.accuracy for result in report.variants if result.accuracy is not None]
    if not stated:
        return []
    splits = ", ".join(sorted({f"{each.report.dataset} {each.report.split}" for each in stated}))
    leaked = any(each.report.top1_without_leaked is not None for each in stated)
    unleaked = ", and without the rows that also stand in the training split" if leaked else ""
    marked = "; * recorded in the manifest, not measured now" if any(each.recorded for each in stated) else ""
    return [f"top-1 on {splits}{unleaked}{marked}."]


def markdown(table: Table) -> str:
    """The table and its caption in Markdown, figures right-aligned."""
    rule = ["---" if column in table.left else "---:" for column in table.columns]
    rows = [["–" if cell is None else cell for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (table.columns, rule, *rows)]
    return "\n".join([*lines, "", *(f"{line}  " for line in table.caption.splitlines())]).rstrip() + "\n"
