"""Face crops of your own detector, several faces at once: one encoder batch and one head batch per frame.

python embed_crops.py
"""

from __future__ import annotations

import numpy as np

from fer_edge.runtime import Recognizer

FACES = 3


def main() -> None:
    """Recognise three faces over thirty frames; drop the stream of a face that leaves."""
    random = np.random.default_rng(0)
    with Recognizer("base", variant="int8", provider="cpu", threads=1) as recognizer:
        streams = [recognizer.stream() for _ in range(FACES)]
        for index in range(30):
            crops = [random.integers(0, 256, (96, 96), dtype=np.uint8) for _ in streams]  # your detector's crops
            estimates = recognizer.update_streams(streams, crops, timestamp_s=index / 30)
            if index == 15:
                streams.pop()
        for number, estimate in enumerate(estimates):
            print(f"face {number}: {estimate.label}, window {estimate.window_fill:.0%}, {estimate.state}")


if __name__ == "__main__":
    main()
