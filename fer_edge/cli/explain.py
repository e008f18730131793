"""`fer-edge explain`: where the attention looks in a face, and which frames it weighs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fer_edge.cli import options as opt
from fer_edge.cli.console import console, name_network, note_unread, note_written, progress, show
from fer_edge.core.tables import Column, Table

if TYPE_CHECKING:
    from fer_edge.bench.explain import ExplainOptions, FrameExplanation, SourceExplanation
    from fer_edge.runtime.recognizer import Recognizer
    from fer_edge.runtime.video_source import VideoSource

__all__ = ["command"]


@opt.make_command
def command(
    bundle: opt.BundleName,
    source: Annotated[str, opt.argument(metavar="IMAGE|VIDEO")],
    out: Annotated[Path | None, opt.output("Write the picture here: an image, or a video.")],
    occlusion: Annotated[bool, opt.flag("Also measure the effect of covering each region.")],
    until_s: Annotated[
        float | None, opt.option("End a video here.", opt.real(0, 1e6), name="--until", metavar="SECONDS")
    ],
    variant: opt.VariantName,
    provider: opt.Provider,
    threads: opt.Threads,
    reading: opt.ReadingName,
    detector: opt.Detector,
    whole_frame: opt.WholeFrame,
    json_out: Path | None,
) -> None:
    """Show where BUNDLE looks in a face, and which frames of a video it weighs.

    Explains the most prominent face of an image, or the driver's face in a video. The maps have the resolution of the
    region tokens (3x3 in the shipped bundles) and are drawn cell by cell. The picture of a video is a video, or an
    image of its last window.
    """
    from fer_edge.bench.explain import ExplainOptions
    from fer_edge.demo.drawn_source import open_any_source
    from fer_edge.runtime.recognizer import Recognizer

    wanted = ExplainOptions(
        out=out, occlusion=occlusion, whole_frame=whole_frame, until_s=until_s, overwrite=opt.overwriting()
    )
    with open_any_source(str(source)) as frames:
        wanted.check(frames)
        with Recognizer(
            bundle, variant=variant, provider=provider, threads=threads, reading=reading, quality=None
        ) as recognizer:
            explained = _explain(recognizer, frames, wanted, detector)
    if until_s is None:
        note_unread(frames, len(explained.frames))
    show(explained.to_json(), json_out, _source_tables(explained))
    note_written(out)


def _explain(recognizer: Recognizer, frames: VideoSource, wanted: ExplainOptions, detector: str) -> SourceExplanation:
    from fer_edge.bench.explain import explain_source
    from fer_edge.runtime.face_finder import open_detector

    finder = None if detector == "haar" else open_detector(detector)  # drawn faces need no detector
    name_network(recognizer.info)
    with progress(f"explaining {frames.name}") as bar:

        def step(frame: FrameExplanation) -> None:
            bar(f"explaining {frames.name}", frame.index + 1, frames.frames or 0)

        return explain_source(recognizer, frames, options=wanted, detector=finder, on_frame=step)


def _source_tables(explained: SourceExplanation) -> list[Table | str]:
    if not explained.explained:
        console.print("no face was found that could be explained; for face crops pass --whole-frame")
        return []
    newest = explained.explained[-1]
    face, window = newest.face, newest.window
    assert face is not None
    size = f"{explained.grid}x{explained.grid}"
    rows: list[tuple[str, object]]
    if window is None:
        rows = [("faces found", newest.faces)]
    else:
        rows = [
            ("frames with the driver's face", f"{len(explained.explained)} of {len(explained.frames)}"),
            ("window ends at", f"{newest.timestamp_s:.2f} s, {len(window.weights)} frames"),
            ("weights of its frames, %, oldest first", " ".join(f"{100 * each:.0f}" for each in window.weights)),
            ("entropy of these, even is 1", None if window.entropy is None else f"{window.entropy:.3f}"),
        ]
    rows.append(("label", f"{face.label} {face.probabilities[face.label]:.0%}"))
    rows.append((f"attention, % of each of {size} regions", _cells(face.attention)))
    rows.append(("entropy of it, even is 1", f"{face.attention_entropy:.3f}"))
    if face.occlusion_drop is not None:
        rows.append(("lost by covering it, points", _cells(face.occlusion_drop)))
        rows.append(("correlation of both", None if face.agreement is None else f"{face.agreement:+.2f}"))
    title = f"{explained.source}: {explained.info.bundle} {explained.info.variant}"
    return [Table(columns=("measure", Column("value", "left")), rows=rows, title=title)]


def _cells(values: Sequence[Sequence[float]]) -> str:
    return " / ".join(" ".join(f"{100 * value:.0f}" for value in row) for row in values)
