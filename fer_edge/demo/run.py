"""The demonstration: bundles verified, exported, measured and run on made-up faces; no data set, no GPU, no torch."""

from __future__ import annotations

from fer_edge.core.types import Progress, Uint8

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.html_report import write_page
from fer_edge.bench.report import BenchReport, Timing
from fer_edge.bench.benchmark import BenchOptions, open_bundles, run_bench
from fer_edge.bench.tables import cost_table, verdict_table
from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.data import load_dataset
from fer_edge.data.faces import ClipFrame, contact_sheet, synthetic_frames, synthetic_stills
from fer_edge.core.json import encode
from fer_edge.demo.page import write_demo_page
from fer_edge.core.errors import BundleError, require
from fer_edge.export.selection import choose_target
from fer_edge.export.recipe import load_target
from fer_edge.export.target import TargetReport, export_target
from fer_edge.core.files import output_folder, write_json
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import AccuracyReport, accuracy_report, softmax
from fer_edge.runtime.annotate import annotate_frame, write_annotated_image
from fer_edge.runtime.evaluate import evaluate
from fer_edge.runtime.inference import Network
from fer_edge.runtime.pipeline import RunOutputs, RunSummary, run_source
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource
from fer_edge.runtime.video_recognizer import FrameResult
from fer_edge.core.verify import VerifyReport, verify_bundle

__all__ = ["OUTPUTS", "ClipOutcome", "DemoOptions", "DemoReport", "SyntheticAccuracy", "run_demo"]


OUTPUTS: Final = ("report.html", "bench.html", "bench.json", "demo.json", "clip.mp4", "faces.png", "targets")
"""What a demonstration leaves in its folder."""

_SHOWN: Final = ("fp32", "int8")  # int8-trt is for TensorRT, and slower than int8 elsewhere


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How much is done; the defaults take a minute or two on two cores.

    Attributes:
        timing: how much is timed.
        stills: made-up faces on which accuracy is measured.
        clip_frames: frames of the clip, of each expression.
        clip_rate: frames a second.
        clip_size: width and height in pixels.
        seed: of everything that is drawn.
    """

    timing: Timing = dataclasses.field(
        default_factory=lambda: Timing(rounds=12, per_round=5, warm_up=5, batch=16, cold_starts=1)
    )
    stills: int = 350
    clip_frames: int = 36
    clip_rate: float = 15.0
    clip_size: tuple[int, int] = (640, 480)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class SyntheticAccuracy:
    """A variant's accuracy on made-up faces, which says little about real ones: they were never trained on."""

    bundle: str
    variant: str
    report: AccuracyReport


