"""What is timed of one variant, and on what input: a drawn face in a camera frame."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fer_edge.bench.latency import LatencySummary, Probe, Samples, summarise
from fer_edge.bench.report import Timing
from fer_edge.core.bundle import Bundle
from fer_edge.core.manifest import Variant
from fer_edge.core.preprocess import PreprocessSpec, cut_face, prepare_face
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.faces.stills import synthetic_stills
from fer_edge.runtime.inference import Network

__all__ = ["FACE_BOX_XYXY", "VariantRun", "camera_face", "camera_frame", "streaming_step"]

FACE_BOX_XYXY: Final = (240.0, 160.0, 400.0, 320.0)
"""A 160x160 face in the middle of a 640x480 frame."""


@functools.cache
def camera_frame() -> Uint8:
    """Draw a face of 160x160 pixels at `FACE_BOX_XYXY` in an even grey frame; read-only uint8 (480, 640, 3) BGR."""
    left, top, right, bottom = (int(edge) for edge in FACE_BOX_XYXY)
    (face,), _ = synthetic_stills(1, seed=0, size=right - left)
    frame = np.full((480, 640, 3), 96, np.uint8)
    frame[top:bottom, left:right] = face[:, :, None]
    frame.flags.writeable = False
    return frame


def camera_face(spec: PreprocessSpec) -> Uint8:
    """Cut and prepare the face of `camera_frame`: uint8 (S, S)."""
    return prepare_face(cut_face(camera_frame(), FACE_BOX_XYXY, spec), spec)


def streaming_step(network: Network, face: Uint8, *, window: int) -> Callable[[], object]:
    """Make one step of live video: the encoder on one new face, uint8 (S, S), then the head on a full window."""
    frames = np.ascontiguousarray(face[None])
    features = np.repeat(network.encode(frames)[:, None], window, axis=1)
    length = np.full(1, window, np.int64)

    def step() -> object:
        network.encode(frames)
        return network.logits(features, length)

    return step


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantRun:
    """One variant on one provider, open: what is timed of it, and what its times are called.

    Attributes:
        key: distinguishes it from the others of the run.
        window: T of the streaming step.
    """

    key: str
    bundle: Bundle
    variant: Variant
    network: Network
    window: int
    threads: int
    timing: Timing

    def face(self) -> Uint8:
        """Cut and prepare the face of the camera frame: uint8 (S, S)."""
        return camera_face(self.bundle.manifest.preprocess)

    def probes(self) -> tuple[Probe, ...]:
        """Make the probes for `measure_interleaved`."""
        network, batch = self.network, self.timing.batch
        face = self.face()[None]
        faces = np.repeat(face, batch, axis=0)
        feature = network.encode(face)[:, None]
        features = np.repeat(feature, self.window, axis=1)
        batch_features = np.repeat(feature, batch, axis=0)
        one, full, ones = np.ones(1, np.int64), np.full(1, self.window, np.int64), np.ones(batch, np.int64)

        def end_to_end() -> object:
            return network.probabilities(network.encode(self.face()[None])[:, None], one)

        def batched() -> object:
            network.encode(faces)
            return network.logits(batch_features, ones)

        stages: Mapping[str, Mapping[str, Callable[[], object]]] = {
            "preprocess": {"preprocess": self.face},
            "frame": {"encoder": lambda: network.encode(face), "head": lambda: network.logits(feature, one)},
            "streaming": {
                "encoder": lambda: network.encode(face),
                "head_window": lambda: network.logits(features, full),
            },
            "end_to_end": {"end_to_end": end_to_end},
            "batch": {"batch": batched},
        }
        return tuple(
            Probe(name=f"{self.key}/{name}", stages=calls, per_round=1 if name == "batch" else self.timing.per_round)
            for name, calls in stages.items()
        )

    def samples(self, times: Mapping[str, Samples], probe: str) -> Samples:
        """Return this variant's samples of one of its probes."""
        return times[f"{self.key}/{probe}"]

    def summarise(self, samples: Int64, *, t: int | None) -> LatencySummary:
        """Summarise samples of this variant at batch 1."""
        return summarise(samples, batch=1, t=t, threads=self.threads)

    def latencies(self, times: Mapping[str, Samples]) -> dict[str, LatencySummary]:
        """Summarise by the names of `VariantResult.latency_ms`."""
        frame, streaming = self.samples(times, "frame"), self.samples(times, "streaming")
        return {
            "preprocess": self.summarise(self.samples(times, "preprocess").total(), t=None),
            "encoder": self.summarise(frame.total("encoder"), t=None),
            "head": self.summarise(frame.total("head"), t=1),
            "head_window": self.summarise(streaming.total("head_window"), t=self.window),
            "frame": self.summarise(frame.total(), t=1),
            "streaming_step": self.summarise(streaming.total(), t=self.window),
            "end_to_end": self.summarise(self.samples(times, "end_to_end").total(), t=1),
        }

    def faces_per_second(self, times: Mapping[str, Samples]) -> float:
        """Return the median throughput of the batched probe."""
        return self.timing.batch * 1e9 / float(np.median(self.samples(times, "batch").total()))
