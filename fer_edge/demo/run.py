"""The demonstration: bundles verified, exported, measured and run on drawn faces, without data set, GPU and torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_edge.bench.benchmark import BenchOptions, open_bundles, run_bench
from fer_edge.bench.html_report import write_page
from fer_edge.bench.report import BenchReport, Timing
from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.errors import BundleError, require
from fer_edge.core.files import output_folder, write_atomic, write_json
from fer_edge.core.json import encode
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import accuracy_report, softmax
from fer_edge.core.types import Progress, Uint8, no_progress
from fer_edge.core.verify import VerifyReport, verify_bundle
from fer_edge.data import load_dataset
from fer_edge.data.faces import ClipFrame, contact_sheet, synthetic_frames, synthetic_stills
from fer_edge.demo.report import ClipOutcome, DemoReport, SyntheticAccuracy, render_page
from fer_edge.export.recipe import load_target
from fer_edge.export.selection import choose_target
from fer_edge.export.target import TargetReport, export_target
from fer_edge.bench.annotate import annotate_frame, write_annotated_image
from fer_edge.core.evaluate import evaluate
from fer_edge.runtime.inference import Network
from fer_edge.bench.recording import RunOutputs, record_run
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import FrameResult
from fer_edge.runtime.video_source import SourceFrame, VideoSource

__all__ = ["DemoOptions", "run_demo"]

_SHOWN: Final = ("fp32", "int8")  # int8-trt is for TensorRT, and slower than int8 elsewhere


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The extent of the demonstration; the defaults take a minute or two on two cores.

    Attributes:
        timing: of the benchmark.
        stills: drawn faces on which accuracy is measured.
        clip_frames: frames of the clip per expression.
        clip_rate: frames per second.
        clip_size: width and height in pixels.
        seed: of all drawings.
    """

    timing: Timing = dataclasses.field(
        default_factory=lambda: Timing(rounds=12, per_round=5, warm_up=5, batch=16, cold_starts=1)
    )
    stills: int = 350
    clip_frames: int = 36
    clip_rate: float = 15.0
    clip_size: tuple[int, int] = (640, 480)
    seed: int = 0


