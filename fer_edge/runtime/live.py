"""A live recogniser: frames are pushed without waiting, estimates come out, and its health is always known."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from numpy.typing import NDArray

from fer_edge.core.errors import FerEdgeError, FrameError, InputError
from fer_edge.core.labels import Reading
from fer_edge.runtime.arguments import check_type
from fer_edge.runtime.deadline import DeadlinePolicy, LoadMeasure
from fer_edge.runtime.detector import FaceDetector
from fer_edge.runtime.estimate import BoxXyxy, ExpressionEstimate, State
from fer_edge.runtime.face_finder import open_detector
from fer_edge.runtime.frame_layout import FrameSizes, check_layout, convert_frame
from fer_edge.runtime.health import Health, HealthMonitor
from fer_edge.runtime.inference import BundleSource, NetworkInfo
from fer_edge.runtime.live_options import LiveOptions
from fer_edge.runtime.live_result import LiveResult
from fer_edge.runtime.newest_queue import NewestQueue
from fer_edge.runtime.one_process import OneProcess
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer

__all__ = ["LiveRecognizer"]

_SPREAD: Final = 3.0  # detection runs this many times less often under load
_NEW_SIZE_AFTER: Final = 5  # so many frames in a row of another size are a camera that was set to it
_FAILED_AFTER: Final = 3  # so many frames in a row without a face that could be recognised are no accident
_LONGEST_WAIT_S: Final = 0.25
_JOIN_S: Final = 0.4  # for each thread on `close`, so that a process ends within a second


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pushed:
    frame: NDArray[Any]
    timestamp_s: float
    layout: str
    boxes: Sequence[BoxXyxy] | None
    token: Any
    pushed_s: float


class LiveRecognizer(OneProcess):
    """Recognises expressions in the frames of a camera, in a thread of its own; a context manager.

    `push` never waits: a frame that is not yet in work is replaced by a newer one. Results come by `estimates`, by
    ``async for``, or by `on_estimate`, which is called in a thread of its own; a consumer that does not take them loses
    the oldest ones and stops nothing. A frame that cannot be used is counted (`health`) and skipped.

    Args:
        bundle: as `Recognizer` takes it; or an open `Recognizer` with options of its own, which stays open.
        variant, provider, threads, reading: as `Recognizer` takes them.
        detector: ``"haar"``, ``"yunet:FILE"``, a `FaceDetector`, or None where boxes are given with every frame.
        seat: the driver's half of the picture.
        driver_roi: the driver's region (`TrackerOptions`).
        on_estimate: called with every result; `estimates` and ``async for`` cannot be used then.
        options: everything else.

    Raises:
        BundleError, InputError, SessionError, MissingPackageError, OutputError: as `Recognizer` and `open_detector`.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import LiveRecognizer
        >>> frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        >>> with LiveRecognizer("nano", seat="left") as live:
        ...     live.push(frame, boxes=[(20, 20, 70, 70)])
        ...     result = next(live.estimates(timeout_s=5.0))
        ...     result.state, len(result.estimates)
        ('OK', 1)
    """

    def __init__(
        self,
        bundle: BundleSource | Recognizer,
        *,
        variant: str = "auto",
        provider: str | Sequence[str] = "cpu",
        threads: int = 1,
        reading: Reading | None = None,
        detector: FaceDetector | str | None = "haar",
        seat: Literal["left", "right"] | None = None,
        driver_roi: BoxXyxy | None = None,
        on_estimate: Callable[[LiveResult], object] | None = None,
        options: LiveOptions | None = None,
    ) -> None:
        self._options = options = LiveOptions() if options is None else options
        check_type("options", options, LiveOptions, "LiveOptions")
        if on_estimate is not None and not callable(on_estimate):
            raise InputError(f"on_estimate: got {type(on_estimate).__name__}, expected a function of one result")
        self._tracking = options.tracking
        if seat is not None or driver_roi is not None:
            self._tracking = dataclasses.replace(options.tracking, seat=seat, driver_roi=driver_roi)
        finder = open_detector(detector) if isinstance(detector, str) else detector
        clock = None if options.every_frame else options.clock
        with contextlib.ExitStack() as opened:
            opening: dict[str, Any] = {"provider": provider, "threads": threads, "reading": reading}
            opening["quality"] = options.quality
            if isinstance(bundle, Recognizer):
                self._recognizer = bundle
            else:
                self._recognizer = opened.enter_context(Recognizer(bundle, variant=variant, **opening))
            self._fallback: Recognizer | None = None
            if options.fallback is not None:
                smaller = Recognizer(options.fallback, variant=options.fallback_variant, **opening)
                self._fallback = opened.enter_context(smaller)
            self._video = VideoRecognizer(
                self._recognizer, detector=finder, tracking=self._tracking, streaming=options.streaming, clock=clock,
                reject=options.reject,
            )  # fmt: skip
            self._opened = opened.pop_all()
        self._monitor = HealthMonitor(clock=options.clock)
        self._monitor.set("starting", "no frame was processed yet", state="DEGRADED")
        self._policy = DeadlinePolicy(self._measures(), options.deadline)
        self._frames = NewestQueue[_Pushed](4 if options.every_frame else 1, lossless=options.every_frame)
        self._results = NewestQueue[LiveResult](options.results_kept, lossless=options.every_frame)
        self._failure: BaseException | None = None
        self._sizes = FrameSizes(patience=1 if options.every_frame else _NEW_SIZE_AFTER)
        self._reset_asked = False
        self._failures = 0
        self._closed = False
        self._busy_since_s: float | None = None
        self._usable_s = self._ran_s = options.clock()
        self._newest = self._with_state(LiveResult.without_frame(-1, self._usable_s))
        self._telling = threading.Lock()
        self._threads = [threading.Thread(target=self._work, name="fer-edge recogniser", daemon=True)]
        self._on_estimate = on_estimate
        if on_estimate is not None:
            self._threads.append(threading.Thread(target=self._call_back, name="fer-edge on_estimate", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def info(self) -> NetworkInfo:
        """What runs now: the chosen network, or the fallback."""
        return self._running.info

    def push(
        self,
        frame: NDArray[Any] | None,
        timestamp_s: float | None = None,
        layout: str = "bgr",
        *,
        boxes: Sequence[BoxXyxy] | None = None,
        token: Any = None,
    ) -> None:
        """Hand over the newest frame; returns at once.

        Args:
            frame: as `convert_frame` takes it; one that cannot be used is counted and skipped, and so is None.
            timestamp_s: its capture time by `LiveOptions.clock`; now by default.
            layout: one of `LAYOUTS`.
            boxes: the faces' boxes where they are known; the detector is then not run.
            token: returned with the frame's result.

        Raises:
            InputError: an unknown layout, ``"grey16"`` without `LiveOptions.white_level`, or a closed recogniser.
        """
        check_layout(layout, self._options.white_level)
        self.check_process()
        if self._closed:
            raise InputError("push: got a frame after close(); open a new LiveRecognizer")
        now_s = self._options.clock()
        self._monitor.count_push()
        if frame is None:
            self._monitor.count_skip("frame", "got None, expected a numpy array")
            return
        self._frames.put(
            _Pushed(
                frame=copy.copy(frame) if self._options.copy_frames else frame,
                timestamp_s=now_s if timestamp_s is None else timestamp_s,
                layout=layout,
                boxes=boxes,
                token=token,
                pushed_s=now_s,
            )
        )

    def estimates(self, timeout_s: float | None = None) -> Iterator[LiveResult]:
        """Yield every result; ends after `close`, or when none came for `timeout_s`.

        Ages count up to the moment at which a result is handed out.

        Raises:
            InputError: the results go to `on_estimate`.
        """
        self._check_consumer()
        return self._take(timeout_s)

    async def __aiter__(self) -> AsyncIterator[LiveResult]:
        """Yield every result without blocking the event loop; ends after `close`."""
        import asyncio

        self._check_consumer()
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(arrived.set)

        with self._results.listening(wake):
            while True:
                arrived.clear()
                ended = self._results.closed
                for result in self._take(0.0):
                    yield result
                if ended:
                    return
                await arrived.wait()

    def health(self) -> Health:
        """Return state, reasons, counters and latency at this moment; may be called from any thread."""
        now_s = self._options.clock()
        busy_s, limit_s = self._busy_since_s, self._options.stall_after_s
        hung = busy_s is not None and now_s - busy_s > limit_s and not self._options.every_frame
        self._monitor.set("worker", f"a frame has been in work for more than {limit_s:g} s" if hung else None)
        self._check_stall(now_s)
        return self._monitor.health(
            dropped=self._frames.lost, lost=self._results.lost, load_level=self._policy.level, info=self.info
        )

    def report_source(self, fault: str | None, *, reopened: bool = False) -> None:
        """State a fault of the camera, which makes the recogniser FAILED until None is given; may count a reopening."""
        self._monitor.set("source", fault)
        self._monitor.reopened += reopened
        self._tell_state()

    def reset(self) -> None:
        """End all tracks and empty their windows before the next frame, for example when another person sits down."""
        self._reset_asked = True

    def finish(self) -> None:
        """Take no more frames; `estimates` ends after the results of those that were pushed."""
        self._frames.close()

    def close(self) -> None:
        """Stop within a second, and close what was opened; a second call does nothing."""
        self._closed = True
        self._frames.clear()
        self._frames.close()
        self._results.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_S)
        if not self._threads[0].is_alive():  # an engine that hangs cannot be closed
            self._opened.close()

    def __enter__(self) -> LiveRecognizer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _running(self) -> Recognizer:
        fallback = self._fallback if "fallback model" in self._policy.active else None
        return fallback or self._recognizer

    def _measures(self) -> list[LoadMeasure]:
        if self._options.every_frame:
            return []
        measures: list[LoadMeasure] = ["detection spread out"]
        if self._tracking.passengers:
            measures.append("driver only")
        if self._fallback is not None:
            measures.append("fallback model")
        return measures

    def _check_consumer(self) -> None:
        if self._on_estimate is not None:
            raise InputError("estimates: got on_estimate as well, expected one consumer; leave on_estimate out")

    def _take(self, timeout_s: float | None) -> Iterator[LiveResult]:
        while (result := self._results.get(timeout_s)) is not None:
            yield self._aged(result)
        if self._failure is not None and self._results.closed:
            raise self._failure

    def _aged(self, result: LiveResult) -> LiveResult:
        if self._options.every_frame or not result.estimates:
            return result
        return result.aged(self._options.clock(), max_age_ms=self._options.streaming.max_age_ms)

    def _call_back(self) -> None:
        assert self._on_estimate is not None
        for result in self._take(None):
            try:
                self._on_estimate(result)
                self._monitor.set("callback", None)
            except Exception as error:  # the caller's defect must not end the recognition
                self._monitor.set("callback", f"on_estimate raised {type(error).__name__}: {error}", state="DEGRADED")

    def _work(self) -> None:
        wait_s = min(_LONGEST_WAIT_S, self._options.stall_after_s / 4)
        while not self._closed:
            pushed = self._frames.get(wait_s)
            if pushed is None and self._frames.closed:
                break
            now_s = self._busy_since_s = self._options.clock()
            try:
                if pushed is not None:
                    self._process(pushed)
                else:
                    self._keep_warm(now_s)
            except Exception as error:
                self._fail(error)
            self._busy_since_s = None
            self._check_stall(self._options.clock())
            self._tell_state()
        self._results.close()

    def _process(self, pushed: _Pushed) -> None:
        started_ns = time.perf_counter_ns()
        if self._reset_asked:
            self._reset_asked = False
            self._video.reset()
        try:
            image = convert_frame(pushed.frame, pushed.layout, white_level=self._options.white_level)
            if self._sizes.changed(image):
                self._video.reset()
            result = self._video.process(image, timestamp_s=pushed.timestamp_s, boxes=pushed.boxes)
        except FrameError as error:
            what = str(error).partition(":")[0]
            self._monitor.count_skip(what if what.isidentifier() else "frame", str(error))
            return
        self._ran_s = self._usable_s = now_s = self._options.clock()
        self._monitor.count_result((now_s - pushed.pushed_s) * 1e3)
        self._monitor.set("starting", None)
        self._judge(result.estimates)
        self._check_stall(now_s)
        self._spare((time.perf_counter_ns() - started_ns) / 1e6, now_s)
        fields = {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
        self._deliver(LiveResult(**fields, token=pushed.token))

    def _judge(self, estimates: Sequence[ExpressionEstimate]) -> None:
        """Note a provider that took over, and faces that could not be recognised: some, or none for several frames."""
        self._monitor.set("engine", self._running.fallback_because, state="DEGRADED")
        failed = [each for each in estimates if each.state == "FAILED"]
        self._failures = self._failures + 1 if failed and len(failed) == len(estimates) else 0
        state: State = "FAILED" if self._failures >= _FAILED_AFTER else "DEGRADED"
        self._monitor.set("recognition", failed[0].state_because if failed else None, state=state)

    def _spare(self, spent_ms: float, now_s: float) -> None:
        """Take or withdraw a measure against overload."""
        level = self._policy.level
        if self._policy.update(spent_ms, now_s=now_s) == level:
            return
        active, tracking = self._policy.active, self._tracking
        if "detection spread out" in active:
            search_s, sweep_s = _SPREAD * tracking.search_s, _SPREAD * tracking.sweep_s
            tracking = dataclasses.replace(tracking, search_s=search_s, sweep_s=sweep_s)
        if "driver only" in active:
            tracking = dataclasses.replace(tracking, passengers=False)
        self._video.change_tracking(tracking)
        self._video.change_recognizer(self._running)
        budget_ms = self._options.deadline.frame_budget_ms
        because = f"frames take more than {budget_ms:g} ms: {', '.join(active)}"
        if "fallback model" in active:
            because += f" ({self.info.bundle} {self.info.variant})"
        self._monitor.set("load", because if active else None, state="DEGRADED")

    def _keep_warm(self, now_s: float) -> None:
        if self._options.keep_warm_s is not None and now_s - self._ran_s >= self._options.keep_warm_s:
            self._ran_s = now_s
            self._running.keep_warm()

    def _check_stall(self, now_s: float) -> None:
        limit_s = self._options.stall_after_s
        stalled = now_s - self._usable_s >= limit_s and not self._options.every_frame
        self._monitor.set("stalled", f"no usable frame for {limit_s:g} s" if stalled else None)

    def _fail(self, error: Exception) -> None:
        """Go on after a failed engine or detector, and after a defect; a recording's run ends with the error."""
        if self._options.every_frame:
            self._failure = error
            self._closed = True
            self._frames.close()
            return
        kind = "" if isinstance(error, FerEdgeError) else f"{type(error).__name__}: "
        self._monitor.set("recognition", f"{kind}{error}")
        with contextlib.suppress(Exception):
            self._video.reset()

    def _deliver(self, result: LiveResult) -> None:
        with self._telling:
            self._newest = self._with_state(result)
            self._results.put(self._newest)

    def _tell_state(self) -> None:
        """Deliver a result without a frame where the state is another one than the last result's."""
        with self._telling:
            if self._monitor.state != self._newest.state:
                bare = LiveResult.without_frame(self._newest.index, self._newest.timestamp_s)
                self._newest = self._with_state(bare)
                self._results.put(self._newest)

    def _with_state(self, result: LiveResult) -> LiveResult:
        return dataclasses.replace(result, state=self._monitor.state, state_because=self._monitor.because)
