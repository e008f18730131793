"""Tells systemd that the service is ready, alive, and in which state: datagrams on a local socket, by its protocol."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fer_edge.runtime.health import Health

__all__ = ["ServiceNotifier"]

_STATUS_EVERY_S: Final = 5.0


class ServiceNotifier:
    """Notifies the service manager that started this process; does nothing where none did. A context manager.

    The protocol is that of sd_notify(3): ``READY=1``, ``STATUS=``, ``WATCHDOG=1``, ``STOPPING=1``. The watchdog is fed
    while frames are being processed or waited for, and not while one hangs in an engine or a driver: systemd then
    restarts the service.

    Args:
        address: the socket; ``NOTIFY_SOCKET`` of the environment by default.
        watchdog_s: the period within which systemd expects a sign of life; ``WATCHDOG_USEC`` by default.
    """

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        if watchdog_s is None:
            stated = os.environ.get("WATCHDOG_USEC", "")
            watchdog_s = int(stated) / 1e6 if stated.isdecimal() else 0.0
        self._period_s = min(_STATUS_EVERY_S, watchdog_s / 3 or _STATUS_EVERY_S)
        self._ended = threading.Event()

    def watch(self, health: Callable[[], Health]) -> None:
        """Report readiness now, and the state from now on."""
        self._send("READY=1")
        if self._address:
            threading.Thread(target=self._watch, args=(health,), name="fer-edge systemd", daemon=True).start()

    def close(self) -> None:
        """Report that the service ends; a second call does nothing."""
        if not self._ended.is_set():
            self._ended.set()
            self._send("STOPPING=1")

    def __enter__(self) -> ServiceNotifier:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _watch(self, health: Callable[[], Health]) -> None:
        while not self._ended.is_set():
            now = health()
            because = "" if now.because is None else f": {now.because}"
            text = f"STATUS={now.state}{because}, {now.processed} frames".replace("\n", " ")
            hangs = any(reason.name == "worker" for reason in now.reasons)
            self._send(text if hangs else f"{text}\nWATCHDOG=1")
            self._ended.wait(self._period_s)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        place = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Without waiting: a service manager that does not listen must not stop the recognition.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(text.encode(), place)
