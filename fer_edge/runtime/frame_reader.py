"""Reads a video source in a thread of its own, which may hang in a driver, and opens a lost camera again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from fer_edge.core.errors import DataError, InputError
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["FrameReader", "call_interruptibly"]

T = TypeVar("T")

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0
_JOIN_S: Final = 0.3


def call_interruptibly(function: Callable[[], T]) -> T:
    """Call a function that may hang in a driver, such that a signal ends the wait for it; raises what it raises."""
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=call, name="fer-edge opening", daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]


class FrameReader:
    """Hands over every frame of a source from a daemon thread; a lost camera is opened again, with growing pauses.

    Args:
        source: read to its end; stays open, unless it is a camera that is lost and opened again.
        hand_over: called with every frame; an `InputError` that it raises ends the reading.
        finish: called at the end.
        reopen: opens a lost camera again; without it the source ends.
        report: called with the fault when the camera is lost, and with None when it gives frames again.
        wait: waits for some seconds or until the reader is stopped; tests give another one.
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        hand_over: Callable[[SourceFrame], object],
        finish: Callable[[], object],
        reopen: Callable[[], VideoSource] | None = None,
        report: Callable[[str | None], object] = lambda fault: None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._source = source
        self._hand_over = hand_over
        self._finish = finish
        self._reopen = reopen if source.live else None
        self._report = report
        self._stopped = threading.Event()
        self._wait = self._stopped.wait if wait is None else wait
        self._wait_s = 0.0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fer-edge reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End within a fraction of a second; a read that hangs in the driver is left alone, and so is its source."""
        self._stopped.set()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            self._source.abandon()

    def check(self) -> None:
        """Raise what ended the reading, if anything did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        source: VideoSource | None = self._source
        try:
            while source is not None:
                fault = self._read(source)
                again = fault is not None and self._reopen is not None and not self._stopped.is_set()
                if again or source is not self._source:
                    source.close()
                source = self._open_again(str(fault)) if again else None
        except BaseException as error:
            self._error = error
        self._finish()

    def _read(self, source: VideoSource) -> str | None:
        """Read a source to its end; return why a camera gives no more frames."""
        try:
            for frame in source:
                if self._stopped.is_set():
                    return None
                if self._wait_s:
                    self._wait_s = 0.0
                    self._report(None)
                try:
                    self._hand_over(frame)
                except InputError:  # the recogniser is closed
                    return None
        except DataError as error:
            if self._reopen is None:
                raise
            return str(error)
        return source.lost

    def _open_again(self, fault: str) -> VideoSource | None:
        assert self._reopen is not None
        self._report(f"{fault}; it is being opened again")
        while not self._stopped.is_set():
            self._wait_s = min(max(2 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            self._wait(self._wait_s)
            try:
                return None if self._stopped.is_set() else self._reopen()
            except DataError:
                continue
        return None
