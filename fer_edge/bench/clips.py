"""Four readings of clips made from stills: their accuracy, and how soon each reports a changed expression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.accuracy import EvaluationRows, labelled_rows
from fer_edge.bench.clip_report import ClipReport, ConditionResult, DelayResult, MethodDelay, PooledGain
from fer_edge.bench.private_log import PRIVATE_SPLIT, log_bundle, writable_log
from fer_edge.bench.temporal_methods import (
    AVERAGED,
    METHODS,
    SEQUENCE,
    ClipFeatures,
    Condition,
    changing_conditions,
    constant_conditions,
    encode_condition,
    last_window,
    smooth,
    streamed,
)
from fer_edge.core.bootstrap import paired_bootstrap
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.json import encode, expect
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import timestamp
from fer_edge.core.types import Int64, Progress, Uint8
from fer_edge.data import Dataset
from fer_edge.runtime.inference import Network

__all__ = ["SMOOTHINGS", "STEPS", "ClipOptions", "measure_delay", "run_clips"]

STEPS: Final = (1, 4, 8, 16)
"""Frames T that are compared, as far as the bundle's window reaches."""

SMOOTHINGS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Constants of the exponential smoothing that the best one is chosen from."""

_FAMILIES: Final = {"trained": {"trained"}, "unseen": {"unseen"}, "all": {"clean", "trained", "unseen"}}


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """What is compared, and how.

    Attributes:
        split: ``"choose"`` for development, ``"report"`` for the final figures; evaluations on PrivateTest are logged.
        variant: of the bundle, or ``"auto"``.
        clips: stills used, evenly spread over the split.
        smoothing: constant of the exponential smoothing, 0 to 1; None chooses it on these clips, which ``"report"``
            refuses.
        private_log: the log of PrivateTest evaluations; None finds the repository's.
    """

    split: Literal["choose", "report"] = "choose"
    variant: str = "auto"
    provider: str = "cpu"
    threads: int = 1
    clips: int = 1000
    smoothing: float | None = None
    private_log: Path | None = None
    command: str = ""

    def __post_init__(self) -> None:
        expect(self.smoothing is None or 0 <= self.smoothing < 1, "smoothing", self.smoothing, "0 to below 1")
        expect(self.clips >= 20, "clips", self.clips, "at least 20")
        if self.split == "report" and self.smoothing is None:
            raise InputError(
                "smoothing: got none for the split 'report', expected the constant chosen on the other split; run "
                "--split choose first and give the constant it names by --smoothing"
            )


def run_clips(
    bundle: Bundle, dataset: Dataset, *, options: ClipOptions | None = None, progress: Progress | None = None
) -> ClipReport:
    """Compare the four methods on clips made of a split's stills; rows that are also in training are left out.

    Args:
        dataset: the stills.

    Raises:
        InputError: no such split, labels of other expressions than the bundle's, or a window below 2.
        BundleError, SessionError, MissingPackageError: as `Network.open`.
    """
    options = options or ClipOptions()
    dataset.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name!r}")
    rows = labelled_rows(dataset, options.split)
    assert rows.read is not None
    log = writable_log(options.private_log) if rows.split == PRIVATE_SPLIT else None
    images, labels = _stills(rows, options.clips)
    with Network.open(bundle, variant=options.variant, provider=options.provider, threads=options.threads) as network:
        info, window = network.info, network.window
        expect(window >= 2, "window", window, "at least 2 frames: this bundle has no sequence head")
        changing = _encoded(network, images, labels, changing_conditions(window), progress)
        constant = _encoded(network, images, labels, constant_conditions(window), progress)
        smoothing = options.smoothing
        if smoothing is None:
            smoothing = _best_smoothing([clips for _, clips in (*constant, *changing)], labels, window)
        conditions, pooled = _constant(network, constant, labels, smoothing)
        delays = tuple(
            measure_delay(network, clips, labels, name=condition.name, smoothing=smoothing)
            for condition, clips in changing
        )
    report = ClipReport(
        created=timestamp(),
        command=options.command,
        device=encode(machine_report().to_json()),
        data=rows.read,
        clips=len(images),
        bundle=info.bundle,
        sha256=info.sha256,
        variant=info.variant,
        provider=info.provider,
        provider_version=info.provider_version,
        window=window,
        smoothing=smoothing,
        smoothing_chosen=options.smoothing is None,
        conditions=conditions,
        pooled=pooled,
        delays=delays,
    )
    if log is not None:
        result = {"smoothing": smoothing, "pooled": encode(list(pooled)), "delays": encode(list(delays))}
        facts = {"data_sha256": rows.read.split_sha256, "result": result, "clips": len(images)}
        log_bundle(log, bundle, info.variant, provider=info.provider, **facts)
    return report


def _stills(rows: EvaluationRows, clips: int) -> tuple[Uint8, Int64]:
    assert rows.labels is not None
    kept = np.flatnonzero(~rows.leaked) if rows.leaked is not None else np.arange(len(rows.labels))
    if clips < len(kept):
        kept = kept[np.linspace(0, len(kept) - 1, clips).round().astype(int)]
    return np.asarray(rows.images)[kept], np.asarray(rows.labels)[kept]


def _encoded(
    network: Network, images: Uint8, labels: Int64, conditions: Iterator[Condition], progress: Progress | None
) -> list[tuple[Condition, ClipFeatures]]:
    return [(each, encode_condition(network, images, labels, each, progress=progress)) for each in conditions]


def _best_smoothing(every: list[ClipFeatures], labels: Int64, window: int) -> float:
    """Choose the constant with most right reports: last frames of constant clips and frames of changing ones alike."""

    def right(constant: float) -> float:
        shares: dict[bool, list[float]] = {False: [], True: []}
        for clips in every:
            found = smooth(clips.singles, constant).argmax(axis=-1) == labels[clips.stills]
            changes = bool((clips.changed < found.shape[1]).any())
            shares[changes].append(float((found[:, window - 1 :] if changes else found[:, -1]).mean()))
        return float(np.mean([np.mean(each) for each in shares.values()]))

    return max(SMOOTHINGS, key=right)


def _constant(
    network: Network, constant: list[tuple[Condition, ClipFeatures]], labels: Int64, smoothing: float
) -> tuple[tuple[ConditionResult, ...], tuple[PooledGain, ...]]:
    """Measure clips of one expression, each condition by itself and pooled over families of conditions."""
    steps = [each for each in STEPS if each < network.window] + [network.window]
    results, last = [], []
    for condition, clips in constant:
        found = {each: last_window(network, clips, each, smoothing) for each in steps}
        correct = {method: {each: found[each][method] == labels for each in steps} for method in METHODS}
        full = {method: by_steps[network.window] for method, by_steps in correct.items()}
        last.append((condition.family, full))
        results.append(
            ConditionResult(
                name=condition.name,
                level=condition.level,
                family=condition.family,
                top1={
                    method: {str(each): float(value.mean()) for each, value in by_steps.items()}
                    for method, by_steps in correct.items()
                },
                gain=paired_bootstrap(full[AVERAGED], full[SEQUENCE]),
            )
        )
    return tuple(results), tuple(_pooled(last))


def _pooled(last: list[tuple[str, dict[str, NDArray[np.bool_]]]]) -> Iterator[PooledGain]:
    """Pool the conditions of each family; a still's clips are one row."""
    for name, families in _FAMILIES.items():
        used = [right for family, right in last if family in families]
        if used:
            means = {method: np.mean([right[method] for right in used], axis=0) for method in METHODS}
            yield PooledGain(
                name=name,
                conditions=len(used),
                top1={method: float(mean.mean()) for method, mean in means.items()},
                gain=paired_bootstrap(means[AVERAGED], means[SEQUENCE]),
            )