@dataclass(frozen=True, kw_only=True)
class ClipOutcome:
    """What the sequence runtime made of the clip.

    Attributes:
        summary: as `fer-edge run` gives it.
        frames_judged: frames with a followed face that shows an expression at half its strength or more.
        frames_agreeing: of these, frames in which the driver was given that expression.
    """

    summary: RunSummary
    frames_judged: int
    frames_agreeing: int


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Everything the demonstration found.

    Attributes:
        verified: every check of every bundle; all have passed.
        targets: what was exported for this machine.
        bench: the benchmark; with a data set its accuracies are measured, without one they are the recorded ones.
        synthetic: accuracies on made-up faces.
        clip: the sequence runtime on the clip.
    """

    verified: tuple[VerifyReport, ...]
    targets: tuple[TargetReport, ...]
    bench: BenchReport
    synthetic: tuple[SyntheticAccuracy, ...]
    clip: ClipOutcome

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(encode(self))


def run_demo(
    bundles: Sequence[str] = (),
    *,
    out: Path,
    data: str | None = None,
    options: DemoOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DemoReport:
    """Verify, export, measure and run bundles, and write the report, the measurements and an annotated video.

    Args:
        bundles: folders or shipped names; every shipped bundle where none is named. The first runs on the clip.
        out: folder to write, `OUTPUTS` in it; an earlier demonstration there is replaced.
        data: a data set's spec; accuracy is then measured on the split to choose on (FER2013's PublicTest).
        options: how much is done.
        overwrite: replace the folder whatever it holds.
        progress: told what is going on.

    Raises:
        InputError: no bundle, or data that cannot be read.
        BundleError: a bundle that is not sound.
        GateError: the exported files do not compute what the bundle computes.
        SessionError, MissingPackageError: an engine, or what draws the report, is not to be had.
        OutputError: the folder holds something else, or cannot be written; nothing is left behind.
    """
    options, say = options or DemoOptions(), progress or (lambda text, done, total: None)
    require("matplotlib", needed_by="the demonstration's report", extra="report")
    verified = _verify(tuple(bundles) or zoo_names(), say)
    opened = open_bundles(bundles)
    with output_folder(out, overwrite=overwrite or _is_earlier_demo(out)) as folder:
        targets = _export(opened, folder / "targets", say)
        bench = _measure(opened, data, options, say)
        synthetic = _synthetic_accuracies(opened, options, say)
        clip, strip = _recognise_clip(opened[0], folder / "clip.mp4", options, say)
        say("writing the report", 0, 1)
        report = DemoReport(verified=verified, targets=targets, bench=bench, synthetic=synthetic, clip=clip)
        write_annotated_image(folder / "faces.png", contact_sheet(3, seed=options.seed))
        bench.write(folder / "bench.json")
        write_page(bench, folder / "bench.html")
        write_json(folder / "demo.json", report.to_json())
        tables = [verdict_table(bench), cost_table(bench)]
        write_demo_page(report, measured=tables, strip=strip, path=folder / "report.html")
        say("writing the report", 1, 1)
    return report


def _is_earlier_demo(out: Path) -> bool:
    """Whether the folder holds a demonstration and nothing else."""
    if not (out / "demo.json").is_file():
        return False
    return {path.name for path in out.iterdir()} <= set(OUTPUTS)


def _verify(names: Sequence[str], say: Progress) -> tuple[VerifyReport, ...]:
    reports = []
    for done, name in enumerate(names):
        say(f"verifying {name}", done, len(names))
        report = verify_bundle(name)
        if not report.ok:
            faults = "; ".join(check.detail for check in report.checks if check.verdict == "failed")
            raise BundleError(f"{report.path} is not sound: {faults}. `fer-edge verify {name}` shows every check.")
        reports.append(report)
    return tuple(reports)


def _export(bundles: Sequence[Bundle], folder: Path, say: Progress) -> tuple[TargetReport, ...]:
    target, reports = choose_target("auto", gpu=False), []
    for number, bundle in enumerate(bundles):
        name = bundle.manifest.name
        say(f"exporting {name} for this machine: {target}", number, len(bundles))
        alike = sum(other.manifest.name == name for other in bundles[:number])
        place = folder / f"{name}-{alike + 1}" if alike else folder / name
        reports.append(export_target(bundle, target=target, out=place))
    return tuple(reports)


def _measure(bundles: Sequence[Bundle], data: str | None, options: DemoOptions, say: Progress) -> BenchReport:
    engine = load_target(choose_target("auto", gpu=False)).provider
    return run_bench(
        bundles,
        data=None if data is None else load_dataset(data, progress=say),
        options=BenchOptions(
            variants=_shown_variants(bundles),
            providers=("cpu",) if engine == "cpu" else ("cpu", engine),
            timing=options.timing,
            command="fer-edge demo",
        ),
        progress=say,
    )


def _shown_variants(bundles: Sequence[Bundle]) -> tuple[str, ...] | None:
    """FP32 and INT8 where every bundle has one of them; else all there are."""
    held = [{variant.name for variant in bundle.manifest.variants} for bundle in bundles]
    if any(not names & set(_SHOWN) for names in held):
        return None
    return tuple(name for name in _SHOWN if any(name in names for names in held))


def _synthetic_accuracies(
    bundles: Sequence[Bundle], options: DemoOptions, say: Progress
) -> tuple[SyntheticAccuracy, ...]:
    say(f"drawing {options.stills} faces", 0, options.stills)
    images, labels = synthetic_stills(options.stills, seed=options.seed)
    wanted, found = _shown_variants(bundles), []
    for bundle in bundles:
        if bundle.manifest.labels != EXPRESSIONS:  # what the drawings show; figures of other labels would mean nothing
            continue
        for variant in bundle.manifest.variants:
            if wanted is not None and variant.name not in wanted:
                continue
            name = f"{bundle.manifest.name}/{variant.name}"
            with Network.open(bundle, variant=variant.name) as network:
                logits = evaluate(
                    network,
                    images,
                    bundle.manifest.preprocess,
                    progress=lambda done, of, name=name: say(f"recognising made-up faces: {name}", done, of),  # type: ignore[misc]
                )
            report = accuracy_report(
                softmax(logits, temperature=variant.temperature), labels, dataset="synthetic", split="synthetic"
            )
            found.append(SyntheticAccuracy(bundle=bundle.manifest.name, variant=variant.name, report=report))
    return tuple(found)


class _Witness:
    """Hears every result on the clip, counts agreement, and keeps a picture from the middle of each expression."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._latest: ClipFrame | None = None
        self.judged = 0
        self.agreeing = 0
        self.strip: list[Uint8] = []

    def source(self) -> VideoSource:
        """All expressions, one after the other; the faces have to be found in the frames."""
        options = self._options
        count = options.clip_frames * len(EXPRESSIONS)
        drawn = synthetic_frames(
            EXPRESSIONS, frames=count, frame_rate=options.clip_rate, seed=options.seed, size=options.clip_size
        )
        return VideoSource(
            self._watched(drawn), name="synthetic", kind="synthetic", frame_rate=options.clip_rate, count=count
        )

    def _watched(self, drawn: Iterator[ClipFrame]) -> Iterator[SourceFrame]:
        for frame in drawn:
            self._latest = frame
            yield SourceFrame(image=frame.image, timestamp_s=frame.time_s)

    def hear(self, result: FrameResult) -> None:
        """Judge the result of the frame that was drawn last."""
        assert self._latest is not None
        if result.driver is not None and self._latest.intensity >= 0.5:
            self.judged += 1
            self.agreeing += result.driver.label == EXPRESSIONS[self._latest.label]
        place = result.index % self._options.clip_frames
        if place == int(0.7 * self._options.clip_frames):
            self.strip.append(annotate_frame(self._latest.image, result.estimates))


def _recognise_clip(
    bundle: Bundle, video: Path, options: DemoOptions, say: Progress
) -> tuple[ClipOutcome, list[Uint8]]:
    witness = _Witness(options)

    def on_result(result: FrameResult) -> None:
        witness.hear(result)
        say(f"recognising the clip: {bundle.manifest.name}", result.index + 1, source.frames or 0)

    with witness.source() as source, Recognizer(bundle) as recognizer:
        summary = run_source(recognizer, source, outputs=RunOutputs(annotate=video), on_result=on_result)
    outcome = ClipOutcome(summary=summary, frames_judged=witness.judged, frames_agreeing=witness.agreeing)
    return outcome, witness.strip
