"""Estimates in an asyncio program: the camera has its thread, the event loop is never blocked.

python embed_asyncio.py --source 0
"""

from __future__ import annotations

import argparse
import asyncio

from fer_edge.runtime import FrameReader, LiveOptions, LiveRecognizer, open_source


async def watch(live: LiveRecognizer) -> int:
    """Print the driver's estimates as they come; return their number."""
    count = 0
    async for result in live:
        if result.driver is not None:
            count += 1
            print(f"{result.timestamp_s:10.2f} s  {result.driver.label} {result.driver.probability:.0%}", flush=True)
    return count


async def report(live: LiveRecognizer, *, every_s: float) -> None:
    """Print the recogniser's health now and then, beside the estimates."""
    while True:
        await asyncio.sleep(every_s)
        health = live.health()
        print(f"{health.state}: {health.processed} frames, p99 {health.latency_ms.get('p99', 0):.1f} ms", flush=True)


async def run(bundle: str, source: str) -> None:
    """Watch a source to its end."""
    with open_source(source) as frames:
        live = LiveRecognizer(bundle, options=LiveOptions(every_frame=not frames.live))
        with live, FrameReader(frames, live, reopen=lambda: open_source(source)):
            reporter = asyncio.create_task(report(live, every_s=5.0))
            count = await watch(live)
            reporter.cancel()
    print(f"{count} estimates of a driver")


def main() -> None:
    """Read the options and start the event loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="base")
    parser.add_argument("--source", default="0", help="a camera, file or address (fer_edge.runtime.open_source)")
    options = parser.parse_args()
    asyncio.run(run(options.bundle, options.source))


if __name__ == "__main__":
    main()
