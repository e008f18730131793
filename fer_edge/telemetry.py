"""OpenVINO reports home when it is imported; here it does not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import cast

__all__ = ["without_telemetry"]

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
