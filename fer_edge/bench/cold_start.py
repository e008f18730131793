"""The process of a cold start: imports the runtime, opens a variant and computes its first probabilities.

Run by `scenarios.cold_start` as ``python -m fer_edge.bench.cold_start BUNDLE VARIANT PROVIDER THREADS``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(bundle: str, variant: str, provider: str, threads: str) -> None:
    """Run one frame through the variant, then print when that was and the peak of resident memory."""
    import numpy as np

    from fer_edge.core.bundle import Bundle
    from fer_edge.runtime.inference import Network

    opened = Bundle.open(Path(bundle))
    size = opened.manifest.preprocess.size
    with Network.open(opened, variant=variant, provider=provider, threads=int(threads)) as network:
        features = network.encode(np.zeros((1, size, size), np.uint8))
        network.probabilities(features[:, None], np.ones(1, np.int64))
    ready_ns = time.monotonic_ns()  # the same clock in every process
    print(json.dumps({"ready_ns": ready_ns, "rss_peak_bytes": _rss_peak_bytes()}))


def _rss_peak_bytes() -> int | None:
    """Return the peak resident memory of this process; None where the system does not report it."""
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


if __name__ == "__main__":
    main(*sys.argv[1:])