def measure_delay(network: Network, clips: ClipFeatures, labels: Int64, *, name: str, smoothing: float) -> DelayResult:
    """Measure how soon each method reports the new expression of clips whose expression changes once.

    Args:
        labels: int64 (stills,).
        smoothing: constant of the exponential smoothing.
    """
    window = network.window
    found = streamed(network, clips, window, smoothing)
    truth = labels[clips.stills]
    after = np.arange(truth.shape[1]) >= clips.changed[:, None]
    old, new = truth[:, 0], truth[:, -1]
    before = (np.arange(len(old)), clips.changed - 1)
    reported = {method: (seen == new[:, None]) & after for method, seen in found.items()}
    compared = np.logical_and.reduce(
        [reported[method].any(axis=1) & (found[method][before] == old) for method in METHODS]
    )
    right = {method: (seen == truth)[:, window - 1 :].mean(axis=1) for method, seen in found.items()}
    delays = {method: (seen.argmax(axis=1) - clips.changed)[compared] for method, seen in reported.items()}
    some = bool(compared.any())
    return DelayResult(
        name=name,
        clips=len(old),
        compared=int(compared.sum()),
        methods={
            method: MethodDelay(
                median=float(np.median(delays[method])) if some else None,
                p90=float(np.quantile(delays[method], 0.9)) if some else None,
                mean=float(delays[method].mean()) if some else None,
                never=float(1 - reported[method].any(axis=1).mean()),
                right=float(right[method].mean()),
            )
            for method in METHODS
        },
        right_gain=paired_bootstrap(right[AVERAGED], right[SEQUENCE]),
    )
