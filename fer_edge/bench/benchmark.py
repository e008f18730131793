"""One benchmark run: every variant opened, timed interleaved, evaluated, started cold, compared, reported."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.bench.accuracy import (
    EvaluationRows,
    labelled_rows,
    measured_accuracy,
    measured_crowd,
    recorded_accuracy,
    synthetic_rows,
)
from fer_edge.bench.against_fp32 import Measured, against_original, against_own_fp32
from fer_edge.bench.latency import Probe, Samples, measure_interleaved, ratio_over_rounds, summarise
from fer_edge.bench.private_log import PRIVATE_SPLIT, log_bundle, writable_log
from fer_edge.bench.reference_cnn import reference_graph, reference_input
from fer_edge.bench.report import BenchReport, ReferenceResult, Throughput, Timing, VariantResult
from fer_edge.bench.scenarios import ColdStart, after_idle, cold_start
from fer_edge.bench.workload import VariantRun, streaming_step
from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import InputError
from fer_edge.core.evaluate import evaluate
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.machine import machine_report
from fer_edge.core.manifest import Variant, timestamp
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.data.dataset import Role
from fer_edge.runtime.inference import Network
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import Session

__all__ = ["BenchOptions", "open_bundles", "run_bench"]

_REFERENCE: Final = "reference"


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchOptions:
    """What is measured, and how.

    Attributes:
        split: ``"choose"`` (PublicTest) or ``"report"`` (PrivateTest; each evaluation goes into the log).
        original: its FP32 variant is measured too, and every variant is compared with it.
        variants: names to measure, of each bundle those that it has; all where None.
        providers: runtime providers.
        threads: of every session, the reference's included.
        window: T of the streaming step; None takes each bundle's own.
        timing: rounds and samples.
        private_log: the log of PrivateTest evaluations; None finds the repository's.
    """

    split: Role = "choose"
    original: Bundle | None = None
    variants: Sequence[str] | None = None
    providers: Sequence[str] = ("cpu",)
    threads: int = 1
    window: int | None = None
    timing: Timing = field(default_factory=Timing)
    private_log: Path | None = None
    command: str | None = None


def open_bundles(names: Sequence[str]) -> list[Bundle]:
    """Open the named bundles, folders or shipped names; all shipped ones where none is named.

    Raises:
        InputError: none is named and none is shipped.
        BundleError: one of them is missing or damaged.
    """
    chosen = tuple(names) or zoo_names()
    if not chosen:
        raise InputError("bundles: got none and none is shipped, expected at least one; name a bundle's folder")
    return [Bundle.open(name) for name in chosen]


def run_bench(
    bundles: Sequence[Bundle],
    *,
    data: Dataset | None = None,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure every variant of every bundle on every provider, beside the reference CNN.

    Args:
        data: measures accuracy on one of its splits; without it the manifests' recorded accuracies are reported.

    Raises:
        InputError: nothing to measure, an original without FP32, data labelled with other expressions than a bundle's,
            or no folder for the PrivateTest log.
        BundleError: a damaged bundle.
        SessionError: a provider that is not available, or that failed.
        OutputError: the PrivateTest log cannot be written.

    Example:
        >>> from fer_edge.bench import BenchOptions, Timing, run_bench
        >>> from fer_edge.core.bundle import Bundle, zoo_names
        >>> timing = Timing(rounds=1, per_round=1, warm_up=0, batch=1, cold_starts=0)
        >>> report = run_bench([Bundle.open("nano")], options=BenchOptions(variants=["int8"], timing=timing))
        >>> report.variants[0].name
        'int8'
    """
    options = options or BenchOptions()
    say = progress or (lambda what, done, total: None)
    # Read first: the load of this run itself is not the machine's load at the start.
    device = encode(machine_report().to_json())
    chosen = _choose(bundles, options)
    rows = synthetic_rows() if data is None else labelled_rows(data, options.split)
    if data is not None:
        for bundle, _ in chosen:
            data.expect_expressions(bundle.manifest.labels, of=f"the bundle {bundle.manifest.name}")
    log = writable_log(options.private_log) if rows.split == PRIVATE_SPLIT else None
    with ExitStack() as stack:
        reference = stack.enter_context(open_session(reference_graph(), provider="cpu", threads=options.threads))
        runs = [
            _open(stack, number, bundle, variant, provider, options)
            for number, (provider, (bundle, variant)) in enumerate(itertools.product(options.providers, chosen))
        ]
        times = _time(runs, reference, options.timing, say)
        measured = [_measure(run, rows, options, times, say, log) for run in runs]
        reference_result = _reference_result(reference, times, options.threads)
    # The sessions are closed now: fresh processes do not share the machine with them.
    results = []
    for done, (run, own) in enumerate(zip(runs, measured, strict=True)):
        say("cold starts", done, len(runs))
        started = [
            cold_start(
                run.bundle.path, variant=run.variant.name, provider=run.network.info.provider, threads=run.threads
            )
            for _ in range(options.timing.cold_starts)
        ]
        others = [_find_fp32(run, bundle, runs, measured) for bundle in (run.bundle, options.original)]
        results.append(_result(run, own, times, started, *others))
    return BenchReport(
        created=timestamp(),
        command=options.command,
        device=device,
        timing=options.timing,
        reference=reference_result,
        original=None
        if options.original is None
        else f"{options.original.manifest.name}/{_fp32(options.original).name}",
        data=rows.read,
        logits_on=rows.description,
        variants=tuple(results),
    )


