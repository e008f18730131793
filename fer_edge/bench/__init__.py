"""Latency, accuracy, memory and cold start of every variant, against the FP32 original and a reference CNN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_edge.bench.benchmark import run_bench as run_bench
    from fer_edge.bench.report import BenchReport as BenchReport
    from fer_edge.bench.report import Timing as Timing

__all__ = ["BenchReport", "Timing", "run_bench"]


def __getattr__(name: str) -> Any:
    # The cold start's process runs a module of this package and must not load the rest of it.
    if name in ("BenchReport", "Timing"):
        from fer_edge.bench import report

        return getattr(report, name)
    if name == "run_bench":
        from fer_edge.bench.benchmark import run_bench

        return run_bench
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
