"""What every room's tests share: where FER2013 is, which marks cannot run here, and how much was skipped."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fer2013_path() -> Path:
    """The folder or file that FER_EDGE_DATA names; tests that use it carry the mark `data`."""
    stated = os.environ.get("FER_EDGE_DATA")
    if not stated:
        pytest.skip("needs FER2013: set FER_EDGE_DATA to where it lies")
    path = Path(stated)
    if not path.exists():
        pytest.fail(f"FER_EDGE_DATA names {path}, which does not exist")
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded data sets are kept for this run alone, away from the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it, and tables would take its width
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, and skip what this machine cannot run, with the reason."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # a long file begun last would keep one process busy alone
    used = {mark.name for item in items for mark in item.iter_markers()}
    for mark, reason in _unmet(used).items():
        for item in items:
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def _unmet(marks: set[str]) -> dict[str, str]:
    reasons = {}
    if "data" in marks and not os.environ.get("FER_EDGE_DATA"):
        reasons["data"] = "needs FER2013: set FER_EDGE_DATA to where it lies"
    if "train" in marks and not importlib.util.find_spec("torch"):
        reasons["train"] = "needs torch: pip install 'fer-edge[train]'"
    if "tensorrt" in marks and not (importlib.util.find_spec("tensorrt") or importlib.util.find_spec("tensorrt_rtx")):
        reasons["tensorrt"] = "needs TensorRT or TensorRT-RTX"
    if "gpu" in marks:
        from fer_edge.core.machine import machine_report

        if not machine_report().gpus:
            reasons["gpu"] = "needs a CUDA GPU"
    return reasons


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, by reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    terminalreporter.write_line(f"skips: {len(skipped)}")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"  {count} x {reason}")
