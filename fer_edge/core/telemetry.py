"""Switch off the telemetry of OpenVINO and NNCF."""

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
    """Hide `openvino_telemetry` from imports in the block, so that OpenVINO and NNCF use their stubs.

    Otherwise `import openvino` sends an event, starts a thread and writes an id under the home folder. Packages that
    were imported earlier are not changed.
    """
    found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _REPORTER}
    for name in found:
        del sys.modules[name]
    sys.modules[_REPORTER] = cast(ModuleType, None)  # for the import system: not found
    try:
        yield
    finally:
        del sys.modules[_REPORTER]
        sys.modules.update(found)
