"""`fer-edge clips`: the sequence head against single frames and averaging."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.console import command_line, note_written, progress, show
from fer_edge.cli.inputs import read_dataset

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    data: Annotated[str, opt.dataset("Data set of the stills, for example fer2013:PATH.")],
    split: opt.Split,
    variant: opt.VariantName,
    provider: opt.Provider,
    threads: opt.Threads,
    count: Annotated[int, opt.option("Stills used.", opt.integer(20, 1_000_000), name="--clips", default=1000)],
    smoothing: Annotated[
        float | None, opt.option("Constant of the exponential smoothing.  [default: the best]", opt.real(0, 0.999))
    ],
    markdown_file: Annotated[Path | None, opt.output("Write the tables here.", name="--markdown")],
    private_log: opt.PrivateLog,
    json_out: Path | None,
) -> None:
    """Compare four ways to read BUNDLE on clips made of a data set's stills.

    The ways are the newest frame alone, averaged probabilities, exponential smoothing and the sequence head, at 1, 4, 8
    and 16 frames: clean, with corruptions that the head was trained on, and with others. Also measures the number of
    frames until a changed expression is reported.
    """
    from fer_edge.bench.clip_report import accuracy_table, delay_table, render_markdown
    from fer_edge.bench.clips import ClipOptions, run_clips
    from fer_edge.core.bundle import Bundle
    from fer_edge.core.files import write_atomic
    from fer_edge.core.json import encode

    wanted = ClipOptions(
        split=split,
        variant=variant,
        provider=provider,
        threads=threads,
        clips=count,
        smoothing=smoothing,
        private_log=private_log,
        command=command_line(),
    )
    opened, dataset = Bundle.open(bundle), read_dataset(data)
    with progress("making clips") as bar:
        report = run_clips(opened, dataset, options=wanted, progress=bar)
    show(encode(report), json_out, [accuracy_table(report), "", delay_table(report)])
    if markdown_file is not None:
        write_atomic(markdown_file, render_markdown(report).encode())
    note_written(markdown_file)
