"""Switch off the output of NNCF, and a telemetry sender that it holds already."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any, cast

__all__ = ["quiet_nncf"]


@contextlib.contextmanager
def quiet_nncf(nncf: Any) -> Iterator[None]:
    """Switch off telemetry, logs and progress bars of the imported NNCF; stdout is for the command's result.

    The stub replaces a sender that NNCF holds if it was imported before `without_telemetry`.
    """
    stub = sys.modules["nncf.telemetry.wrapper"].NNCFTelemetryStub
    cast(Any, sys.modules["nncf.telemetry.decorator"]).telemetry = stub()
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield
