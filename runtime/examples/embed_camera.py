"""A camera in vehicle software: the driver's estimate, and how to treat its states.

    python embed_camera.py --source 0

The loop belongs to the vehicle's software; no frame is written or kept.
"""

from __future__ import annotations

import argparse
import time

from fer_edge.runtime import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer
from fer_edge.runtime.video_source import open_source


def main() -> None:
    """Print a line where the driver's expression changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="base")
    parser.add_argument("--source", default="0", help="a camera, file or address (fer_edge.runtime.open_source)")
    parser.add_argument("--provider", default="cpu")
    options = parser.parse_args()
    shown = ""
    with Recognizer(options.bundle, provider=options.provider) as recognizer, open_source(options.source) as frames:
        # A camera's times are of time.monotonic, so ages are true and late estimates are DEGRADED.
        video = VideoRecognizer(recognizer, clock=time.monotonic if frames.live else None)
        for frame in frames:
            driver = video.process(frame.image, timestamp_s=frame.timestamp_s, boxes=frame.boxes).driver
            if driver is None:
                said = "nobody"
            elif driver.state != "OK":
                said = f"{driver.label} ({driver.state}: {driver.state_because})"  # a hint, not a fact
            else:
                said = driver.label
            if said.split(" (")[0] != shown.split(" (")[0]:
                print(f"{frame.timestamp_s:10.2f} s  {said}", flush=True)
            shown = said
        if frames.lost is not None:
            raise SystemExit(frames.lost)  # report the lost camera, then start again


if __name__ == "__main__":
    main()
