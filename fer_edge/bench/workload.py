"""What is timed of one variant, and on what input: a made-up face in a camera frame."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fer_edge.bench.latency import LatencySummary, Probe, Samples, summarise
from fer_edge.bench.report import Timing
from fer_edge.core.preprocess import PreprocessSpec, crop_face
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.faces import synthetic_stills

if TYPE_CHECKING:
    from fer_edge.runtime.inference import Network

__all__ = ["FACE_BOX_XYXY", "VariantProbes", "camera_frame", "streaming_step"]

FACE_BOX_XYXY: Final = (240.0, 160.0, 400.0, 320.0)
"""A 160x160 face in the middle of a 640x480 frame."""


@functools.cache
def camera_frame() -> Uint8:
    """A made-up face of 160x160 pixels at `FACE_BOX_XYXY` in an even grey frame; read-only uint8 (480, 640, 3) BGR."""
    left, top, right, bottom = (int(edge) for edge in FACE_BOX_XYXY)
    (face,), _ = synthetic_stills(1, seed=0, size=right - left)
    frame = np.full((480, 640, 3), 96, np.uint8)
    frame[top:bottom, left:right] = face[:, :, None]
    frame.flags.writeable = False
    return frame


def streaming_step(network: Network, face: Uint8, *, window: int) -> Callable[[], object]:
    """One step of live video: the encoder on one new face, uint8 (S, S), then the head on a full window."""
    frames = np.ascontiguousarray(face[None])
    features = np.repeat(network.encode(frames)[:, None], window, axis=1)
    length = np.full(1, window, np.int64)

    def step() -> object:
        network.encode(frames)
        return network.logits(features, length)

    return step


@dataclass(frozen=True, kw_only=True)
class VariantProbes:
    """The probes of one variant on one provider; `key` tells it from the others of the run."""

    key: str
    window: int
    threads: int
    timing: Timing

    def build(self, network: Network, spec: PreprocessSpec) -> tuple[Probe, ...]:
        """Probes for `measure_interleaved`, over an open network."""
        frame = camera_frame()
        face = crop_face(frame, FACE_BOX_XYXY, spec)[None]
        faces = np.repeat(face, self.timing.batch, axis=0)
        feature = network.encode(face)[:, None]
        features = np.repeat(feature, self.window, axis=1)
        batch_features = np.repeat(feature, self.timing.batch, axis=0)
        one, full = np.ones(1, np.int64), np.full(1, self.window, np.int64)
        ones = np.ones(self.timing.batch, np.int64)

        def whole_way() -> object:
            cropped = crop_face(frame, FACE_BOX_XYXY, spec)
            return network.probabilities(network.encode(cropped[None])[:, None], one)

        def batched() -> object:
            network.encode(faces)
            return network.logits(batch_features, ones)

        repeats = self.timing.per_round
        stages: dict[str, tuple[dict[str, Callable[[], object]], int]] = {
            "preprocess": ({"preprocess": lambda: crop_face(frame, FACE_BOX_XYXY, spec)}, repeats),
            "frame": ({"encoder": lambda: network.encode(face), "head": lambda: network.logits(feature, one)}, repeats),
            "streaming": (
                {"encoder": lambda: network.encode(face), "head_window": lambda: network.logits(features, full)},
                repeats,
            ),
            "end_to_end": ({"end_to_end": whole_way}, repeats),
            "batch": ({"batch": batched}, 1),
        }
        return tuple(
            Probe(name=f"{self.key}/{name}", stages=calls, per_round=count) for name, (calls, count) in stages.items()
        )

    def samples(self, times: dict[str, Samples], probe: str) -> Samples:
        """This variant's samples of one of its probes."""
        return times[f"{self.key}/{probe}"]

    def latencies(self, times: dict[str, Samples]) -> dict[str, LatencySummary]:
        """Summaries by the names of `VariantResult.latency_ms`; each at batch 1."""
        frame, streaming = self.samples(times, "frame"), self.samples(times, "streaming")
        taken: dict[str, tuple[Int64, int | None]] = {
            "preprocess": (self.samples(times, "preprocess").total(), None),
            "encoder": (frame.total("encoder"), None),
            "head": (frame.total("head"), 1),
            "head_window": (streaming.total("head_window"), self.window),
            "frame": (frame.total(), 1),
            "streaming_step": (streaming.total(), self.window),
            "end_to_end": (self.samples(times, "end_to_end").total(), 1),
        }
        return {name: summarise(values, batch=1, t=t, threads=self.threads) for name, (values, t) in taken.items()}

    def faces_per_second(self, times: dict[str, Samples]) -> float:
        """Median throughput of the batched probe."""
        return self.timing.batch * 1e9 / float(np.median(self.samples(times, "batch").total()))
