"""The benchmark as tables: variants against the FP32 original, their cost, and the ratios of two runs side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from fer_edge.bench.report import BenchReport, Comparison, VariantResult
from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.errors import InputError
from fer_edge.core.tables import Column, Table, megabytes, percent, points

__all__ = ["cost_table", "expect_common", "ratio_table", "verdict_table"]

_Cells: TypeAlias = Mapping["Column | str", Callable[[VariantResult], "str | None"]]


def verdict_table(report: BenchReport) -> Table:
    """Tabulate speed, size and accuracy of every variant against the original, or else its own bundle's FP32."""
    columns: _Cells = {
        "x": lambda result: f"{result.x:.3f}",
        Column("ms", priority=1): lambda result: _p50(result, "frame"),
        "speedup": _against(lambda other: f"{other.speedup_p50:.2f}"),
        Column("MB", priority=2): lambda result: megabytes(result.graph_bytes),
        Column("smaller", priority=5): _against(lambda other: f"{other.size_ratio:.2f}"),
        "top-1 %": _top1,
        Column("unleaked %", priority=3): _unleaked,
        **_crowd_columns(report),
        Column("Δ top-1", priority=1): _against(lambda other: points(other.top1_delta)),
        Column("flips %", priority=4): _against(lambda other: percent(other.flip_rate)),
        Column("McNemar", priority=6): _against(
            lambda other: None if other.mcnemar_p is None else f"{other.mcnemar_p:.2g}"
        ),
    }
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
    """Tabulate milliseconds by stage with the tail, the streaming step, cold start and memory."""
    columns: _Cells = {
        "encoder": lambda result: _p50(result, "encoder"),
        "head": lambda result: _p50(result, "head"),
        "p99": lambda result: f"{result.latency_ms['frame'].p99:.3f}",
        "stream": lambda result: _p50(result, "streaming_step"),
        Column("×enc", priority=2): lambda result: f"{result.streaming_ratio:.2f}",
        "camera": lambda result: _p50(result, "end_to_end"),
        Column("idle", priority=1): lambda result: _p50(result, "after_idle"),
        "start": lambda result: _p50(result, "cold_start", digits=0),
        "RSS MB": lambda result: megabytes(result.rss_peak_bytes, digits=0),
    }
    windows = ", ".join(str(window) for window in sorted({result.window for result in report.variants}))
    caption = [
        f"ms, p50 of {_timing(report)}. p99: of encoder + head. stream: encoder + head on a window of {windows}, "
        "×enc: that over the encoder alone. camera: from a face box in a camera frame to probabilities.",
        "start: from starting Python to the first probabilities, in a fresh process; RSS: its peak.",
    ]
    if report.timing.idle_s is not None:
        caption.append(f"idle: the streaming step after {report.timing.idle_s:g} s without work.")
    return _table(report, columns, caption)


def ratio_table(report: BenchReport, other: BenchReport) -> Table:
    """Tabulate the ratios of this run beside those of another, for example of another machine.

    Args:
        report: this run.
        other: the run to compare with.

    Raises:
        InputError: no variant on a provider is in both.
    """
    others = {_identity(result): result for result in other.variants}
    pairs = [(result, others[_identity(result)]) for result in report.variants if _identity(result) in others]
    if not pairs:
        raise InputError("the two runs: got no variant on a provider in common, expected at least one")
    columns: dict[Column | str, Callable[[tuple[VariantResult, VariantResult]], str | None]] = {
        "variant": lambda pair: f"{pair[0].bundle}/{pair[0].name}",
        "provider": lambda pair: pair[0].provider,
        "x": lambda pair: f"{pair[0].x:.3f}",
        "x there": lambda pair: f"{pair[1].x:.3f}",
        "x ratio": lambda pair: f"{pair[0].x / pair[1].x:.2f}",
    }
    if report.original == other.original:  # two speedups compare only where both are over the same original
        columns["speedup"] = lambda pair: _ratio(_speedup(pair[0]))
        columns["speedup there"] = lambda pair: _ratio(_speedup(pair[1]))
        columns["speedup ratio"] = lambda pair: _ratio(_speedup(pair[0]), _speedup(pair[1]))
    if all(_judged_on(here) == _judged_on(there) for here, there in pairs):
        columns[Column("top-1 %", priority=1)] = lambda pair: _top1(pair[0])
        columns[Column("top-1 % there", priority=1)] = lambda pair: _top1(pair[1])
    shares = [here.x / there.x for here, there in pairs]
    caption = (
        f"there: {_machine(other)}, {other.created[:10]}; here: {_machine(report)}. ratio: here over there; "
        f"that of x is {statistics.median(shares):.2f} in the median, from {min(shares):.2f} to {max(shares):.2f}."
    )
    return Table.of(pairs, columns, caption=caption)


