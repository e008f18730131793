"""`fer-edge explain`: show where the attention looked, and which frames it weighed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_edge.cli.console import console, emit_json, print_table, progress

if TYPE_CHECKING:
    from fer_edge.bench.attention import AttentionReport
    from fer_edge.bench.explain import ExplainOptions, FrameExplanation, SourceExplanation
    from fer_edge.data import Dataset
    from fer_edge.runtime.inference import Network
    from fer_edge.runtime.recognizer import Recognizer
    from fer_edge.runtime.video_source import VideoSource

__all__ = ["command"]


@click.command(name="explain")
@click.argument("bundle")
@click.argument("source", required=False, metavar="[IMAGE|VIDEO|synthetic]")
@click.option(
    "--data", metavar="SPEC", help="Average over a data set's faces instead, by expression: fer2013:PATH, ..."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the picture: an image of a photograph; of a video a video, or an image of the window it ends with; "
    "with --data the mean maps, which show no face.",
)
@click.option("--json", "records", metavar="FILE|-", help="Write the weights as JSON; - is stdout.")
@click.option("--occlusion", is_flag=True, help="Also cover each region in turn: what the label's probability loses.")
@click.option("--until", "until_s", type=click.FloatRange(min=0), metavar="SECONDS", help="End a video here.")
@click.option("--variant", default="auto", show_default=True, help="fp32, int8, ...; auto is int8 where there is one.")
@click.option("--provider", default="cpu", show_default=True, help="The engine: cpu, openvino or cuda.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of the engine.")
@click.option("--whole-frame", is_flag=True, help="The frames are face crops already: look for no faces.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
def command(
    bundle: str,
    source: str | None,
    data: str | None,
    out: Path | None,
    records: str | None,
    occlusion: bool,
    until_s: float | None,
    variant: str,
    provider: str,
    threads: int,
    whole_frame: bool,
    overwrite: bool,
) -> None:
    """Show where BUNDLE looks in a face, and which frames of a video it weighs.

    Of a photograph the most prominent face is explained, of a video the driver's. The maps have the resolution of the
    region tokens (3x3 in the shipped bundles) and are drawn cell by cell. Nothing is written unless --out or --json
    names it.
    """
    if (source is None) == (data is None):
        raise click.UsageError("give either an image or a video to explain, or --data.")
    if data is not None and (whole_frame or until_s is not None):
        raise click.UsageError("--whole-frame and --until belong to an image or a video, not to --data.")
    from fer_edge.bench.explain import ExplainOptions
    from fer_edge.demo.drawn_source import open_any_source
    from fer_edge.runtime.inference import Network
    from fer_edge.runtime.pipeline import check_output
    from fer_edge.runtime.recognizer import Recognizer

    target = Path(records) if records is not None and records != "-" else None
    if target is not None:
        check_output(target, source=source or "", overwrite=overwrite)
    if data is not None:
        from fer_edge.bench.attention_plot import WHAT, attention_figure
        from fer_edge.core.plots import check_plot_path

        if out is not None:
            check_plot_path(out, what=WHAT)
            check_output(out, source="", overwrite=overwrite)
        dataset = _read(data)
        with Network.open(bundle, variant=variant, provider=provider, threads=threads) as network:
            averaged = _average(network, dataset, occlusion)
        if out is not None:
            attention_figure(averaged, out)
        _emit(averaged.to_json(), target, to_stdout=records == "-")
        if records != "-":
            _show_averages(averaged)
        return
    options = ExplainOptions(
        out=out, occlusion=occlusion, whole_frame=whole_frame, until_s=until_s, overwrite=overwrite
    )
    with open_any_source(str(source)) as frames:
        options.check(frames)
        with Recognizer(bundle, variant=variant, provider=provider, threads=threads) as recognizer:
            explained = _explain(recognizer, frames, options)
    _emit(explained.to_json(), target, to_stdout=records == "-")
    if records != "-":
        _show_source(explained)


def _read(data: str) -> Dataset:
    from fer_edge.data import load_dataset

    with progress(f"reading {data}") as bar:
        return load_dataset(data, progress=bar)


def _average(network: Network, dataset: Dataset, occlusion: bool) -> AttentionReport:
    from fer_edge.bench.attention import average_attention

    info = network.info
    console.print(f"{info.bundle} {info.variant} on {info.provider} ({info.provider_version})")
    with progress("looking at every face") as bar:
        return average_attention(
            network, dataset, occlusion=occlusion, command=shlex.join(["fer-edge", *sys.argv[1:]]), progress=bar
        )


def _explain(recognizer: Recognizer, frames: VideoSource, options: ExplainOptions) -> SourceExplanation:
    from fer_edge.bench.explain import explain_source

    info = recognizer.info
    console.print(f"{info.bundle} {info.variant} on {info.provider} ({info.provider_version})")
    with progress(f"explaining {frames.name}", total=frames.frames) as bar:

        def step(frame: FrameExplanation) -> None:
            bar(f"explaining {frames.name}", frame.index + 1, frames.frames or frame.index + 1)

        return explain_source(recognizer, frames, options=options, on_frame=step)


def _emit(found: dict[str, Any], target: Path | None, *, to_stdout: bool) -> None:
    if to_stdout:
        emit_json(found)
    elif target is not None:
        from fer_edge.core.files import write_json

        write_json(target, found)


def _show_source(explained: SourceExplanation) -> None:
    shown = explained.explained
    if not shown:
        console.print("no face was found that could be explained; for face crops pass --whole-frame")
        return
    newest = shown[-1]
    face, window = newest.face, newest.window
    assert face is not None
    size = f"{explained.grid}x{explained.grid}"
    rows: list[tuple[str, object]] = [("label", f"{face.label} {face.probabilities[face.label]:.0%}")]
    if window is not None:
        rows.insert(0, ("frames with the driver's face", f"{len(shown)} of {len(explained.frames)}"))
        rows.insert(1, ("window that ends at", f"{newest.timestamp_s:.2f} s, {len(window.weights)} frames"))
        rows.append(
            ("weights of its frames, %, oldest first", " ".join(f"{100 * each:.0f}" for each in window.weights))
        )
        rows.append(("entropy of these, even is 1", None if window.entropy is None else f"{window.entropy:.3f}"))
    else:
        rows.insert(0, ("faces found", newest.faces))
    rows.append((f"attention, % of each of {size} regions", _cells(face.attention)))
    rows.append(("entropy of it, even is 1", f"{face.attention_entropy:.3f}"))
    if face.occlusion_drop is not None:
        rows.append(("lost by covering it, points", _cells(face.occlusion_drop)))
        rows.append(("correlation of both", None if face.agreement is None else f"{face.agreement:+.2f}"))
    print_table(
        ("measure", "value"), rows, title=f"{explained.source}: {explained.info.bundle} {explained.info.variant}"
    )


def _show_averages(report: AttentionReport) -> None:
    rows = [
        (
            label,
            each.n,
            f"{each.entropy:.3f}",
            _cells(each.attention),
            None if each.occlusion_drop is None else _cells(each.occlusion_drop),
            f"{each.average_face.label} {each.average_face.probability:.0%}",
        )
        for label, each in report.expressions.items()
    ]
    columns = (
        "expression",
        "faces",
        "entropy",
        "attention, %",
        "lost by covering, points",
        "the average face is called",
    )
    data, found = report.data, report.faithfulness
    caption = f"{report.data.split}, {data.n} faces; mean entropy {report.entropy['mean']:.3f} of 1, which is even. "
    caption += "Regions row by row, from the forehead."
    if found is not None:
        caption += (
            f"\nAttention and covering correlate at {found.correlation:+.2f} on average (with another face's "
            f"attention {found.correlation_of_mismatched:+.2f}); they peak in the same region in "
            f"{found.same_peak:.0%} of the faces ({found.same_peak_of_mismatched:.0%})."
        )
    print_table(columns, rows, title=f"{report.info.bundle} {report.info.variant}", caption=caption, right=("faces",))


def _cells(values: Sequence[Sequence[float]]) -> str:
    return " / ".join(" ".join(f"{100 * value:.0f}" for value in row) for row in values)
