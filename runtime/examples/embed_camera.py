"""A camera in vehicle software: the driver's estimate, and how to treat its states.

    python embed_camera.py --source 0

The loop belongs to the vehicle's software; no frame is written or kept.
"""

from __future__ import annotations

import argparse

from fer_edge.runtime import FrameReader, LiveOptions, LiveRecognizer, open_source


def main() -> None:
    """Print a line where the driver's expression or the recogniser's state changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="base")
    parser.add_argument("--source", default="0", help="a camera, file or address (fer_edge.runtime.open_source)")
    parser.add_argument("--provider", default="cpu")
    options = parser.parse_args()
    shown = ""
    with open_source(options.source) as frames:
        # Of a camera the newest frame is recognised, of a recording every frame.
        live = LiveRecognizer(
            options.bundle, provider=options.provider, options=LiveOptions(every_frame=not frames.live)
        )
        with live, FrameReader(frames, live, reopen=lambda: open_source(options.source)):
            for result in live.estimates():
                driver = result.driver
                if result.state == "FAILED":
                    said = f"no estimate ({result.state_because})"  # as if there were no such function
                elif driver is None:
                    said = "nobody"
                elif driver.state != "OK":
                    said = f"{driver.label} ({driver.state}: {driver.state_because})"  # a hint, not a fact
                else:
                    said = driver.label
                if said.split(" (")[0] != shown.split(" (")[0]:
                    print(f"{result.timestamp_s:10.2f} s  {said}", flush=True)
                shown = said
            print(f"{live.health().processed} frames", flush=True)


if __name__ == "__main__":
    main()
