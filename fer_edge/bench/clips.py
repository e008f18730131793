"""What the sequence buys: four readings of clips made from stills, and how soon each notices a change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.accuracy import labelled_rows
from fer_edge.bench.private_log import PRIVATE_SPLIT, append_private, writable_log
from fer_edge.bench.report import DataRead
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
from fer_edge.core.bundle import Bundle
from fer_edge.core.comparison import BootstrapReport, paired_bootstrap
from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, write_json
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.machine import machine_report, repository_commit
from fer_edge.core.manifest import timestamp
from fer_edge.core.types import Int64, Progress, Uint8
from fer_edge.data import Dataset
from fer_edge.runtime.inference import Network

__all__ = ["STEPS", "ConditionResult", "DelayResult", "MethodDelay", "PooledGain", "SequenceReport", "run_sequences"]

STEPS: Final = (1, 4, 8, 16)
"""Frames T that are compared, as far as the bundle's window reaches."""

SMOOTHINGS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Constants of the exponential smoothing that the best one is chosen from."""

Labels: TypeAlias = Int64


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """Accuracy on clips of one expression.

    Attributes:
        name: ``"clean"`` or the corruption.
        level: 1 to 3; None for clean.
        family: ``"clean"``, ``"trained"`` or ``"unseen"``: was the head trained on such clips?
        top1: by method, by T (a string, as JSON wants it), as fractions.
        gain: the sequence head minus averaging, both at the full window; rows are clips.
    """

    name: str
    level: int | None
    family: str
    top1: Mapping[str, Mapping[str, float]]
    gain: BootstrapReport


@dataclass(frozen=True, kw_only=True)
class PooledGain:
    """The sequence head minus averaging at the full window, over several conditions; rows are stills."""

    name: str
    conditions: int
    top1: Mapping[str, float]
    gain: BootstrapReport


@dataclass(frozen=True, kw_only=True)
class MethodDelay:
    """How soon one method reports a changed expression, in frames after the first that shows it.

    Attributes:
        median: over the clips compared; None where there are none.
        p90: the same.
        mean: the same.
        never: share of all clips in which the new expression is not reported to the clip's end.
        right: share of all frames, from the full window on, whose expression is reported.
    """

    median: float | None
    p90: float | None
    mean: float | None
    never: float
    right: float


@dataclass(frozen=True, kw_only=True)
class DelayResult:
    """Clips whose expression changes once.

    Delays are compared on the clips in which every method reports the old expression before the change and the new one
    some time after it: on others a delay would mean nothing, or something else for each method.

    Attributes:
        name: ``"clean"`` or ``"mixed"``.
        clips: how many.
        compared: how many of them the delays are taken over.
        methods: by method.
        right_gain: the sequence head minus averaging in `MethodDelay.right`; rows are clips.
    """

    name: str
    clips: int
    compared: int
    methods: Mapping[str, MethodDelay]
    right_gain: BootstrapReport


@dataclass(frozen=True, kw_only=True)
class SequenceReport:
    """Everything one run of the comparison says.

    Attributes:
        smoothing: constant of the exponential smoothing.
        smoothing_chosen: whether it was chosen in this run, on these clips; given, else.
    """

    schema: int = 1
    created: str
    command: str
    device: Mapping[str, Any]
    data: DataRead
    clips: int
    bundle: str
    sha256: str
    variant: str
    provider: str
    provider_version: str
    window: int
    smoothing: float
    smoothing_chosen: bool
    conditions: tuple[ConditionResult, ...]
    pooled: tuple[PooledGain, ...]
    delays: tuple[DelayResult, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SequenceReport:
        """Read a report back.

        Raises:
            InputError: the file is missing or is no such report.
        """
        return decode(cls, read_json(Path(path)))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, atomically.

        Raises:
            OutputError: it cannot be written.
        """
        write_json(Path(path), encode(self))