def run_demo(
    bundles: Sequence[str] = (),
    *,
    out: Path,
    data: str | None = None,
    options: DemoOptions | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> DemoReport:
    """Verify, export, measure and run bundles, and write a page, the measurements and an annotated video.

    Args:
        bundles: folders or shipped names; all shipped ones by default. The first one runs on the clip.
        out: folder to write.
        data: spec of a data set whose choosing split (FER2013: PublicTest) measures the accuracy.
        options: the extent.
        overwrite: replace a folder that holds files.
        progress: called with (what, done, total).

    Raises:
        InputError: no bundle, or data that cannot be read.
        BundleError: a bundle that is not sound.
        GateError: the exported files do not compute what the bundle computes.
        SessionError, MissingPackageError: an engine, or matplotlib, is not available.
        OutputError: the folder holds files, or cannot be written; no partial output is left.
    """
    options = options or DemoOptions()
    require("matplotlib", needed_by="fer-edge demo", extra="report")
    with output_folder(out, overwrite=overwrite) as folder:
        verified = _verify(tuple(bundles) or zoo_names(), progress)
        opened = open_bundles(bundles)
        targets = _export(opened, folder / "targets", progress)
        bench = _measure(opened, data, options, progress)
        synthetic = _synthetic_accuracies(opened, options, progress)
        clip, strip = _recognise_clip(opened[0], folder / "clip.webm", options, progress)
        progress("writing the report", 0, 1)
        report = DemoReport(verified=verified, targets=targets, bench=bench, synthetic=synthetic, clip=clip)
        write_annotated_image(folder / "faces.png", contact_sheet(3, seed=options.seed))
        bench.write(folder / "bench.json")
        write_page(bench, folder / "bench.html")
        write_json(folder / "demo.json", encode(report))
        write_atomic(folder / "report.html", render_page(report, strip).encode())
    return report


def _verify(names: Sequence[str], progress: Progress) -> tuple[VerifyReport, ...]:
    reports = []
    for done, name in enumerate(names):
        progress(f"verifying {name}", done, len(names))
        report = verify_bundle(name)
        if not report.ok:
            faults = "; ".join(check.detail for check in report.checks if check.verdict == "failed")
            raise BundleError(f"{report.path} is not sound: {faults}. `fer-edge verify {name}` shows every check.")
        reports.append(report)
    return tuple(reports)


def _export(bundles: Sequence[Bundle], folder: Path, progress: Progress) -> tuple[TargetReport, ...]:
    target, reports = choose_target("auto", gpu=False), []
    for number, bundle in enumerate(bundles):
        name = bundle.manifest.name
        progress(f"exporting {name} for this machine: {target}", number, len(bundles))
        namesakes = sum(other.manifest.name == name for other in bundles[:number])
        place = folder / f"{name}-{namesakes + 1}" if namesakes else folder / name
        reports.append(export_target(bundle, target=target, out=place))
    return tuple(reports)


def _measure(bundles: Sequence[Bundle], data: str | None, options: DemoOptions, progress: Progress) -> BenchReport:
    engine = load_target(choose_target("auto", gpu=False)).provider
    return run_bench(
        bundles,
        data=None if data is None else load_dataset(data, progress=progress),
        options=BenchOptions(
            variants=_shown_variants(bundles),
            providers=("cpu",) if engine == "cpu" else ("cpu", engine),
            timing=options.timing,
            command="fer-edge demo",
        ),
        progress=progress,
    )


def _shown_variants(bundles: Sequence[Bundle]) -> tuple[str, ...] | None:
    """Return FP32 and INT8 where every bundle has one of them, else None: all variants."""
    held = [{variant.name for variant in bundle.manifest.variants} for bundle in bundles]
    if any(not names & set(_SHOWN) for names in held):
        return None
    return tuple(name for name in _SHOWN if any(name in names for names in held))


def _synthetic_accuracies(
    bundles: Sequence[Bundle], options: DemoOptions, progress: Progress
) -> tuple[SyntheticAccuracy, ...]:
    images, labels = synthetic_stills(options.stills, seed=options.seed)
    shown, found = _shown_variants(bundles), []
    for bundle in bundles:
        if bundle.manifest.labels != EXPRESSIONS:  # the drawings have these labels only
            continue
        for variant in bundle.manifest.variants:
            if shown is not None and variant.name not in shown:
                continue
            progress(f"recognising drawn faces: {bundle.manifest.name}/{variant.name}", 0, options.stills)
            with Network.open(bundle, variant=variant.name) as network:
                logits = evaluate(network, images, bundle.manifest.preprocess).by_window[1]
            report = accuracy_report(
                softmax(logits, temperature=variant.temperature), labels, dataset="synthetic", split="synthetic"
            )
            found.append(SyntheticAccuracy(bundle=bundle.manifest.name, variant=variant.name, report=report))
    return tuple(found)


class _Witness:
    """Draws the clip, compares every result with the frame drawn last, and keeps one picture per expression."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._latest: ClipFrame | None = None
        self.judged = 0
        self.agreeing = 0
        self.strip: list[Uint8] = []

    def source(self) -> VideoSource:
        """Return all expressions one after the other; the faces have to be detected in the frames."""
        rate, count = self._options.clip_rate, self._options.clip_frames * len(EXPRESSIONS)
        drawn = synthetic_frames(
            EXPRESSIONS, frames=count, frame_rate=rate, seed=self._options.seed, size=self._options.clip_size
        )
        return VideoSource(self._watched(drawn), name="synthetic", kind="synthetic", frame_rate=rate, count=count)

    def _watched(self, drawn: Iterator[ClipFrame]) -> Iterator[SourceFrame]:
        for frame in drawn:
            self._latest = frame
            yield SourceFrame(image=frame.image, timestamp_s=frame.time_s)

    def judge(self, result: FrameResult) -> None:
        """Compare the result with the frame drawn last."""
        assert self._latest is not None
        if result.driver is not None and self._latest.intensity >= 0.5:
            self.judged += 1
            self.agreeing += result.driver.label == EXPRESSIONS[self._latest.label]
        if result.index % self._options.clip_frames == int(0.7 * self._options.clip_frames):
            self.strip.append(annotate_frame(self._latest.image, result.estimates))


def _recognise_clip(
    bundle: Bundle, video: Path, options: DemoOptions, progress: Progress
) -> tuple[ClipOutcome, list[Uint8]]:
    witness = _Witness(options)

    def on_result(result: FrameResult) -> None:
        witness.judge(result)
        progress(f"recognising the clip: {bundle.manifest.name}", result.index + 1, source.frames or 0)

    with witness.source() as source, Recognizer(bundle) as recognizer:
        summary = record_run(recognizer, source, outputs=RunOutputs(annotate=video), on_result=on_result)
    outcome = ClipOutcome(summary=summary, frames_judged=witness.judged, frames_agreeing=witness.agreeing)
    return outcome, witness.strip
