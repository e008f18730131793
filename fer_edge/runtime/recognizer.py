"""Expression recognition from face crops: stills, clips, and streams with cached features."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, InputError, SessionError
from fer_edge.core.labels import Reading
from fer_edge.core.manifest import Manifest
from fer_edge.core.preprocess import prepare_face
from fer_edge.core.types import Float32, Uint8
from fer_edge.runtime.arguments import check_type, listed
from fer_edge.runtime.estimate import ExpressionEstimate, failed_estimate
from fer_edge.runtime.feature_window import FeatureWindow, WindowView
from fer_edge.runtime.inference import BundleSource, Network, NetworkInfo, PathLike, open_bundle
from fer_edge.runtime.network_switch import NetworkSwitch, provider_order
from fer_edge.runtime.one_process import OneProcess, Reopened
from fer_edge.runtime.quality import UNMEASURED, Quality, QualityLimits, chosen_limits, judge_crops
from fer_edge.runtime.reading import HeadReader, Moment, Priors
from fer_edge.runtime.streaming import StreamOptions, StreamOutputs

__all__ = ["ExpressionStream", "Recognizer"]


class Recognizer(Reopened):
    """Recognises expressions in face crops with one variant of a bundle; a context manager.

    Faces are raw crops of any size, uint8 (H, W) grey or (H, W, 3) BGR, as `cut_face` returns them with the bundle's
    preprocessing; the recognizer resizes and filters them. One recognizer serves any number of streams. Calls from
    several threads are as safe as those of `Network`; a stream belongs to one thread at a time.

    Args:
        bundle: an open bundle, its folder, or the name of a shipped bundle.
        variant: a variant's name, or ``"auto"``: int8 where the bundle has it, else fp32 (on ``"cuda"`` always fp32).
            `info` holds the variant that runs.
        provider: the engine (`PROVIDERS`); another one is never used in its place. A tuple, such as
            ``("cuda", "cpu")``, allows the others to take over where the first cannot be opened or fails twice;
            estimates are DEGRADED then.
        threads: threads of one run.
        engines: the folder of built engines or of the engine's cache, as in `Network.open`.
        reading: the head: ``"crowd"``, what people see in the face, or ``"fer2013"``, the labels of FER2013. By default
            ``"crowd"`` where the bundle has it.
        priors: how frequent each expression is at the place of use: a mapping, ``"balanced"`` (all equally) or
            ``"half"`` (half-way there). By default the training's class frequencies stay in the probabilities.
        quality: the limits of a crop's quality: ``"measured"``, `QualityLimits` of your own, or None for none.
        public_key: PEM file of an ed25519 key; the bundle's signature must be the owner's.

    Raises:
        BundleError, InputError, SessionError, MissingPackageError, OutputError: as `Network.open`.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import Recognizer
        >>> face = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
        >>> with Recognizer("nano") as recognizer:
        ...     recognizer.recognize(face).quality_reasons
        ('not a face',)
        >>> with Recognizer("nano", quality=None) as recognizer:
        ...     estimate = recognizer.recognize(face)
        ...     estimate.state, estimate.label in (*recognizer.labels, "unknown")
        ('OK', True)

        Where drivers look neutral 70 % of the time, neutral gains and every other expression loses by one factor:

        >>> with Recognizer("nano", priors={"neutral": 0.7}, quality=None) as in_a_car:
        ...     in_a_car.recognize(face).probabilities["neutral"] > estimate.probabilities["neutral"]
        True
    """

    def __init__(
        self,
        bundle: BundleSource,
        *,
        variant: str = "auto",
        provider: str | Sequence[str] = "cpu",
        threads: int = 1,
        engines: PathLike | None = None,
        reading: Reading | None = None,
        priors: Priors = None,
        quality: QualityLimits | Literal["measured"] | None = "measured",
        public_key: PathLike | None = None,
    ) -> None:
        self._bundle: Bundle = open_bundle(bundle)
        if public_key is not None:
            check_type("public_key", public_key, (str, os.PathLike), "a PEM file's path or None")
            self._bundle.check_signature(Path(public_key))
        self._priors = priors
        opening: dict[str, Any] = {"threads": threads, "engines": engines, "reading": reading}

        def opened(variant: str, provider: str) -> Network:
            return Network.open(self._bundle, variant=variant, provider=provider, **opening)

        self._switch = NetworkSwitch(opened, variant=variant, providers=provider_order(provider))
        try:
            self._limits = chosen_limits(quality, beside_head=self.network.reading == "crowd")
            self._reader(self.network)
        except FerEdgeError:
            self.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """The expressions, in output order; `not judgeable` is not among them."""
        return self.manifest.labels

    @property
    def info(self) -> NetworkInfo:
        """What runs: variant, precision, provider and its version, threads, reading."""
        return self.network.info

    @property
    def network(self) -> Network:
        """The encoder and head in use."""
        return self._switch.network

    @property
    def fallback_because(self) -> str | None:
        """Why another provider than the first choice runs; None where that runs."""
        return self._switch.fallback_because

    def change_variant(self, variant: str) -> None:
        """Switch to another variant of the bundle; the windows of all streams start over at their next frame.

        A call in progress on another thread finishes with the old variant, which is closed after it.

        Raises:
            BundleError, InputError, SessionError, MissingPackageError, OutputError: as `Network.open`; the old variant
                stays in use.
        """
        self._switch.change_variant(variant)
        self._opened_with[1]["variant"] = variant

    def keep_warm(self) -> None:
        """Run the engine once on a fixed frame, for engines that are slow after a pause.

        Raises:
            SessionError: the engine failed.
        """
        self._switch.run(Network.warm_up)

    def recognize(self, face: Uint8) -> ExpressionEstimate:
        """Recognise the expression of one still.

        Raises:
            FrameError: another type or shape, or an empty crop.
            SessionError: the engine failed.
        """
        return self.recognize_stills([face])[0]

    def recognize_stills(self, faces: Sequence[Uint8]) -> tuple[ExpressionEstimate, ...]:
        """Recognise several stills in one batch; as `recognize`."""
        started = time.perf_counter_ns()
        quality, fit, prepared = self._prepare(faces)

        def compute(network: Network) -> tuple[HeadReader, Float32]:
            features = network.encode(prepared)
            return self._reader(network), network.probabilities(features[:, None], np.ones(len(features), np.int64))

        reader, rows = self._switch.run(compute) if fit else (self._reader(self.network), ())
        judged = dict(zip(fit, rows, strict=True))
        age_ms, degraded = _since_ms(started), self.fallback_because
        moments = [Moment(age_ms=age_ms, window_fill=1.0, degraded=degraded, quality=each) for each in quality]
        return tuple(
            reader.estimate(judged[index], moment) if index in judged else moment.rejected()
            for index, moment in enumerate(moments)
        )

    def recognize_clip(self, faces: Sequence[Uint8]) -> ExpressionEstimate:
        """Recognise the expression of a clip of one face.

        A clip longer than the model's window is read in windows that cover it evenly, and their probabilities are
        averaged. Frames that are not fit to be judged are left out.

        Args:
            faces: crops in order of time, at the manifest's frame rate; an array (T, H, W) is accepted.

        Raises:
            InputError: no frame.
            FrameError: another type or shape, or an empty crop.
            SessionError: the engine failed.
        """
        started = time.perf_counter_ns()
        quality, fit, prepared = self._prepare(faces)
        if not quality:
            raise InputError("faces: got an empty clip, expected at least one frame")
        if not fit:
            worst = min(quality, key=lambda each: each.score or 0.0)
            return Moment(age_ms=_since_ms(started), window_fill=0.0, quality=worst).rejected()

        def compute(network: Network) -> tuple[HeadReader, Float32]:
            features = network.encode(prepared)
            count, window = len(features), network.window
            steps = min(count, window)
            starts = np.linspace(0, count - steps, math.ceil(count / window)).round().astype(np.int64)
            windows = features[starts[:, None] + np.arange(steps)]
            rows = network.probabilities(windows, np.full(len(starts), steps, np.int64))
            return self._reader(network), rows.mean(axis=0)

        reader, row = self._switch.run(compute)
        window = self.manifest.sequence.window
        scores = [score for index in fit if (score := quality[index].score) is not None]
        moment = Moment(
            age_ms=_since_ms(started),
            window_fill=min(len(fit), window) / window,
            degraded=self.fallback_because or _unfilled(len(fit), window),
            quality=Quality(score=float(np.mean(scores))) if scores else UNMEASURED,
        )
        return reader.estimate(row, moment)

    def stream(
        self, *, clock: Callable[[], float] | None = None, options: StreamOptions | None = None
    ) -> ExpressionStream:
        """Start a stream for one face.

        Args:
            clock: the clock of the frames' timestamps, for example `time.monotonic`; ages then count from the capture
                of the frame. Without it they count from the call of `update`.
            options: when to empty the window, and when to mark an estimate DEGRADED.

        Raises:
            InputError: a clock that cannot be called, or options of another type.
        """
        return ExpressionStream(self, clock=clock, options=options)

    def update_streams(
        self,
        streams: Sequence[ExpressionStream],
        faces: Sequence[Uint8],
        *,
        timestamp_s: float,
        observer: Callable[[StreamOutputs], None] | None = None,
    ) -> tuple[ExpressionEstimate, ...]:
        """Update several streams with the faces of one frame: one encoder batch, one head batch.

        Args:
            streams: streams of this recognizer, each once.
            faces: one raw crop per stream.
            timestamp_s: capture time of the frame, in seconds.
            observer: called with what the network computed, unless the engine failed.

        Returns:
            An estimate for each stream; all FAILED where the engine failed.

        Raises:
            InputError: streams and faces that do not match, or a stream of another recognizer.
            FrameError: a face of another type or shape, an empty crop, or a time not later than the last one.
        """
        streams, faces = listed("streams", streams), listed("faces", faces)
        if len(streams) != len(faces) or len({id(stream) for stream in streams}) != len(streams):
            raise InputError(f"streams: got {len(streams)} for {len(faces)} faces, expected one per face, none twice")
        if any(getattr(stream, "_recognizer", None) is not self for stream in streams):
            raise InputError("streams: got a stream of another recognizer, expected this one's own")
        for stream in streams:
            timestamp_s = stream._window.check_time(timestamp_s)
        if not streams:
            return ()
        started = time.perf_counter_ns()
        quality, fit, prepared = self._prepare(faces)
        chosen = [streams[index] for index in fit]
        for index in set(range(len(streams))).difference(fit):
            streams[index]._window.skip(timestamp_s)

        def compute(network: Network) -> tuple[HeadReader, StreamOutputs]:
            features, regions = network.encode_with_attention(prepared)
            for stream, feature in zip(chosen, features, strict=True):
                stream._window.push(feature, timestamp_s=timestamp_s, encoder=network.variant.encoder.sha256)
            views = tuple(stream._window.view() for stream in chosen)
            lengths = np.array([view.length for view in views], np.int64)
            rows, weights = network.probabilities_with_attention(np.stack([view.features for view in views]), lengths)
            outputs = StreamOutputs(
                rows=tuple(fit), faces=prepared, region_attention=regions, views=views, frame_attention=weights,
                probabilities=rows,
            )  # fmt: skip
            return self._reader(network), outputs

        try:
            reader, outputs = self._switch.run(compute) if fit else (self._reader(self.network), None)
        except SessionError as error:
            reason = str(error)
            return tuple(
                failed_estimate(reason, timestamp_s=timestamp_s, age_ms=stream._age_ms(timestamp_s, started))
                for stream in streams
            )
        if outputs is not None and observer is not None:
            observer(outputs)
        judged = dict(zip(fit, zip(outputs.probabilities, outputs.views, strict=True), strict=True)) if outputs else {}
        estimates = []
        for index, stream in enumerate(streams):
            row, view = judged.get(index, (None, None))
            moment = stream._moment(view, timestamp_s, started, quality[index])
            estimates.append(moment.rejected() if row is None else stream._show(reader, row, moment))
        return tuple(estimates)

    def close(self) -> None:
        """Close the engine; a second call does nothing."""
        self._switch.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _reader(self, network: Network) -> HeadReader:
        return HeadReader.of(network, self._priors)

    def _prepare(self, faces: Iterable[Uint8]) -> tuple[list[Quality], list[int], Uint8]:
        """Judge every crop, and prepare those that are fit: the qualities, places of the fit ones, and these."""
        self.check_process()
        spec, crops = self.manifest.preprocess, listed("faces", faces)
        prepared = [prepare_face(crop, spec) for crop in crops]
        quality = judge_crops(crops, prepared, self._limits, spec)
        fit = [index for index, each in enumerate(quality) if not each.reasons]
        kept = [prepared[index] for index in fit]
        return quality, fit, np.stack(kept) if kept else np.empty((0, spec.size, spec.size), np.uint8)


class ExpressionStream(OneProcess):
    """One face over time; created by `Recognizer.stream`, used by one thread at a time.

    Each `update` costs one encoder pass and one pass of the head over the window's cached features.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import Recognizer
        >>> crops = np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)
        >>> with Recognizer("nano", quality=None) as recognizer:
        ...     stream = recognizer.stream()
        ...     for index, crop in enumerate(crops):
        ...         estimate = stream.update(crop, timestamp_s=index / 30)
        ...     estimate.state, 0 < estimate.window_fill < 1
        ('DEGRADED', True)
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        clock: Callable[[], float] | None = None,
        options: StreamOptions | None = None,
    ) -> None:
        options = StreamOptions() if options is None else options
        check_type("options", options, StreamOptions, "StreamOptions")
        if clock is not None and not callable(clock):
            raise InputError(f"clock: got {type(clock).__name__}, expected a function that returns seconds")
        self._recognizer = recognizer
        self._clock = clock
        self._options = options
        self._window = FeatureWindow(recognizer.manifest.sequence, max_gap_s=options.max_gap_s)
        self._label: str | None = None

    def update(self, face: Uint8, *, timestamp_s: float) -> ExpressionEstimate:
        """Recognise the expression over the window that ends at this frame.

        Args:
            face: uint8 (H, W) grey or (H, W, 3) BGR raw crop.
            timestamp_s: capture time of the frame, in seconds; later than the previous one.

        Returns:
            The estimate; FAILED where the engine failed.

        Raises:
            FrameError: another type or shape, an empty crop, or a time not later than the last one.
        """
        return self._recognizer.update_streams([self], [face], timestamp_s=timestamp_s)[0]

    def reset(self) -> None:
        """Empty the window, for example when another person sits down."""
        self._window.clear()
        self._label = None

    def _show(self, reader: HeadReader, row: Float32, moment: Moment) -> ExpressionEstimate:
        """Turn the head's probabilities into an estimate, which keeps the last label within the margin."""
        last = self._label if len(self._window) > 1 else None
        estimate = reader.estimate(row, moment, last=last, change_margin=self._options.change_margin)
        self._label = estimate.label
        return estimate

    def _moment(self, view: WindowView | None, timestamp_s: float, started_ns: int, quality: Quality) -> Moment:
        sequence = self._recognizer.manifest.sequence
        age_ms, degraded = self._age_ms(timestamp_s, started_ns), None
        if view is not None:
            degraded = _unfilled(view.length, sequence.window)
            if view.largest_gap_s * sequence.frame_rate > self._options.max_stretch:
                degraded = f"frames are missing: {view.largest_gap_s:.2f} s between two of the window"
        if age_ms > self._options.max_age_ms:
            degraded = f"the frame is {age_ms:.0f} ms old, more than {self._options.max_age_ms:.0f}"
        return Moment(
            age_ms=age_ms,
            window_fill=view.length / sequence.window if view else 0.0,
            timestamp_s=timestamp_s,
            degraded=self._recognizer.fallback_because or degraded,
            quality=quality,
        )

    def _age_ms(self, timestamp_s: float, started_ns: int) -> float:
        return _since_ms(started_ns) if self._clock is None else max(0.0, (self._clock() - timestamp_s) * 1e3)


def _since_ms(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e6


def _unfilled(length: int, window: int) -> str | None:
    return None if length >= window else f"{length} of the window's {window} frames so far"
