"""Estimates on a CAN bus: one message per face with counter and checksum, one for the recogniser's health.

    python embed_can.py --source 0 --interface socketcan --channel can0

The messages are described in expression.dbc. Needs: pip install python-can cantools
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import can
import cantools

from fer_edge.runtime import FrameReader, LiveOptions, LiveRecognizer, LiveResult, open_source

DATABASE = cantools.database.load_file(Path(__file__).with_name("expression.dbc"))
COUNTS = 15  # a counter goes from 0 to 14; 15 is no valid value, as in AUTOSAR's profile 1


def checksum(identifier: int, data: bytes) -> int:
    """Compute CRC-8 SAE J1850 of a message's identifier and of its bytes after the checksum."""
    value = 0xFF
    for byte in (identifier & 0xFF, identifier >> 8, *data[1:]):
        value ^= byte
        for _ in range(8):
            value = (value << 1) ^ 0x1D if value & 0x80 else value << 1
        value &= 0xFF
    return value ^ 0xFF


class ExpressionSender:
    """Sends results to a bus."""

    def __init__(self, bus: can.BusABC) -> None:
        self._bus = bus
        self._counters: Counter[object] = Counter()

    def send(self, result: LiveResult, *, load_level: int = 0) -> None:
        """Send one message per estimate, and one for the state of the recogniser."""
        for estimate in result.estimates:
            self._send(
                "DriverExpression",
                estimate.track_id,
                State=estimate.state,
                IsDriver=estimate.driver,
                TrackId=(estimate.track_id or 0) % 65536,
                Expression=estimate.label,
                Probability=min(100 * estimate.probability, 100),
                Age=min(estimate.age_ms, 2550),
                WindowFill=100 * estimate.window_fill,
            )
        self._send(
            "ExpressionHealth", "health", State=result.state, LoadLevel=load_level, Faces=min(len(result.boxes), 255)
        )

    def _send(self, name: str, stream: object, **signals: Any) -> None:
        message = DATABASE.get_message_by_name(name)
        counter = self._counters[stream] % COUNTS
        self._counters[stream] += 1
        data = bytearray(message.encode({"Checksum": 0, "Counter": counter, **signals}))
        data[0] = checksum(message.frame_id, data)
        self._bus.send(can.Message(arbitration_id=message.frame_id, data=data, is_extended_id=False))


def main(arguments: list[str] | None = None) -> None:
    """Read the options and send until the source ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="base")
    parser.add_argument("--source", default="0", help="a camera, file or address (fer_edge.runtime.open_source)")
    parser.add_argument("--interface", default="virtual", help="of python-can: socketcan, pcan, vector, virtual")
    parser.add_argument("--channel", default="fer-edge")
    options = parser.parse_args(arguments)
    with can.Bus(interface=options.interface, channel=options.channel) as bus, open_source(options.source) as frames:
        sender = ExpressionSender(bus)
        live = LiveRecognizer(options.bundle, options=LiveOptions(every_frame=not frames.live))
        with live, FrameReader(frames, live, reopen=lambda: open_source(options.source)):
            for result in live.estimates():
                sender.send(result, load_level=live.health().load_level)


if __name__ == "__main__":
    main()