def _choose(bundles: Sequence[Bundle], options: BenchOptions) -> list[tuple[Bundle, Variant]]:
    """Select every bundle's wanted variants, once; the original's FP32 last where it is not among them."""
    names = options.variants
    chosen: dict[tuple[str, str], tuple[Bundle, Variant]] = {}
    for bundle in bundles:
        for variant in bundle.manifest.variants:
            if names is None or variant.name in names:
                chosen.setdefault((bundle.sha256, variant.name), (bundle, variant))
    for name in names or ():
        if all(variant.name != name for _, variant in chosen.values()):
            known = {variant.name: None for bundle in bundles for variant in bundle.manifest.variants}
            raise InputError(f"variant: got {name!r}, expected one of {', '.join(known)}")
    if not chosen:
        raise InputError("nothing to measure: got no bundle, expected at least one")
    if options.original is not None:
        variant = _fp32(options.original)
        chosen.setdefault((options.original.sha256, variant.name), (options.original, variant))
    return list(chosen.values())


def _fp32(bundle: Bundle) -> Variant:
    for variant in bundle.manifest.variants:
        if variant.precision == "fp32":
            return variant
    names = ", ".join(variant.name for variant in bundle.manifest.variants)
    raise InputError(f"{bundle.path}: got the variants {names}, expected one in FP32 to compare with")


def _open(
    stack: ExitStack, number: int, bundle: Bundle, variant: Variant, provider: str, options: BenchOptions
) -> VariantRun:
    network = Network.open(bundle, variant=variant.name, provider=provider, threads=options.threads)
    return VariantRun(
        key=f"{number} {bundle.manifest.name}/{variant.name}",
        bundle=bundle,
        variant=variant,
        network=stack.enter_context(network),
        window=options.window or bundle.manifest.sequence.window,
        threads=options.threads,
        timing=options.timing,
    )


def _time(runs: Sequence[VariantRun], reference: Session, timing: Timing, say: Progress) -> dict[str, Samples]:
    feeds = {"faces": reference_input()}
    probes = [Probe(name=_REFERENCE, stages={_REFERENCE: lambda: reference.run(feeds)}, per_round=timing.per_round)]
    for run in runs:
        probes += run.probes()
    return measure_interleaved(probes, rounds=timing.rounds, warm_up=timing.warm_up, progress=say)


