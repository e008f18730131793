"""One benchmark run: every variant opened, timed interleaved, evaluated, started cold, compared, reported."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.bench.accuracy import (
    EvaluationRows,
    labelled_rows,
    measured_accuracy,
    recorded_accuracy,
    synthetic_rows,
)
from fer_edge.bench.against_fp32 import Measured, against_original, against_own_fp32
from fer_edge.bench.cold_start import ColdStart
from fer_edge.bench.latency import LatencySummary, Probe, Samples, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.bench.private_log import PRIVATE_SPLIT, append_private, writable_log
from fer_edge.bench.reference_cnn import reference_graph, reference_input
from fer_edge.bench.report import BenchReport, ReferenceResult, Throughput, Timing, VariantResult
from fer_edge.bench.scenarios import after_idle, cold_starts
from fer_edge.bench.workload import FACE_BOX_XYXY, VariantProbes, camera_frame, streaming_step
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report, repository_commit
from fer_edge.core.manifest import Variant, timestamp
from fer_edge.core.preprocess import crop_face
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.data.dataset import Role
from fer_edge.runtime.evaluate import evaluate
from fer_edge.runtime.inference import Network
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import Session

__all__ = ["run_bench"]


_REFERENCE: Final = "reference"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entry:
    """One variant on one provider, open and ready to be measured."""

    bundle: Bundle
    variant: Variant
    network: Network
    probes: VariantProbes

    def is_of(self, bundle: Bundle, variant: Variant, provider: str) -> bool:
        return (self.bundle.sha256, self.variant.name, self.network.info.provider) == (
            bundle.sha256,
            variant.name,
            provider,
        )


def run_bench(
    bundles: Sequence[Bundle],
    *,
    data: Dataset | None = None,
    split: Role = "choose",
    original: Bundle | None = None,
    variants: Sequence[str] | None = None,
    providers: Sequence[str] = ("cpu",),
    threads: int = 1,
    window: int | None = None,
    timing: Timing | None = None,
    private_log: Path | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure every variant of every bundle on every provider, beside the reference CNN.

    Args:
        bundles: what to measure.
        data: measures accuracy on one of its splits; without it the manifests' recorded accuracies are stated.
        split: ``"choose"`` (PublicTest) or ``"report"`` (PrivateTest; each evaluation goes into the log).
        original: its FP32 variant is measured too, and every variant is compared with it.
        variants: names to measure, of each bundle those that it has; all where None.
        providers: runtime providers.
        threads: of every session, the reference's included.
        window: T of the streaming step; None takes each bundle's own.
        timing: how much is measured.
        private_log: the log of PrivateTest evaluations; None finds the repository's.
        command: recorded in the report.
        progress: told what is going on.

    Raises:
        InputError: nothing to measure, an original without FP32, data labelled with other expressions than a bundle's,
            or no place for the PrivateTest log.
        BundleError: a damaged bundle.
        SessionError: a provider that is not to be had, or that failed.
        OutputError: the PrivateTest log cannot be written.
    """
    timing = timing or Timing()
    say = progress or (lambda text, done, total: None)
    # Looked at first: what this run itself adds is not the machine's load at start.
    device = encode(machine_report().to_json())
    chosen = _choose(bundles, original, variants)
    rows = synthetic_rows() if data is None else labelled_rows(data, split)
    if data is not None:
        for bundle, _ in chosen:
            data.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name}")
    log = writable_log(private_log) if rows.split == PRIVATE_SPLIT else None
    with ExitStack() as stack:
        reference = stack.enter_context(open_session(reference_graph(), provider="cpu", threads=threads))
        entries = [
            _open(stack, number, bundle, variant, provider=provider, threads=threads, window=window, timing=timing)
            for number, (provider, (bundle, variant)) in enumerate(itertools.product(providers, chosen))
        ]
        times = _time(entries, reference, timing, say)
        measured = []
        for entry in entries:
            latencies = entry.probes.latencies(times) | _after_idle(entry, timing, say)
            own = _evaluate(entry, rows, split, latencies, say)
            measured.append(own)
            if log is not None:
                _log_private(log, entry, own, rows)
        yardstick = _reference_result(reference, times, threads)
    # The sessions are closed now: fresh processes shall not share the machine with them.
    results = []
    for done, (entry, own) in enumerate(zip(entries, measured, strict=True)):
        say("cold starts", done, len(entries))
        started = _start_cold(entry, timing)
        results.append(_result(entry, own, times, started, _peers(entry, entries, measured, original)))
    return BenchReport(
        created=timestamp(),
        command=command,
        device=device,
        timing=timing,
        reference=yardstick,
        original=None if original is None else f"{original.manifest.name}/{_fp32(original).name}",
        data=rows.read,
        logits_on=rows.description,
        variants=tuple(results),
    )


