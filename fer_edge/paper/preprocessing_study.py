"""The preprocessing study: accuracy under noise and poor light with and without each part, and the latency of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.latency import LatencySummary, Probe, Ratio, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.core.bootstrap import BootstrapReport, paired_bootstrap
from fer_edge.core.errors import InputError, require
from fer_edge.core.json import expect
from fer_edge.core.preprocess import PreprocessSpec, normalise, prepare_face
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data.corruptions import LEVELS, corrupt
from fer_edge.paper.statistics import Spread, holm

__all__ = [
    "CONDITIONS",
    "MEASURED",
    "ConditionAccuracy",
    "Gain",
    "Predictor",
    "PreprocessingCost",
    "PreprocessingReport",
    "measure_cost",
    "measure_preprocessing",
]

MEASURED: Final[Mapping[str, str]] = {
    "complete": "median filter and normalisation",
    "no-median": "normalisation alone",
    "no-gcn": "median filter alone",
    "no-preprocessing": "neither",
}
"""The four systems, each trained with the preprocessing that it is measured with, and their titles."""

_GAINS: Final[Mapping[str, str]] = {
    "no-median": "median filter",
    "no-gcn": "normalisation",
    "no-preprocessing": "both",
}

CONDITIONS: Final[tuple[tuple[str | None, int], ...]] = (
    (None, 0),
    *(("salt_and_pepper", level) for level in LEVELS),
    *(("poor_light", level) for level in LEVELS),
)
"""Corruption and level of every condition; the first is clean."""

_CROP_PIXELS: Final = 160
_SEED: Final = 0  # of the corruptions


class Predictor(Protocol):
    """A trained system with its preprocessing."""

    def predict(self, faces: Uint8) -> Float32:
        """Predict faces, uint8 (N, S, S) grey, neither filtered nor normalised: probabilities float32 (N, C)."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConditionAccuracy:
    """Top-1 of one system under one condition; `corruption` is None and `level` 0 for clean faces."""

    system: str
    corruption: str | None
    level: int
    top1: Spread


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The gain from one part of the preprocessing under one condition.

    Attributes:
        part: ``"median filter"``, ``"normalisation"`` or ``"both"``.
        corruption, level: None and 0 for clean faces.
        report: difference of top-1, complete minus the system without the part.
        p_holm: corrected over all parts and conditions.
    """

    part: str
    corruption: str | None
    level: int
    report: BootstrapReport
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class PreprocessingCost:
    """Latency for one face, measured in one interleaved run.

    Attributes:
        encoder: description of the network.
        size: side of the face, pixels.
        latency_ms: of ``"prepare"`` (a 160x160 crop resized and filtered), ``"median"`` (the filter alone),
            ``"normalisation"`` (alone) and ``"encoder"`` (the network, its normalisation included).
        median_share: of the filter in prepare + encoder.
        normalisation_share: of the normalisation in prepare + encoder.
    """

    encoder: str
    size: int
    latency_ms: Mapping[str, LatencySummary]
    median_share: Ratio
    normalisation_share: Ratio


@dataclass(frozen=True, kw_only=True)
class PreprocessingReport:
    """Accuracy of every system under every condition, the gain of each part, and its latency.

    Attributes:
        seed: of the corruptions; every system sees the same corrupted faces.
        seeds: of the trained networks, by system.
        weights: SHA-256 of the weights by file name; empty where there is no file.
        gains: of the parts, by the seeds that both systems have.
        cost: None where it was not measured.
    """

    dataset: str
    split: str
    n: int
    seed: int
    seeds: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, str]
    conditions: tuple[ConditionAccuracy, ...]
    gains: tuple[Gain, ...]
    cost: PreprocessingCost | None


def measure_preprocessing(
    systems: Mapping[str, Mapping[int, Predictor]],
    faces: Uint8,
    labels: Int64,
    *,
    split: str,
    dataset: str = "fer2013",
    progress: Progress = lambda what, done, total: None,
) -> PreprocessingReport:
    """Measure the systems of `MEASURED` on clean faces, under salt-and-pepper noise and in poor light.

    Args:
        systems: by name, then by seed; ``"complete"`` is required.
        faces: uint8 (N, S, S) grey as in the data set; corruption precedes preprocessing.
        labels: int64 (N,).

    Returns:
        the report without hashes of weights and without cost.

    Raises:
        InputError: no complete system, an unknown system or one without a seed, or faces and labels do not fit.
    """
    expect("complete" in systems, "systems", tuple(systems), "the complete system among them")
    for name, networks in systems.items():
        expect(name in MEASURED, "systems", name, "one of " + ", ".join(MEASURED))
        expect(len(networks) > 0, f"systems[{name!r}]", "no seed", "at least one trained network")
    truth = np.asarray(labels)
    if truth.shape != (len(faces),) or len(faces) == 0:
        raise InputError(f"labels: got {truth.shape} for {len(faces)} faces, expected the same rows, at least one")
    ordered = {name: systems[name] for name in MEASURED if name in systems}
    total = len(CONDITIONS) * sum(map(len, ordered.values()))
    accuracies: list[ConditionAccuracy] = []
    gains: list[Gain] = []
    done = 0
    for corruption, level in CONDITIONS:
        shown = _corrupted(faces, corruption, level)
        right: dict[str, dict[int, NDArray[np.bool_]]] = {}
        for name, networks in ordered.items():
            right[name] = {}
            for number, network in networks.items():
                right[name][number] = np.asarray(network.predict(shown)).argmax(axis=1) == truth
                done += 1
                progress("preprocessing", done, total)
            top1 = Spread.of([float(rows.mean()) for rows in right[name].values()])
            accuracies.append(ConditionAccuracy(system=name, corruption=corruption, level=level, top1=top1))
        gains += _gains(right, corruption, level)
    corrected = holm([gain.report.p for gain in gains])
    return PreprocessingReport(
        dataset=dataset,
        split=split,
        n=len(faces),
        seed=_SEED,
        seeds={name: tuple(networks) for name, networks in ordered.items()},
        weights={},
        conditions=tuple(accuracies),
        gains=tuple(dataclasses.replace(gain, p_holm=p) for gain, p in zip(gains, corrected, strict=True)),
        cost=None,
    )


def measure_cost(
    face: Uint8,
    *,
    spec: PreprocessSpec,
    encode: Callable[[Uint8], object],
    encoder: str,
    normalisation: Callable[[Uint8], object] | None = None,
    rounds: int = 40,
) -> PreprocessingCost:
    """Time median filter and normalisation beside everything that a face passes through, on one thread.

    Args:
        face: uint8 (S, S) grey.
        spec: the complete system's preprocessing.
        encode: the network on one prepared face, uint8 (1, size, size), its own normalisation included.
        encoder: description of `encode`.
        normalisation: the same normalisation alone; `fer_edge.core.preprocess.normalise` by default.
        rounds: timing rounds of ten samples per stage.

    Raises:
        InputError: the system has no median filter.
    """
    expect(spec.median > 0, "spec.median", spec.median, "a median filter to time")
    cv2 = require("cv2", needed_by="timing the preprocessing", extra="cpu")
    crop = cv2.resize(np.asarray(face), (_CROP_PIXELS, _CROP_PIXELS), interpolation=cv2.INTER_LINEAR)
    unfiltered = prepare_face(crop, dataclasses.replace(spec, median=0))
    prepared = prepare_face(crop, spec)[None]
    alone = normalisation or (lambda frames: normalise(frames, spec))
    stages: dict[str, dict[str, Callable[[], object]]] = {
        "whole": {"prepare": lambda: prepare_face(crop, spec), "encoder": lambda: encode(prepared)},
        "median": {"median": lambda: cv2.medianBlur(unfiltered, spec.median)},
        "normalisation": {"normalisation": lambda: alone(prepared)},
    }
    probes = [Probe(name=name, stages=each, per_round=10) for name, each in stages.items()]
    samples = measure_interleaved(probes, rounds=rounds, warm_up=20)
    times = {name: each for probe in samples.values() for name, each in probe.stages.items()}
    whole = samples["whole"].total()
    return PreprocessingCost(
        encoder=encoder,
        size=spec.size,
        latency_ms={name: summarise(each, batch=1, t=None, threads=1) for name, each in times.items()},
        median_share=ratio_over_rounds(times["median"], whole),
        normalisation_share=ratio_over_rounds(times["normalisation"], whole),
    )


def _corrupted(faces: Uint8, corruption: str | None, level: int) -> Uint8:
    if corruption is None:
        return faces
    # The same draws at every level, so that a higher level corrupts what the lower one did, and more.
    generator = np.random.default_rng([_SEED, [name for name, _ in CONDITIONS].index(corruption)])
    return corrupt(np.asarray(faces), corruption, level=level, generator=generator)


def _gains(right: Mapping[str, Mapping[int, Any]], corruption: str | None, level: int) -> list[Gain]:
    """Return the gain of each part, not corrected yet."""
    found = []
    for name, part in _GAINS.items():
        seeds = [seed for seed in right["complete"] if seed in right.get(name, {})]
        if seeds:
            report = paired_bootstrap(
                np.stack([right[name][seed] for seed in seeds]), np.stack([right["complete"][seed] for seed in seeds])
            )
            found.append(Gain(part=part, corruption=corruption, level=level, report=report, p_holm=report.p))
    return found