def run_sequences(
    bundle: Bundle,
    dataset: Dataset,
    *,
    split: Literal["choose", "report"] = "choose",
    variant: str = "auto",
    provider: str = "cpu",
    threads: int = 1,
    clips: int | None = 1000,
    smoothing: float | None = None,
    private_log: Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> SequenceReport:
    """Compare the four methods on clips made of a split's stills, rows that also stand in training left out.

    Args:
        bundle: what is judged.
        dataset: where the stills come from.
        split: ``"choose"`` to develop on, ``"report"`` for the last word; each look at PrivateTest is logged.
        variant: of the bundle, or ``"auto"``.
        provider: the engine.
        threads: of its sessions.
        clips: stills used, evenly spread over the split; None for all of them.
        smoothing: constant of the exponential smoothing, 0 to 1; chosen on these clips without it, which ``"report"``
            refuses.
        private_log: the log of looks at PrivateTest; the repository's without it.
        command: what the user typed, for the report.
        progress: called with (what, done, total).

    Raises:
        InputError: no such split, labels that mean something else than the bundle's, a window below 2, nothing to
            choose the smoothing on, or a number out of range.
        BundleError, SessionError, MissingPackageError: as `Network.open`.
    """
    expect(smoothing is None or 0 <= smoothing < 1, "smoothing", smoothing, "0 to below 1")
    expect(clips is None or clips >= 20, "clips", clips, "at least 20")
    if split == "report" and smoothing is None:
        raise InputError(
            "the smoothing constant is chosen on the choosing split, never on the one to report: run --split choose "
            "first and give the constant it names by --smoothing"
        )
    dataset.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name!r}")
    rows = labelled_rows(dataset, split)
    assert rows.read is not None
    assert rows.labels is not None
    log = None
    if rows.split == PRIVATE_SPLIT:
        log = writable_log(private_log)
    kept = np.flatnonzero(~rows.leaked) if rows.leaked is not None else np.arange(len(rows.labels))
    if clips is not None and clips < len(kept):
        kept = kept[np.linspace(0, len(kept) - 1, clips).round().astype(int)]
    images, labels = np.asarray(rows.images)[kept], np.asarray(rows.labels)[kept]
    say = progress or (lambda text, done, total: None)
    with Network.open(bundle, variant=variant, provider=provider, threads=threads) as network:
        expect(network.window >= 2, "window", network.window, "at least 2 frames: this bundle reads single ones")
        judge = _Judge(network=network, images=images, labels=labels, say=say)
        report = SequenceReport(
            created=timestamp(),
            command=command,
            device=encode(machine_report().to_json()),
            data=rows.read,
            clips=len(images),
            bundle=network.info.bundle,
            sha256=network.info.sha256,
            variant=network.info.variant,
            provider=network.info.provider,
            provider_version=network.info.provider_version,
            window=network.window,
            smoothing_chosen=smoothing is None,
            **judge.everything(smoothing),
        )
    if log is not None:
        append_private(log, _log_entry(report, bundle, log))
    return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Judge:
    network: Network
    images: Uint8
    labels: Labels
    say: Progress

    def everything(self, smoothing: float | None) -> dict[str, Any]:
        """All that a report says of the clips."""
        window = self.network.window
        changing = [(each, self._encoded(each)) for each in changing_conditions(window)]
        constant = [(each, self._encoded(each)) for each in constant_conditions(window)]
        if smoothing is None:
            smoothing = self._best_smoothing([clips for _, clips in (*constant, *changing)])
        steps = [each for each in STEPS if each < window] + [window]
        results, right = [], []
        for condition, clips in constant:
            found = {each: last_window(self.network, clips, each, smoothing) for each in steps}
            correct = {method: {str(each): found[each][method] == self.labels for each in steps} for method in METHODS}
            last = {method: by_steps[str(window)] for method, by_steps in correct.items()}
            right.append((condition.family, last))
            results.append(
                ConditionResult(
                    name=condition.name,
                    level=condition.level,
                    family=condition.family,
                    top1={
                        method: {key: float(value.mean()) for key, value in by_steps.items()}
                        for method, by_steps in correct.items()
                    },
                    gain=paired_bootstrap(last[AVERAGED], last[SEQUENCE]),
                )
            )
        return {
            "smoothing": smoothing,
            "conditions": tuple(results),
            "pooled": tuple(_pooled(right)),
            "delays": tuple(self._delay(condition, clips, smoothing) for condition, clips in changing),
        }

    def _encoded(self, condition: Condition) -> ClipFeatures:
        title = condition.name if condition.level is None else f"{condition.name} {condition.level}"
        what = f"clips: {title}{', changing' if condition.plan.changing else ''}"
        return encode_condition(
            self.network, self.images, self.labels, condition, progress=lambda done, total: self.say(what, done, total)
        )

    def _best_smoothing(self, every: list[ClipFeatures]) -> float:
        """The constant with most right reports: constant clips' last frames and changing clips' frames weigh alike."""

        def right(constant: float) -> float:
            shares: dict[bool, list[float]] = {False: [], True: []}
            for clips in every:
                found = smooth(clips.singles, constant).argmax(axis=-1) == self.labels[clips.stills]
                changes = bool((clips.changed < found.shape[1]).any())
                shares[changes].append(float((found[:, self.network.window - 1 :] if changes else found[:, -1]).mean()))
            return float(np.mean([np.mean(each) for each in shares.values()]))

        return max(SMOOTHINGS, key=right)

    def _delay(self, condition: Condition, clips: ClipFeatures, smoothing: float) -> DelayResult:
        window = self.network.window
        found = streamed(self.network, clips, window, smoothing)
        truth = self.labels[clips.stills]
        steps = np.arange(truth.shape[1])
        after = steps >= clips.changed[:, None]
        old, new = truth[:, 0], truth[:, -1]
        before = (np.arange(len(old)), clips.changed - 1)
        reported = {method: (labels == new[:, None]) & after for method, labels in found.items()}
        compared = np.logical_and.reduce(
            [reported[method].any(axis=1) & (found[method][before] == old) for method in METHODS]
        )
        right = {method: (labels == truth)[:, window - 1 :].mean(axis=1) for method, labels in found.items()}
        delays = {method: (seen.argmax(axis=1) - clips.changed)[compared] for method, seen in reported.items()}
        some = bool(compared.any())
        return DelayResult(
            name=condition.name,
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


def _pooled(right: list[tuple[str, dict[str, NDArray[np.bool_]]]]) -> list[PooledGain]:
    """Over the corruptions trained on, those never trained on, and everything; a still's clips are one row."""
    pooled = []
    for name, families in (("trained", {"trained"}), ("unseen", {"unseen"}), ("all", {"clean", "trained", "unseen"})):
        used = [last for family, last in right if family in families]
        if not used:
            continue
        means = {method: np.mean([last[method] for last in used], axis=0) for method in METHODS}
        pooled.append(
            PooledGain(
                name=name,
                conditions=len(used),
                top1={method: float(mean.mean()) for method, mean in means.items()},
                gain=paired_bootstrap(means[AVERAGED], means[SEQUENCE]),
            )
        )
    return pooled


def _log_entry(report: SequenceReport, bundle: Bundle, log: Path) -> dict[str, Any]:
    return {
        "date": report.created,
        "commit": repository_commit(log.parent),
        "bundle": report.bundle,
        "sha256": report.sha256,
        "variant": report.variant,
        "graphs": [file.sha256 for file in bundle.variant(report.variant).graphs],
        "provider": report.provider,
        "data_sha256": report.data.split_sha256,
        "clips": report.clips,
        "result": {
            "smoothing": report.smoothing,
            "pooled": [encode(each) for each in report.pooled],
            "delays": [encode(each) for each in report.delays],
        },
    }