def _choose(
    bundles: Sequence[Bundle], original: Bundle | None, names: Sequence[str] | None
) -> list[tuple[Bundle, Variant]]:
    """Every bundle's wanted variants, once; the original's FP32 last where it is not among them."""
    chosen: dict[tuple[str, str], tuple[Bundle, Variant]] = {}
    for bundle in bundles:
        for variant in bundle.manifest.variants:
            if names is None or variant.name in names:
                chosen.setdefault((bundle.sha256, variant.name), (bundle, variant))
    for name in names or ():
        if all(variant.name != name for _, variant in chosen.values()):
            held = {variant.name: None for bundle in bundles for variant in bundle.manifest.variants}
            raise InputError(f"no bundle has a variant {name!r}; there are {', '.join(held)}")
    if not chosen:
        raise InputError("nothing to measure: no bundle was given")
    if original is not None:
        variant = _fp32(original)
        chosen.setdefault((original.sha256, variant.name), (original, variant))
    return list(chosen.values())


def _fp32(bundle: Bundle) -> Variant:
    for variant in bundle.manifest.variants:
        if variant.precision == "fp32":
            return variant
    names = ", ".join(variant.name for variant in bundle.manifest.variants)
    raise InputError(f"{bundle.path} has no FP32 variant to compare with; it has {names}")


def _open(
    stack: ExitStack,
    number: int,
    bundle: Bundle,
    variant: Variant,
    *,
    provider: str,
    threads: int,
    window: int | None,
    timing: Timing,
) -> _Entry:
    network = Network.open(bundle, variant=variant.name, provider=provider, threads=threads)
    stack.enter_context(network)
    probes = VariantProbes(
        key=f"{number} {bundle.manifest.name}/{variant.name}",
        window=window or bundle.manifest.sequence.window,
        threads=threads,
        timing=timing,
    )
    return _Entry(bundle=bundle, variant=variant, network=network, probes=probes)


def _time(entries: Sequence[_Entry], reference: Session, timing: Timing, say: Progress) -> dict[str, Samples]:
    """All probes of all variants and the reference's, interleaved."""
    feeds = {"faces": reference_input()}
    yardstick = Probe(name=_REFERENCE, stages={_REFERENCE: lambda: reference.run(feeds)}, per_round=timing.per_round)
    probes = [yardstick]
    for entry in entries:
        probes += entry.probes.build(entry.network, entry.bundle.manifest.preprocess)
    return measure_interleaved(
        probes,
        rounds=timing.rounds,
        warm_up=timing.warm_up,
        progress=lambda done, total: say("timing, interleaved", done, total),
    )


def _after_idle(entry: _Entry, timing: Timing, say: Progress) -> dict[str, LatencySummary]:
    if timing.idle_s is None:
        return {}
    say(f"idling before {entry.probes.key}", 0, 1)
    spec = entry.bundle.manifest.preprocess
    face = crop_face(camera_frame(), FACE_BOX_XYXY, spec)
    step = streaming_step(entry.network, face, window=entry.probes.window)
    times = after_idle(step, idle_s=timing.idle_s, repeats=timing.idle_repeats)
    return {"after_idle": summarise(times, batch=1, t=entry.probes.window, threads=entry.probes.threads)}