def _measure(
    run: VariantRun,
    rows: EvaluationRows,
    options: BenchOptions,
    times: dict[str, Samples],
    say: Progress,
    log: Path | None,
) -> Measured:
    """Summarise the times of a run, step after idling where wanted, and evaluate; log an evaluation on PrivateTest."""
    latencies, timing = run.latencies(times), options.timing
    if timing.idle_s is not None:
        say(f"idling before {run.key}", 0, 1)
        step = streaming_step(run.network, run.face(), window=run.window)
        idled = after_idle(step, idle_s=timing.idle_s, repeats=timing.idle_repeats)
        latencies["after_idle"] = run.summarise(idled, t=run.window)
    what = f"evaluating {run.bundle.manifest.name}/{run.variant.name}"
    logits = evaluate(
        run.network,
        rows.images,
        run.bundle.manifest.preprocess,
        progress=lambda done, total: say(what, done, total),
    ).by_window[1]
    temperature = run.variant.temperature
    measured = measured_accuracy(logits, rows, temperature=temperature)
    if measured is not None and rows.votes is not None and run.variant.crowd is not None:
        measured = replace(measured, crowd=_measure_crowd(run, rows, say))
    if log is not None and measured is not None and rows.read is not None:
        log_bundle(
            log,
            run.bundle,
            run.variant.name,
            provider=run.network.info.provider,
            data_sha256=rows.read.split_sha256,
            result={key: value for key, value in measured.to_json().items() if key != "recorded"},
        )
    return Measured(
        latency_ms=latencies,
        graph_bytes=sum(file.size_bytes for file in run.variant.graphs),
        temperature=temperature,
        logits=logits,
        labels=rows.labels,
        accuracy=measured or recorded_accuracy(run.variant, options.split),
    )


def _measure_crowd(run: VariantRun, rows: EvaluationRows, say: Progress) -> CrowdAccuracy | None:
    """Evaluate the head `crowd` on the run's provider; the encoder runs again."""
    provider, what = run.network.info.provider, f"evaluating {run.bundle.manifest.name}/{run.variant.name}, crowd"
    with Network.open(
        run.bundle, variant=run.variant.name, provider=provider, threads=run.threads, reading="crowd"
    ) as network:
        return measured_crowd(network, rows, progress=lambda done, total: say(what, done, total))


def _reference_result(reference: Session, times: dict[str, Samples], threads: int) -> ReferenceResult:
    return ReferenceResult(
        sha256=sha256_bytes(reference_graph()),
        provider=reference.provider,
        provider_version=reference.provider_version,
        latency_ms=summarise(times[_REFERENCE].total(), batch=1, t=None, threads=threads),
    )


def _find_fp32(
    run: VariantRun, bundle: Bundle | None, runs: Sequence[VariantRun], measured: Sequence[Measured]
) -> Measured | None:
    """Find a bundle's FP32 variant as measured on the provider of `run`; None where it was not measured."""
    if bundle is None:
        return None
    for other, values in zip(runs, measured, strict=True):
        same = (other.bundle.sha256, other.network.info.provider) == (bundle.sha256, run.network.info.provider)
        if same and other.variant.precision == "fp32":
            return values
    return None


def _result(
    run: VariantRun,
    own: Measured,
    times: dict[str, Samples],
    started: Sequence[ColdStart],
    fp32: Measured | None,
    original: Measured | None,
) -> VariantResult:
    encoder, head = run.variant.graphs
    frame, streaming = run.samples(times, "frame"), run.samples(times, "streaming")
    x = ratio_over_rounds(frame.total(), times[_REFERENCE].total())
    latencies = dict(own.latency_ms)
    if started:
        latencies["cold_start"] = run.summarise(np.array([start.duration_ns for start in started], np.int64), t=1)
    return VariantResult(
        bundle=run.bundle.manifest.name,
        sha256=run.bundle.sha256,
        name=run.variant.name,
        precision=run.variant.precision,
        provider=run.network.info.provider,
        provider_version=run.network.info.provider_version,
        threads=run.threads,
        batch=1,
        window=run.window,
        graph_bytes=own.graph_bytes,
        parameters=encoder.parameters + head.parameters,
        macs=None if encoder.macs is None or head.macs is None else encoder.macs + head.macs,
        x=x.median,
        x_quartiles=(x.q1, x.q3),
        streaming_ratio=ratio_over_rounds(streaming.total(), streaming.total("encoder")).median,
        latency_ms=latencies,
        throughput_fps=Throughput(batch=run.timing.batch, fps=run.faces_per_second(times)),
        rss_peak_bytes=max((start.rss_peak_bytes for start in started if start.rss_peak_bytes), default=None),
        accuracy=own.accuracy,
        against_own_fp32=None if fp32 is None else against_own_fp32(own, fp32),
        against_original=None if original is None else against_original(own, original),
    )
