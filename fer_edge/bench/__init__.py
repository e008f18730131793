"""Latency, accuracy, memory and cold start of every variant, against the FP32 original and a reference CNN."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fer_edge.bench.benchmark import BenchOptions as BenchOptions
    from fer_edge.bench.benchmark import run_bench as run_bench
    from fer_edge.bench.report import BenchReport as BenchReport
    from fer_edge.bench.report import Timing as Timing

__all__ = ["BenchOptions", "BenchReport", "Timing", "run_bench"]

# Lazy: the process of a cold start runs a module of this package and must not load the rest of it.
_MODULES: Final = {"BenchOptions": "benchmark", "run_bench": "benchmark", "BenchReport": "report", "Timing": "report"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
