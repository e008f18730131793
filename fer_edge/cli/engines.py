"""`fer-edge engines`: what each engine's settings cost on this machine, and what its INT8 changes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import console, print_table, progress

if TYPE_CHECKING:
    from fer_edge.bench.engine_settings import EngineReport


@click.command(name="engines")
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--variant", "variants", multiple=True, help="A variant; may be repeated, the settings are tried on the first."
)
@click.option(
    "--data", metavar="SPEC", help="Also compare the engines' labels with FP32's, on this data set's choosing split."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of every session.")
@click.option("--rounds", type=click.IntRange(min=1), default=200, show_default=True, help="Visits of each setting.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
def command(
    bundle: str, variants: tuple[str, ...], data: str | None, threads: int, rounds: int, json_file: Path | None
) -> None:
    """Time ONNX Runtime and OpenVINO on BUNDLE under every setting, interleaved, and show where their time goes.

    For choosing an engine and its settings on a new machine; `bench` measures what the variants cost with the settings
    that the runtime takes.
    """
    from fer_edge.bench.engine_settings import measure_engines
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_json
    from fer_edge.data import load_dataset

    opened = Bundle.open(bundle)
    with progress("measuring") as bar:

        def report(what: str, done: int, total: int) -> None:
            bar(what, done, total)

        found = measure_engines(
            opened,
            variants=variants or ("int8",),
            data=None if data is None else load_dataset(data, progress=bar),
            threads=threads,
            rounds=rounds,
            command=shlex.join(["fer-edge", *sys.argv[1:]]),
            progress=report,
        )
    if json_file is not None:
        write_json(json_file, found.to_json())
        console.print(f"written: {json_file}")
    _show(found)


def _show(report: EngineReport) -> None:
    print_table(
        ("engine", "variant", "setting", "encoder", "head", "head, window", "over default", "over ONNX Runtime"),
        [
            (
                row.engine,
                row.variant,
                row.setting,
                *(f"{row.median_ms[stage]:.3f}" for stage in ("encoder", "head", "head_window")),
                f"{row.over_default.median:.2f}",
                f"{row.over_onnxruntime.median:.2f}",
            )
            for row in report.settings
        ],
        title=f"{report.bundle}: one face, {report.threads} thread(s), medians in ms",
        right=("encoder", "head", "head, window", "over default", "over ONNX Runtime"),
    )
    print_table(
        ("engine", "variant", "operator", "ms", "share"),
        [(row.engine, row.variant, row.operator, f"{row.ms:.3f}", f"{row.share:.0%}") for row in report.operators],
        title="where the encoder's time goes",
        right=("ms", "share"),
    )
    print_table(
        ("engine", "variant", "encoder", "a large matrix product", "of that"),
        [
            (row.engine, row.variant, f"{row.encoder_gmacs_per_s:.0f}", f"{row.matrix_gmacs_per_s:.0f}",
             f"{row.encoder_gmacs_per_s / row.matrix_gmacs_per_s:.0%}")
            for row in report.rates
        ],
        title="8-bit multiply-accumulates a second, in 1e9",
        right=("encoder", "a large matrix product", "of that"),
    )  # fmt: skip
    if report.agreement:
        print_table(
            ("engine", "variant", "shapes", "top-1", "labels changed", "largest logit difference"),
            [
                (row.engine, row.variant, row.shapes, f"{row.top1:.2%}", f"{row.flip_rate:.2%}",
                 f"{row.max_abs_logit_diff:.3f}")
                for row in report.agreement
            ],
            title=f"against FP32 in ONNX Runtime, {report.agreement[0].n:,} rows",
            right=("top-1", "labels changed", "largest logit difference"),
        )  # fmt: skip
