"""What median filter and contrast normalisation are worth: accuracy under noise and poor light, and what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.latency import LatencySummary, Probe, Ratio, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.core.comparison import BootstrapReport, Spread, paired_bootstrap
from fer_edge.core.errors import InputError, require
from fer_edge.core.json import expect
from fer_edge.core.metrics import holm
from fer_edge.core.preprocess import PreprocessSpec, normalise, prepare_face
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data.corruptions import LEVELS, corrupt

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
"""The four systems, each trained with the preprocessing that it is measured with."""

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


class Predictor(Protocol):
    """A trained system. It does its own preprocessing: the faces come as a camera gave them."""

    def predict(self, faces: Uint8) -> Float32:
        """uint8 (N, S, S) grey, neither filtered nor normalised -> probabilities float32 (N, C)."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConditionAccuracy:
    """Top-1 of one system under one condition; `corruption` is None and `level` 0 where the faces are clean."""

    system: str
    corruption: str | None
    level: int
    top1: Spread


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What one part of the preprocessing brings under one condition.

    Attributes:
        part: ``"median filter"``, ``"normalisation"`` or ``"both"``.
        corruption: None where the faces are clean.
        level: 0 where they are clean.
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
    """Time for one face, all of it measured in one interleaved run.

    Attributes:
        encoder: what was timed as the network, in words.
        size: side of the face, pixels.
        latency_ms: ``"prepare"`` (a 160x160 crop resized and filtered), ``"median"`` (the filter alone),
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
    """Accuracy of every system under every condition, what each part brings, and what it costs.

    Attributes:
        dataset: the data set's name.
        split: whose faces.
        n: faces.
        seed: of the corruptions; every system sees the same spoilt faces.
        seeds: trained networks, by system.
        weights: SHA-256 of the weights, by file name; empty where they came from no file.
        conditions: accuracies.
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
    seed: int = 0,
    weights: Mapping[str, str] | None = None,
    cost: PreprocessingCost | None = None,
    progress: Progress | None = None,
) -> PreprocessingReport:
    """Measure the systems of `MEASURED` on clean faces, under salt-and-pepper noise and in poor light.

    Args:
        systems: by name, then by the seed it was trained with; ``"complete"`` must be there, others may lack.
        faces: uint8 (N, S, S) grey as the data set holds them; the corruption comes before any preprocessing.
        labels: int64 (N,).
        split: the split's name.
        dataset: the data set's name.
        seed: of the corruptions.
        weights: SHA-256 of the networks' weights by file name, for the record.
        cost: what `measure_cost` gave, to be kept with it.
        progress: called with (networks evaluated, networks) over all conditions.

    Raises:
        InputError: there is no complete system, a system is not one of `MEASURED` or has no seed, or faces and labels
            do not fit.
    """
    expect("complete" in systems, "systems", tuple(systems), "the complete system among them")
    for name, networks in systems.items():
        expect(name in MEASURED, "systems", name, "one of " + ", ".join(MEASURED))
        expect(len(networks) > 0, f"systems[{name!r}]", "no seed", "at least one trained network")
    truth = np.asarray(labels)
    if truth.shape != (len(faces),) or len(faces) == 0:
        raise InputError(f"faces and labels must have the same rows, at least one; got {len(faces)} and {truth.shape}")
    ordered = {name: systems[name] for name in MEASURED if name in systems}
    total = len(CONDITIONS) * sum(map(len, ordered.values()))
    accuracies: list[ConditionAccuracy] = []
    gains: list[Gain] = []
    done = 0
    for corruption, level in CONDITIONS:
        shown = _spoilt(faces, corruption, level, seed=seed)
        right: dict[str, dict[int, NDArray[np.bool_]]] = {}
        for name, networks in ordered.items():
            right[name] = {}
            for number, network in networks.items():
                right[name][number] = np.asarray(network.predict(shown)).argmax(axis=1) == truth
                done += 1
                if progress is not None:
                    progress("evaluating networks", done, total)
            top1 = Spread.of([float(rows.mean()) for rows in right[name].values()])
            accuracies.append(ConditionAccuracy(system=name, corruption=corruption, level=level, top1=top1))
        gains += _gains(right, corruption, level)
    corrected = holm([gain.report.p for gain in gains])
    return PreprocessingReport(
        dataset=dataset,
        split=split,
        n=len(faces),
        seed=seed,
        seeds={name: tuple(networks) for name, networks in ordered.items()},
        weights=dict(weights or {}),
        conditions=tuple(accuracies),
        gains=tuple(dataclasses.replace(gain, p_holm=p) for gain, p in zip(gains, corrected, strict=True)),
        cost=cost,
    )


