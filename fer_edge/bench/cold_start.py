"""Cold start: a fresh process imports the runtime, opens a variant and gives its first probabilities.

Run as a program (``python -m fer_edge.bench.cold_start``) this module is that process; `measure_cold_start` starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import SessionError

__all__ = ["ColdStart", "measure_cold_start"]

_TIMEOUT_S: Final = 300


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """From starting the interpreter to the first probabilities, and the process's peak of resident memory."""

    duration_ns: int
    rss_peak_bytes: int | None


def measure_cold_start(bundle: Path, *, variant: str, provider: str, threads: int) -> ColdStart:
    """Start a fresh process for one variant and wait for its first probabilities.

    Raises:
        SessionError: the process failed; the message holds its last line.
    """
    request = json.dumps({"bundle": str(bundle), "variant": variant, "provider": provider, "threads": threads})
    command = [sys.executable, "-m", "fer_edge.bench.cold_start", request]
    # The child finds this very package, however it got onto our own path.
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    start = time.monotonic_ns()
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=os.environ | {"PYTHONPATH": path}
        )
    except subprocess.TimeoutExpired as error:
        raise SessionError(f"cold start of {bundle} {variant} on {provider} took over {_TIMEOUT_S} s") from error
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise SessionError(f"cold start of {bundle} {variant} on {provider} failed: {last}")
    answer = json.loads(child.stdout)
    return ColdStart(duration_ns=answer["ready_ns"] - start, rss_peak_bytes=answer["rss_peak_bytes"])


def _run_once(bundle: str, variant: str, provider: str, threads: int) -> None:
    import numpy as np

    from fer_edge.core.bundle import Bundle
    from fer_edge.runtime.inference import Network

    opened = Bundle.open(Path(bundle))
    size = opened.manifest.preprocess.size
    with Network.open(opened, variant=variant, provider=provider, threads=threads) as network:
        features = network.encode(np.zeros((1, size, size), np.uint8))
        network.probabilities(features[:, None], np.ones(1, np.int64))


def _rss_peak_bytes() -> int | None:
    """Peak resident memory of this process; None where the system does not say."""
    # Linux carries ru_maxrss over from the parent through fork and exec; VmHWM belongs to this program alone.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    _run_once(**request)
    ready_ns = time.monotonic_ns()  # the same clock in every process
    print(json.dumps({"ready_ns": ready_ns, "rss_peak_bytes": _rss_peak_bytes()}))


if __name__ == "__main__":
    _main()
