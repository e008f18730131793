"""Expressions of face crops: a still, a clip, or a stream with cached features."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from fer_edge.core.bundle import Bundle, Manifest
from fer_edge.core.errors import InputError, SessionError
from fer_edge.core.preprocess import prepare_face
from fer_edge.core.types import Array, Uint8
from fer_edge.runtime.estimate import UNKNOWN, ExpressionEstimate
from fer_edge.runtime.feature_window import FeatureWindow, WindowView
from fer_edge.runtime.inference import Network, NetworkInfo

__all__ = ["ExpressionStream", "Recognizer", "StreamOptions"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """When a stream starts over, and when it calls an estimate DEGRADED.

    Attributes:
        max_gap_s: a longer pause between two frames empties the window.
        max_age_ms: an estimate given later than this after its frame is DEGRADED.
        max_stretch: so is one whose frames lie further apart than this many of the model's frame periods.
    """

    max_gap_s: float = 1.0
    max_age_ms: float = 500.0
    max_stretch: float = 2.5

    def __post_init__(self) -> None:
        for name in ("max_gap_s", "max_age_ms", "max_stretch"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}: got {value}, expected a positive number")


class Recognizer:
    """A bundle ready to recognise; a context manager.

    Faces are crops of any size, uint8 (H, W) grey or (H, W, 3) BGR, cut as the bundle's preprocessing says
    (`fer_edge.core.preprocess.crop_face` does that). One recognizer serves any number of streams; calls from several
    threads are as safe as those of `Network`, a stream itself belongs to one thread.

    Args:
        bundle: an open bundle, its folder, or a shipped bundle's name.
        variant: ``"auto"`` is int8 where the bundle has it, else fp32 (on ``"cuda"`` always fp32); `info` says which
            runs.
        provider: the engine; it runs or it raises.
        threads: threads of one run.
        engines: the folder of built engines, or where the engine keeps what it compiles, as for `Network.open`.

    Raises:
        BundleError, InputError, SessionError, MissingPackageError, OutputError: as `Network.open`.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        variant: str = "auto",
        provider: str = "cpu",
        threads: int = 1,
        engines: Path | None = None,
    ) -> None:
        self._engines = engines
        self._bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self._provider = provider
        self._threads = threads
        self._lock = threading.Lock()
        self._calls: Counter[Network] = Counter()  # under way, by the network that each began with
        self._network = self._open(variant)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The expressions, in output order."""
        return self.manifest.labels

    @property
    def info(self) -> NetworkInfo:
        """What really runs: variant, precision, provider and its version, threads."""
        return self._network.info

    @property
    def network(self) -> Network:
        """The encoder and head that run now."""
        return self._network

    def change_variant(self, variant: str) -> None:
        """Go on with another variant of the bundle; the windows of all streams start over at their next frame.

        A call that another thread has under way ends with the old variant, which is closed after it.

        Raises:
            BundleError, InputError, SessionError, MissingPackageError, OutputError: as `Network.open`; the old variant
                then goes on.
        """
        network = self._open(variant)
        with self._lock:
            network, self._network = self._network, network
            idle = not self._calls[network]
            if idle:
                del self._calls[network]
        if idle:
            network.close()

    def recognize(self, face: Uint8) -> ExpressionEstimate:
        """The expression of one still.

        Raises:
            InputError: another type or shape, or an empty crop.
            SessionError: the engine failed.
        """
        return self.recognize_stills([face])[0]

    def recognize_stills(self, faces: Sequence[Uint8]) -> tuple[ExpressionEstimate, ...]:
        """As `recognize`, for several stills in one batch."""
        if not len(faces):
            return ()
        started = time.perf_counter_ns()
        with self._in_use() as network:
            features = network.encode(self._prepare(faces))
            rows = network.probabilities(features[:, None], np.ones(len(features), np.int64))
        return tuple(self._estimate(network, row, age_ms=_since_ms(started), window_fill=1.0) for row in rows)

    def recognize_clip(self, faces: Sequence[Uint8]) -> ExpressionEstimate:
        """The one expression of a clip of one face.

        A clip longer than the model's window is read in windows that cover it evenly, and their probabilities are
        averaged.

        Args:
            faces: crops in order of time, at the manifest's frame rate; an array (T, H, W) will do.

        Raises:
            InputError: no frame, another type or shape, or an empty crop.
            SessionError: the engine failed.
        """
        if not len(faces):
            raise InputError("faces: got an empty clip, expected at least one frame")
        started = time.perf_counter_ns()
        with self._in_use() as network:
            features = network.encode(self._prepare(faces))
            count, window = len(features), network.window
            steps = min(count, window)
            starts = np.linspace(0, count - steps, math.ceil(count / window)).round().astype(np.int64)
            windows = features[starts[:, None] + np.arange(steps)]
            rows = network.probabilities(windows, np.full(len(starts), steps, np.int64))
        return self._estimate(
            network,
            rows.mean(axis=0),
            age_ms=_since_ms(started),
            window_fill=steps / window,
            degraded=_unfilled(steps, window),
        )

    def stream(
        self, *, clock: Callable[[], float] | None = None, options: StreamOptions | None = None
    ) -> ExpressionStream:
        """A new stream of one face.

        Args:
            clock: the clock that the frames' timestamps come from (`time.monotonic`, say): ages then count from the
                moment the frame was taken. Without it they count from the call of `update`.
            options: when to start over and when to call an estimate DEGRADED.
        """
        return ExpressionStream(self, clock=clock, options=options or StreamOptions())

    def update_streams(
        self, streams: Sequence[ExpressionStream], faces: Sequence[Uint8], *, timestamp_s: float
    ) -> tuple[ExpressionEstimate, ...]:
        """`ExpressionStream.update` for several faces of one frame: one encoder batch, one head batch.

        Args:
            streams: this recognizer's streams, each once.
            faces: a crop for each.
            timestamp_s: when the frame was taken, in seconds.

        Returns:
            An estimate for each stream; all FAILED where the engine failed.

        Raises:
            InputError: another type or shape, an empty crop, or a time not later than the last one.
        """
        if len(streams) != len(faces) or len({id(stream) for stream in streams}) != len(streams):
            raise InputError(f"got {len(streams)} streams for {len(faces)} faces, expected one each, none twice")
        if any(stream._recognizer is not self for stream in streams):
            raise InputError("got a stream of another recognizer, expected this one's own")
        if not streams:
            return ()
        started = time.perf_counter_ns()
        frames = self._prepare(faces)
        for stream in streams:
            stream._window.check_time(timestamp_s)
        try:
            with self._in_use() as network:
                features = network.encode(frames)
                for stream, feature in zip(streams, features, strict=True):
                    stream._window.push(feature, timestamp_s=timestamp_s, encoder=network.variant.encoder.sha256)
                views = [stream._window.view() for stream in streams]
                lengths = np.array([view.length for view in views], np.int64)
                rows = network.probabilities(np.stack([view.features for view in views]), lengths)
        except SessionError as error:
            return tuple(stream._failed(str(error), timestamp_s, started) for stream in streams)
        results = zip(streams, rows, views, strict=True)
        return tuple(stream._given(network, row, view, timestamp_s, started) for stream, row, view in results)

    def close(self) -> None:
        """Close the engine; a second call does nothing."""
        self._network.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, variant: str) -> Network:
        return Network.open(
            self._bundle, variant=variant, provider=self._provider, threads=self._threads, engines=self._engines
        )

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[Network]:
        """The network of now, for one call: `change_variant` leaves it open until the call's end."""
        with self._lock:
            network = self._network
            self._calls[network] += 1
        try:
            yield network
        finally:
            with self._lock:
                self._calls[network] -= 1
                retired = not self._calls[network] and network is not self._network
                if retired:
                    del self._calls[network]
            if retired:
                network.close()

    def _prepare(self, faces: Sequence[Uint8]) -> Uint8:
        spec = self.manifest.preprocess
        return np.stack([prepare_face(face, spec) for face in faces])

    def _estimate(
        self,
        network: Network,
        row: Array,
        *,
        age_ms: float,
        window_fill: float,
        timestamp_s: float | None = None,
        degraded: str | None = None,
    ) -> ExpressionEstimate:
        """One row of a network's probabilities as an estimate."""
        best = int(np.argmax(row))
        threshold = network.variant.unknown_threshold
        doubt = None
        if row[best] < threshold:
            doubt = f"the most probable, {self.labels[best]}, has {row[best]:.2f}, below the threshold {threshold:.2f}"
        return ExpressionEstimate(
            label=self.labels[best] if doubt is None else UNKNOWN,
            unknown_because=doubt,
            probabilities={label: float(value) for label, value in zip(self.labels, row, strict=True)},
            timestamp_s=timestamp_s,
            age_ms=age_ms,
            window_fill=window_fill,
            state="OK" if degraded is None else "DEGRADED",
            state_because=degraded,
        )


