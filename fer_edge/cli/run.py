"""`fer-edge run`: recognises expressions in an image, a video or a camera's stream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fer_edge.cli import options as opt
from fer_edge.cli.console import console, name_network, note_unread, note_written, progress
from fer_edge.cli.inputs import read_priors
from fer_edge.cli.process import call_interruptibly
from fer_edge.core.tables import Column, Table, print_table

if TYPE_CHECKING:
    from fer_edge.bench.source_run import RunSummary
    from fer_edge.runtime.live_result import LiveResult
    from fer_edge.runtime.video_recognizer import FrameResult

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    source: Annotated[str, opt.option("Image(s), video, camera (0, /dev/video0, URL).", metavar="FILE|CAMERA")],
    variant: opt.VariantName,
    provider: opt.Provider,
    threads: opt.Threads,
    reading: opt.ReadingName,
    priors: Annotated[str | None, opt.option("half, balanced or neutral=0.7,...: the labels' frequencies.")],
    engines: Annotated[Path | None, opt.option("Folder of built or cached engines.", metavar="FOLDER")],
    rebuild: Annotated[bool, opt.flag("Build missing TensorRT engines or LiteRT files first.")],
    annotate: Annotated[Path | None, opt.option("Write the frames with the estimates drawn in.", opt.OUTPUT)],
    anonymise: Annotated[bool, opt.flag("Pixelate the faces in the annotated frames.")],
    csv: Annotated[Path | None, opt.output("Write a table of the estimates, a row per face and frame.")],
    detector: opt.Detector,
    seat: Annotated[Literal["left", "right"] | None, opt.option("Half of the picture in which the driver sits.")],
    driver_roi: Annotated[
        tuple[float, float, float, float] | None,
        opt.option("Where the driver sits, in pixels or fractions.", opt.REGION, metavar="L,T,R,B"),
    ],
    passengers: Annotated[bool, opt.flag("Recognise every face, not the driver's alone.")],
    whole_frame: opt.WholeFrame,
    any_quality: Annotated[bool, opt.flag("Judge every face, however small, dark or blurred.")],
    public_key: Annotated[Path | None, opt.option("Require BUNDLE's signature by this ed25519 key.", metavar="PEM")],
    json_out: Path | None,
) -> None:
    """Recognise the driver's expression with BUNDLE (a folder or a shipped name).

    The driver is the largest central face, in the driver's region where --seat or --driver-roi gives one.

    SOURCE may also be a GStreamer pipeline, or drawn faces: synthetic, synthetic:happy. Many images are a folder, a
    glob in quotes ('faces/*.jpg'), a numbered pattern (frame_%04d.png) or a list file (.txt, one path per line); each
    is recognised by itself, and --annotate names a folder. --json writes one object per line: what runs, every frame,
    every change of the recogniser's state, a summary.

    Nothing is stored unless --annotate, --csv or --json asks for it. Ctrl-C or SIGTERM ends a camera's run and keeps
    its outputs; a file's run then writes nothing. A camera that is lost is opened again until it is back.
    """
    from fer_edge.bench.recording import RunOutputs, record_run
    from fer_edge.bench.source_run import CameraOptions
    from fer_edge.cli.systemd import ServiceNotifier
    from fer_edge.demo.drawn_source import open_any_source
    from fer_edge.runtime.face_finder import open_detector
    from fer_edge.runtime.recognizer import Recognizer
    from fer_edge.runtime.tracker import TrackerOptions

    tracking = TrackerOptions(seat=seat, driver_roi=driver_roi, passengers=passengers)
    finder = None if detector == "haar" else open_detector(detector)  # drawn faces need no detector
    records = sys.stdout if json_out == opt.STDOUT else json_out
    outputs = RunOutputs(annotate=annotate, records=records, csv=csv, anonymise=anonymise, overwrite=opt.overwriting())
    with (
        call_interruptibly(lambda: open_any_source(source)) as frames,
        progress(f"recognising {source}") as bar,
        ServiceNotifier() as service,
    ):

        def update(result: FrameResult) -> None:
            driver = result.driver
            what = f"recognising {source}" if driver is None else f"driver: {driver.label} {driver.probability:.0%}"
            bar(what, result.index + 1, frames.frames or 0)

        outputs.check(frames)
        if rebuild:
            engines = _rebuild(bundle, variant=variant, provider=provider, engines=engines)
        with Recognizer(
            bundle,
            variant=variant,
            provider=provider,
            threads=threads,
            engines=engines,
            reading=reading,
            priors=None if priors is None else read_priors(priors),
            quality=None if any_quality else "measured",
            public_key=public_key,
        ) as recognizer:
            name_network(recognizer.info)
            summary = record_run(
                recognizer,
                frames,
                outputs=outputs,
                detector=finder,
                tracking=tracking,
                whole_frame=whole_frame,
                on_result=update,
                camera=CameraOptions(
                    reopen=lambda: open_any_source(source),
                    on_live=lambda live: service.watch(live.health),
                    on_state=_print_state,
                ),
            )
    note_unread(frames, summary.frames)
    if json_out != opt.STDOUT:
        _print_summary(summary)
    note_written(annotate, csv, None if json_out == opt.STDOUT else json_out)


def _print_state(result: LiveResult) -> None:
    console.print(f"state: {result.state}" + ("" if result.state_because is None else f": {result.state_because}"))


def _rebuild(bundle: str, *, variant: str, provider: str, engines: Path | None) -> Path:
    from fer_edge.core.bundle import Bundle
    from fer_edge.runtime.inference import choose_variant
    from fer_edge.runtime.providers import default_engine_folder

    opened, folder = Bundle.open(bundle), engines or default_engine_folder()
    with progress("building engines") as bar:
        if provider == "litert":
            from fer_edge.export.litert_cache import write_missing

            chosen = choose_variant(opened.manifest, variant=variant, provider=provider)
            write_missing(opened, [chosen], folder=folder, progress=bar)
        else:
            from fer_edge.export.tensorrt_backend import rebuild_engines

            rebuild_engines(opened, folder, variant=variant, provider=provider, progress=bar)
    return folder


def _print_summary(summary: RunSummary) -> None:
    total = sum(summary.driver_labels.values())
    shares = [label if total == 1 else f"{label} {n / total:.0%}" for label, n in summary.driver_labels.items()]
    rows: list[tuple[str, object]] = [
        ("frames", summary.frames),
        *([("frames dropped", summary.frames_dropped)] if summary.frames_dropped else []),
        *([("camera opened again", summary.reopened)] if summary.reopened else []),
        ("frames with a recognised face", summary.frames_with_face),
        ("faces", summary.faces),
        ("driver's label" if total < 2 else "driver's label, share of frames", ", ".join(shares) or None),
    ]
    for stage, times in summary.latency_ms.items():
        rows.append((f"{stage}, ms per frame", f"p50 {times['p50']:.2f}, p99 {times['p99']:.2f}"))
    if summary.frames_with_face == 0:
        console.print("no face was recognised; see --driver-roi and --seat; for face crops pass --whole-frame")
    title = f"{summary.source}: {summary.info.bundle} {summary.info.variant}"
    print_table(Table(columns=("", Column("value", "left")), rows=rows, title=title))
