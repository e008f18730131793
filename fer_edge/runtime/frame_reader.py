"""Reads a video source in a thread of its own, which may hang in a driver, and opens a lost camera again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from fer_edge.core.errors import DataError, InputError
from fer_edge.runtime.live import LiveRecognizer
from fer_edge.runtime.video_source import VideoSource

__all__ = ["FrameReader"]

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0
_JOIN_S: Final = 0.3


class FrameReader:
    """Pushes every frame of a source to a live recogniser, from a thread of its own; a context manager.

    A lost camera is opened again, with growing pauses; until it gives frames the recogniser is FAILED. Each result's
    token is its `SourceFrame`.

    Args:
        source: read to its end; stays open, unless it is a camera that is lost and opened again.
        live: gets the frames, and the end of the source.
        reopen: opens a lost camera again; without it the source ends.
        whole_frame: the frames are face crops.
        wait: waits for some seconds or until the reader is stopped; tests give another one.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import FrameReader, LiveOptions, LiveRecognizer, SourceFrame, VideoSource
        >>> drawn = (SourceFrame(image=np.zeros((48, 64, 3), np.uint8), timestamp_s=i / 10) for i in range(3))
        >>> source = VideoSource(drawn, name="mine", kind="file", frame_rate=10.0)
        >>> live = LiveRecognizer("nano", options=LiveOptions(every_frame=True))
        >>> with live, FrameReader(source, live, whole_frame=True):
        ...     [result.index for result in live.estimates()]
        [0, 1, 2]
    """

    def __init__(
        self,
        source: VideoSource,
        live: LiveRecognizer,
        *,
        reopen: Callable[[], VideoSource] | None = None,
        whole_frame: bool = False,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._source = source
        self._live = live
        self._reopen = reopen if source.live else None
        self._whole_frame = whole_frame
        self._stopped = threading.Event()
        self._wait = self._stopped.wait if wait is None else wait
        self._wait_s = 0.0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fer-edge reader", daemon=True)

    def __enter__(self) -> FrameReader:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """End within a fraction of a second; raise what ended the reading, if anything did.

        A read that hangs in the driver is left alone, and so is its source.
        """
        self._stopped.set()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            self._source.abandon()
        if kind is None and self._error is not None:
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
        self._live.finish()

    def _read(self, source: VideoSource) -> str | None:
        """Read a source to its end; return why a camera gives no more frames."""
        try:
            for frame in source:
                if self._stopped.is_set():
                    return None
                if self._wait_s:
                    self._wait_s = 0.0
                    self._live.report_source(None, reopened=True)
                try:
                    boxes = frame.whole_box if self._whole_frame else frame.boxes
                    self._live.push(frame.image, frame.timestamp_s, boxes=boxes, token=frame)
                except InputError:  # the recogniser is closed
                    return None
        except DataError as error:
            if self._reopen is None:
                raise
            return str(error)
        return source.lost

    def _open_again(self, fault: str) -> VideoSource | None:
        assert self._reopen is not None
        self._live.report_source(f"{fault}; it is being opened again")
        while not self._stopped.is_set():
            self._wait_s = min(max(2 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            self._wait(self._wait_s)
            try:
                return None if self._stopped.is_set() else self._reopen()
            except DataError:
                continue
        return None