class ExpressionStream:
    """One face over time; `Recognizer.stream` makes it, one thread uses it.

    Each `update` costs one encoder pass and one pass of the head over the cached features of the window
    (`fer_edge.runtime.feature_window` says which).
    """

    def __init__(self, recognizer: Recognizer, *, clock: Callable[[], float] | None, options: StreamOptions) -> None:
        self._recognizer = recognizer
        self._clock = clock
        self._options = options
        self._window = FeatureWindow(recognizer.manifest.sequence, max_gap_s=options.max_gap_s)

    def update(self, face: Uint8, *, timestamp_s: float) -> ExpressionEstimate:
        """Take one frame's face into account.

        Args:
            face: uint8 (H, W) grey or (H, W, 3) BGR crop.
            timestamp_s: when the frame was taken, in seconds; later than the one before.

        Returns:
            The expression over the window that ends at this frame; FAILED where the engine failed.

        Raises:
            InputError: another type or shape, an empty crop, or a time not later than the last one.
        """
        return self._recognizer.update_streams([self], [face], timestamp_s=timestamp_s)[0]

    def reset(self) -> None:
        """Empty the window, for example when another person sits down."""
        self._window.clear()

    def _given(
        self, network: Network, row: Array, view: WindowView, timestamp_s: float, started_ns: int
    ) -> ExpressionEstimate:
        sequence = self._recognizer.manifest.sequence
        age_ms = self._age_ms(timestamp_s, started_ns)
        degraded = _unfilled(view.length, sequence.window)
        if view.largest_gap_s * sequence.frame_rate > self._options.max_stretch:
            degraded = f"frames are missing: {view.largest_gap_s:.2f} s between two of the window"
        if age_ms > self._options.max_age_ms:
            degraded = f"the frame is {age_ms:.0f} ms old, more than {self._options.max_age_ms:.0f}"
        return self._recognizer._estimate(
            network,
            row,
            age_ms=age_ms,
            window_fill=view.length / sequence.window,
            timestamp_s=timestamp_s,
            degraded=degraded,
        )

    def _failed(self, reason: str, timestamp_s: float, started_ns: int) -> ExpressionEstimate:
        return ExpressionEstimate(
            label=UNKNOWN,
            unknown_because="nothing could be computed",
            timestamp_s=timestamp_s,
            age_ms=self._age_ms(timestamp_s, started_ns),
            state="FAILED",
            state_because=reason,
        )

    def _age_ms(self, timestamp_s: float, started_ns: int) -> float:
        return _since_ms(started_ns) if self._clock is None else max(0.0, (self._clock() - timestamp_s) * 1e3)


def _since_ms(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e6


def _unfilled(length: int, window: int) -> str | None:
    return None if length >= window else f"{length} of the window's {window} frames so far"
