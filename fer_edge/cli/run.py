"""`fer-edge run`: recognise expressions in an image, a video or a camera's stream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_edge.cli.console import ProgressBar, console, print_table, progress

if TYPE_CHECKING:
    from fer_edge.runtime.pipeline import RunSummary
    from fer_edge.runtime.video_recognizer import FrameResult


@click.command(name="run")
@click.argument("bundle")
@click.option(
    "--source",
    required=True,
    metavar="FILE|CAMERA|synthetic",
    help="A video or image file, a camera (0, /dev/video0, an address, a GStreamer pipeline), or drawn faces: "
    "synthetic, synthetic:happy.",
)
@click.option("--variant", default="auto", show_default=True, help="fp32, int8, ...; auto is int8 where there is one.")
@click.option(
    "--provider", default="cpu", show_default=True, help="The engine: cpu, openvino, cuda, ort-tensorrt, tensorrt, rtx."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the engine.")
@click.option(
    "--engines",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of built engines (tensorrt, rtx), or where openvino and ort-tensorrt keep what they compile for a "
    "quicker start; without it these keep nothing.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="With tensorrt or rtx: build the engines that are missing or stale, for this machine's GPU, before they run.",
)
@click.option(
    "--annotate",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the frames with the estimates drawn in: a video, or an image where the source is one.",
)
@click.option(
    "--json",
    "records",
    metavar="FILE|-",
    help="Write one JSON object a line: what ran, every frame, a summary; - is stdout.",
)
@click.option("--whole-frame", is_flag=True, help="The frames are face crops already: look for no faces.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
def command(
    bundle: str,
    source: str,
    variant: str,
    provider: str,
    threads: int,
    engines: Path | None,
    rebuild: bool,
    annotate: Path | None,
    records: str | None,
    whole_frame: bool,
    overwrite: bool,
) -> None:
    """Recognise expressions with BUNDLE (a folder, or a shipped bundle's name), face by face.

    Nothing of what the camera sees is kept, unless --annotate or --json asks for it by name. Ctrl-C ends a camera's run
    and keeps its outputs; a file's run then writes nothing. A camera that gives no more frames ends the run too, with
    status 1, and its outputs are kept.
    """
    from fer_edge.core.errors import SessionError
    from fer_edge.demo.drawn_source import open_any_source
    from fer_edge.runtime.pipeline import RunOutputs, run_source
    from fer_edge.runtime.recognizer import Recognizer

    to_stdout = records == "-"
    outputs = RunOutputs(
        annotate=annotate,
        records=sys.stdout if to_stdout else Path(records) if records else None,
        overwrite=overwrite,
    )
    with open_any_source(source) as frames:
        outputs.check(frames)
        if rebuild:
            engines = _rebuild(bundle, variant=variant, provider=provider, engines=engines)
        with Recognizer(bundle, variant=variant, provider=provider, threads=threads, engines=engines) as recognizer:
            info = recognizer.info
            console.print(f"{info.bundle} {info.variant} on {info.provider} ({info.provider_version})")
            with progress(f"recognising {source}", total=frames.frames) as bar:
                summary = run_source(
                    recognizer,
                    frames,
                    outputs=outputs,
                    whole_frame=whole_frame,
                    on_result=lambda result: _show(bar, result, frames.frames),
                )
    if summary.frames_expected and summary.frames < summary.frames_expected:
        console.print(f"note: {source} states {summary.frames_expected} frames, {summary.frames} could be read")
    if not to_stdout:
        _print_summary(summary)
    if summary.lost is not None:
        raise SessionError(f"{summary.lost}; what came before is recognised and written")


def _rebuild(bundle: str, *, variant: str, provider: str, engines: Path | None) -> Path:
    from fer_edge.core.bundle import Bundle
    from fer_edge.export.tensorrt_backend import rebuild_engines
    from fer_edge.runtime.providers import default_engine_folder

    folder = engines or default_engine_folder()
    with progress("building engines") as bar:

        def tell(text: str, done: int, total: int) -> None:
            bar(text, done, total)

        rebuild_engines(Bundle.open(bundle), folder, variant=variant, provider=provider, progress=tell)
    return folder


def _show(bar: ProgressBar, result: FrameResult, total: int | None) -> None:
    done = result.index + 1
    driver = result.driver
    bar("no driver" if driver is None else f"driver: {driver.label} {driver.probability:.0%}", done, total or done)


def _print_summary(summary: RunSummary) -> None:
    total = sum(summary.driver_labels.values())
    rows: list[tuple[str, object]] = [
        ("frames", summary.frames),
        ("frames with a face", summary.frames_with_face),
        ("faces", summary.faces),
        ("driver", ", ".join(f"{label} {count / total:.0%}" for label, count in summary.driver_labels.items()) or None),
    ]
    for stage, times in summary.latency_ms.items():
        rows.append((f"{stage}, ms a frame", f"p50 {times['p50']:.2f}, p99 {times['p99']:.2f}"))
    if summary.frames_with_face == 0:
        console.print("no face was found; for face crops pass --whole-frame")
    print_table(("measure", "value"), rows, title=f"{summary.source}: {summary.info.bundle} {summary.info.variant}")