def measure_cost(
    faces: Uint8,
    *,
    spec: PreprocessSpec,
    encode: Callable[[Uint8], object],
    encoder: str,
    normalisation: Callable[[Uint8], object] | None = None,
    rounds: int = 40,
    per_round: int = 10,
    threads: int = 1,
) -> PreprocessingCost:
    """Time median filter and normalisation beside all that a face passes through.

    Args:
        faces: uint8 (N, S, S) grey, N >= 1; the first one is used.
        spec: the complete system's preprocessing.
        encode: the network on one prepared face, uint8 (1, size, size), its own normalisation included.
        encoder: what `encode` is, in words.
        normalisation: the same normalisation alone; `fer_edge.core.preprocess.normalise` by default.
        rounds: visits of every stage.
        per_round: samples at each visit.
        threads: that `encode` uses, for the record.

    Raises:
        InputError: no face, or the system has no median filter to time.
    """
    expect(len(faces) > 0, "faces", len(faces), "at least one")
    expect(spec.median > 0, "spec.median", spec.median, "a median filter to time")
    cv2 = require("cv2", needed_by="timing the preprocessing", extra="cpu")
    crop = cv2.resize(np.asarray(faces[0]), (_CROP_PIXELS, _CROP_PIXELS), interpolation=cv2.INTER_LINEAR)
    unfiltered = prepare_face(crop, dataclasses.replace(spec, median=0))
    prepared = prepare_face(crop, spec)[None]
    alone = normalisation or (lambda frames: normalise(frames, spec))
    probes = [
        Probe(
            name="whole",
            stages={"prepare": lambda: prepare_face(crop, spec), "encoder": lambda: encode(prepared)},
            per_round=per_round,
        ),
        Probe(name="median", stages={"median": lambda: cv2.medianBlur(unfiltered, spec.median)}, per_round=per_round),
        Probe(name="normalisation", stages={"normalisation": lambda: alone(prepared)}, per_round=per_round),
    ]
    samples = measure_interleaved(probes, rounds=rounds, warm_up=2 * per_round)
    stages = {name: times for probe in samples.values() for name, times in probe.stages.items()}
    whole = samples["whole"].total()
    return PreprocessingCost(
        encoder=encoder,
        size=spec.size,
        latency_ms={name: summarise(times, batch=1, t=None, threads=threads) for name, times in stages.items()},
        median_share=ratio_over_rounds(stages["median"], whole),
        normalisation_share=ratio_over_rounds(stages["normalisation"], whole),
    )


def _spoilt(faces: Uint8, corruption: str | None, level: int, *, seed: int) -> Uint8:
    if corruption is None:
        return faces
    # The same draws at every level: a stronger one spoils what the weaker one spoilt, and more.
    generator = np.random.default_rng([seed, [name for name, _ in CONDITIONS].index(corruption)])
    return corrupt(np.asarray(faces), corruption, level=level, generator=generator)


def _gains(right: Mapping[str, Mapping[int, Any]], corruption: str | None, level: int) -> list[Gain]:
    """By part; the p of each is not corrected yet."""
    found = []
    for name, part in _GAINS.items():
        seeds = [seed for seed in right["complete"] if seed in right.get(name, {})]
        if seeds:
            report = paired_bootstrap(
                np.stack([right[name][seed] for seed in seeds]), np.stack([right["complete"][seed] for seed in seeds])
            )
            found.append(Gain(part=part, corruption=corruption, level=level, report=report, p_holm=report.p))
    return found