def expect_common(other: BenchReport, bundles: Sequence[str], providers: Sequence[str]) -> None:
    """Refuse, before anything is measured, a run with none of these bundles on any of these providers.

    Raises:
        InputError: naming what the other run has.
    """
    there = {(result.bundle, result.provider) for result in other.variants}
    if not there & {(bundle, provider) for bundle in bundles for provider in providers}:
        has = ", ".join(f"{bundle} on {provider}" for bundle, provider in sorted(there))
        asked = ", ".join(f"{bundle} on {provider}" for bundle in bundles for provider in providers)
        raise InputError(f"bench JSON to compare with: got {has or 'nothing'}, expected one of {asked}")


def _table(report: BenchReport, columns: _Cells, caption: Sequence[str]) -> Table:
    left: dict[Column | str, Callable[[VariantResult], str | None]] = {
        "variant": lambda result: f"{result.bundle}/{result.name}"
    }
    if {result.provider for result in report.variants} != {"cpu"}:
        left["provider"] = lambda result: result.provider
    return Table.of(report.variants, {**left, **columns}, caption="\n".join(caption))


def _identity(result: VariantResult) -> tuple[str, str, str]:
    return result.bundle, result.name, result.provider


def _machine(report: BenchReport) -> str:
    return str(report.device.get("cpu") or "a machine that was not named")


def _speedup(result: VariantResult) -> float | None:
    other = result.against_original or result.against_own_fp32  # neither where FP32 was not measured
    return None if other is None else other.speedup_p50


def _ratio(value: float | None, over: float | None = 1.0) -> str | None:
    return None if value is None or over is None else f"{value / over:.2f}"


def _judged_on(result: VariantResult) -> tuple[str, str] | None:
    return None if result.accuracy is None else (result.accuracy.report.dataset, result.accuracy.report.split)


def _against(cell: Callable[[Comparison], str | None]) -> Callable[[VariantResult], str | None]:
    def of(result: VariantResult) -> str | None:
        own = None if result.precision == "fp32" else result.against_own_fp32  # itself, with nothing to tell
        other = result.against_original or own
        return None if other is None else cell(other)

    return of


def _p50(result: VariantResult, stage: str, *, digits: int = 3) -> str | None:
    latency = result.latency_ms.get(stage)
    return None if latency is None else f"{latency.p50:.{digits}f}"


def _top1(result: VariantResult) -> str | None:
    if result.accuracy is None:
        return None
    return f"{percent(result.accuracy.report.top1)}{'*' if result.accuracy.recorded else ''}"


def _unleaked(result: VariantResult) -> str | None:
    return None if result.accuracy is None else percent(result.accuracy.report.top1_without_leaked)


def _crowd_columns(report: BenchReport) -> _Cells:
    """Agreement with the crowd, where some variant has a head for it."""
    if not any(result.accuracy and result.accuracy.crowd for result in report.variants):
        return {}

    def cell(value: Callable[[CrowdAccuracy], float | None]) -> Callable[[VariantResult], str | None]:
        def of(result: VariantResult) -> str | None:
            crowd = None if result.accuracy is None else result.accuracy.crowd
            return None if crowd is None else percent(value(crowd))

        return of

    return {
        "crowd %": cell(lambda crowd: crowd.first_choice_top1),
        Column("majority %", priority=1): cell(lambda crowd: crowd.majority_top1),
        Column("8 classes %", priority=3): cell(lambda crowd: crowd.eight_class_top1),
        Column("rejected %", priority=4): cell(lambda crowd: crowd.not_judgeable.faces),
    }


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
    unleaked = ", and without the rows that are also in the training split" if leaked else ""
    marked = "; * recorded in the manifest, not measured now" if any(each.recorded for each in stated) else ""
    crowd = [each.crowd for each in stated if each.crowd is not None]
    note = [f"top-1 on {splits}{unleaked}{marked}."]
    if crowd:
        note.append(
            "crowd, majority: agreement of the head crowd with the first choice of the FER+ votes "
            f"(n = {crowd[0].n_first_choice:,}) and with that of more than half of them (n = {crowd[0].n_majority:,}); "
            f"8 classes: by the protocol of Barsoum et al. 2016 (n = {crowd[0].n_eight_class:,}; contempt counts as "
            "wrong); rejected: faces of the first taken for not judgeable."
        )
    return note
