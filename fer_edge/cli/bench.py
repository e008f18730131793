"""`fer-edge bench`: latency, size and accuracy of every variant against the FP32 original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, console, note_written, progress, show
from fer_edge.cli.inputs import read_dataset

if TYPE_CHECKING:
    from fer_edge.bench import BenchReport
    from fer_edge.core.tables import Table

__all__ = ["command"]


@opt.make_command
def command(
    bundles: Annotated[tuple[str, ...], opt.argument(metavar="[BUNDLE]...", nargs=-1)],
    data: Annotated[str | None, opt.dataset("Measure accuracy on this data, for example fer2013:PATH.")],
    split: opt.Split,
    original: Annotated[str | None, opt.option("Compare with the FP32 variant of this bundle.", metavar="BUNDLE")],
    variants: Annotated[tuple[str, ...], opt.option("Only this variant; repeatable.", name="--variant")],
    providers: Annotated[tuple[str, ...], opt.option("Engine; repeatable.", name="--provider", default=("cpu",))],
    threads: opt.Threads,
    window: Annotated[
        int | None, opt.option("Frames of the streaming step.  [default: the bundle's]", opt.integer(1, 1024))
    ],
    rounds: Annotated[int | None, opt.option("Timing rounds per variant.", opt.integer(1, 1_000_000))],
    batch: Annotated[int | None, opt.option("Faces per call for the throughput.", opt.integer(1, 4096))],
    after_idle: Annotated[
        float | None, opt.option("Also time steps after this idle time.", opt.real(0.001, 3600), metavar="SECONDS")
    ],
    quick: Annotated[bool, opt.flag("Quick check (seconds). Do not publish these numbers.")],
    other_file: Annotated[
        Path | None, opt.option("Also show the ratios in this JSON.", name="--against", metavar="FILE")
    ],
    html_file: Annotated[Path | None, opt.output("Write a page with plots here.", name="--html")],
    private_log: opt.PrivateLog,
    record: Annotated[bool, opt.flag("Write the accuracies into the bundles' manifests.")],
    json_out: Path | None,
) -> None:
    """Measure every variant of each BUNDLE (a folder or a shipped name; default: all shipped ones).

    All variants are timed interleaved in one process, beside a reference CNN; x is the time over that of the reference.
    Without --data the accuracy is the one recorded in the manifest, and marked as such.
    """
    if record and data is None:
        raise click.UsageError("--record writes measured accuracies, so it needs --data")
    from fer_edge.bench import BenchOptions, BenchReport, Timing, run_bench
    from fer_edge.bench.accuracy import record_accuracies
    from fer_edge.bench.benchmark import open_bundles
    from fer_edge.bench.tables import expect_common
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.errors import require

    if html_file is not None:
        require("matplotlib", needed_by="fer-edge bench --html", extra="report")
    opened = open_bundles(bundles)
    other = None if other_file is None else BenchReport.read(other_file)
    if other is not None:
        expect_common(other, [bundle.manifest.name for bundle in opened], providers)
    timing = Timing.choose(quick=quick, rounds=rounds, batch=batch, idle_s=after_idle)
    dataset = None if data is None else read_dataset(data)
    wanted = BenchOptions(
        split=split,
        original=None if original is None else Bundle.open(original),
        variants=variants or None,
        providers=providers,
        threads=threads,
        window=window,
        timing=timing,
        private_log=private_log,
        command=command_line(),
    )
    with progress("timing") as bar:
        if "litert" in providers:
            from fer_edge.export.litert_cache import write_missing

            for bundle in opened if wanted.original is None else (*opened, wanted.original):
                names = [variant.name for variant in bundle.manifest.variants]
                write_missing(bundle, [name for name in names if not variants or name in variants], progress=bar)
        report = run_bench(opened, data=dataset, options=wanted, progress=bar)
    show(report.to_json(), json_out, _parts(report, other))
    if html_file is not None:
        from fer_edge.bench.html_report import write_page

        write_page(report, html_file)
        note_written(html_file)
    if record:
        for bundle in opened:
            record_accuracies(bundle, report)
            console.print(f"recorded in {bundle.path}")


def _parts(report: BenchReport, other: BenchReport | None) -> Iterator[Table | str]:
    from fer_edge.bench.tables import cost_table, ratio_table, verdict_table

    yield verdict_table(report)
    yield ""
    yield cost_table(report)
    if other is not None:
        yield ""
        yield ratio_table(report, other)
