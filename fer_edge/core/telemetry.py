"""OpenVINO and NNCF report home when they are imported, and NNCF talks; here they do not."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

__all__ = ["quiet_nncf", "without_telemetry"]

_REPORTER = "openvino_telemetry"


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Let nothing imported inside the block find `openvino_telemetry`; OpenVINO and NNCF then use their own stub.

    Otherwise `import openvino` sends an event, starts a thread and writes an id under the home folder. Packages that
    were imported before the block keep what they found.
    """
    found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _REPORTER}
    for name in found:
        del sys.modules[name]
    sys.modules[_REPORTER] = cast(ModuleType, None)  # what the import system reads as "not to be found"
    try:
        yield
    finally:
        del sys.modules[_REPORTER]
        sys.modules.update(found)


@contextlib.contextmanager
def quiet_nncf(nncf: Any) -> Iterator[None]:
    """Let the imported package neither send, nor log, nor draw bars on stdout, which belongs to the command's result.

    Were NNCF imported before `without_telemetry`, it would hold a sender by now: it is given its own stub.
    """
    stub = sys.modules["nncf.telemetry.wrapper"].NNCFTelemetryStub
    cast(Any, sys.modules["nncf.telemetry.decorator"]).telemetry = stub()
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