def _evaluate(
    entry: _Entry, rows: EvaluationRows, split: Role, latencies: dict[str, LatencySummary], say: Progress
) -> Measured:
    logits = evaluate(
        entry.network,
        rows.images,
        entry.bundle.manifest.preprocess,
        progress=lambda done, total: say(f"evaluating {entry.bundle.manifest.name}/{entry.variant.name}", done, total),
    )
    temperature = entry.variant.temperature
    measured = measured_accuracy(logits, rows, temperature=temperature)
    return Measured(
        latency_ms=latencies,
        graph_bytes=sum(file.size_bytes for file in entry.variant.graphs),
        temperature=temperature,
        logits=logits,
        labels=rows.labels,
        accuracy=measured or recorded_accuracy(entry.variant, split),
    )


def _log_private(log: Path, entry: _Entry, own: Measured, rows: EvaluationRows) -> None:
    assert rows.read is not None
    assert own.accuracy is not None
    append_private(
        log,
        {
            "date": timestamp(),
            "commit": repository_commit(log.parent),
            "bundle": entry.bundle.manifest.name,
            "sha256": entry.bundle.sha256,
            "variant": entry.variant.name,
            "graphs": [file.sha256 for file in entry.variant.graphs],
            "provider": entry.network.info.provider,
            "data_sha256": rows.read.split_sha256,
            "result": own.accuracy.report.to_json(),
        },
    )


def _reference_result(reference: Session, times: dict[str, Samples], threads: int) -> ReferenceResult:
    return ReferenceResult(
        sha256=sha256_bytes(reference_graph()),
        provider=reference.provider,
        provider_version=reference.provider_version,
        latency_ms=summarise(times[_REFERENCE].total(), batch=1, t=None, threads=threads),
    )


def _start_cold(entry: _Entry, timing: Timing) -> list[ColdStart]:
    return cold_starts(
        entry.bundle.path,
        variant=entry.variant.name,
        provider=entry.network.info.provider,
        threads=entry.probes.threads,
        repeats=timing.cold_starts,
    )


def _peers(
    entry: _Entry, entries: Sequence[_Entry], measured: Sequence[Measured], original: Bundle | None
) -> tuple[Measured | None, Measured | None]:
    """What a variant is compared with, on its own provider: its bundle's FP32 and the original's."""

    def find(bundle: Bundle) -> Measured | None:
        fp32 = next((variant for variant in bundle.manifest.variants if variant.precision == "fp32"), None)
        for other, values in zip(entries, measured, strict=True):
            if fp32 is not None and other.is_of(bundle, fp32, entry.network.info.provider):
                return values
        return None

    return find(entry.bundle), None if original is None else find(original)


def _result(
    entry: _Entry,
    own: Measured,
    times: dict[str, Samples],
    started: Sequence[ColdStart],
    peers: tuple[Measured | None, Measured | None],
) -> VariantResult:
    fp32, original = peers
    encoder, head = entry.variant.graphs
    frame, streaming = entry.probes.samples(times, "frame"), entry.probes.samples(times, "streaming")
    x = ratio_over_rounds(frame.total(), times[_REFERENCE].total())
    latencies = dict(own.latency_ms)
    if started:
        durations = np.array([start.duration_ns for start in started], np.int64)
        latencies["cold_start"] = summarise(durations, batch=1, t=1, threads=entry.probes.threads)
    return VariantResult(
        bundle=entry.bundle.manifest.name,
        sha256=entry.bundle.sha256,
        name=entry.variant.name,
        precision=entry.variant.precision,
        provider=entry.network.info.provider,
        provider_version=entry.network.info.provider_version,
        threads=entry.probes.threads,
        batch=1,
        window=entry.probes.window,
        graph_bytes=own.graph_bytes,
        parameters=encoder.parameters + head.parameters,
        macs=None if encoder.macs is None or head.macs is None else encoder.macs + head.macs,
        x=x.median,
        x_quartiles=(x.q1, x.q3),
        streaming_ratio=ratio_over_rounds(streaming.total(), streaming.total("encoder")).median,
        latency_ms=latencies,
        throughput_fps=Throughput(batch=entry.probes.timing.batch, fps=entry.probes.faces_per_second(times)),
        rss_peak_bytes=max((start.rss_peak_bytes for start in started if start.rss_peak_bytes), default=None),
        accuracy=own.accuracy,
        against_own_fp32=None if fp32 is None else against_own_fp32(own, fp32),
        against_original=None if original is None else against_original(own, original),
    )
