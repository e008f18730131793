"""The results of the demonstration, and their page, which loads nothing from elsewhere but the files beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fer_edge.bench.html_report import html_page
from fer_edge.bench.report import BenchReport
from fer_edge.bench.tables import cost_table, verdict_table
from fer_edge.core.errors import OutputError, require
from fer_edge.core.json import encode
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import AccuracyReport
from fer_edge.core.tables import Column, Table
from fer_edge.core.types import Uint8
from fer_edge.core.verify import VerifyReport
from fer_edge.export.target import TargetReport
from fer_edge.bench.source_run import RunSummary

__all__ = ["ClipOutcome", "DemoReport", "SyntheticAccuracy", "render_page", "synthetic_table"]

_STYLE: Final = """
img { max-width: 100%; } figure { margin: 0; } figcaption { color: #555; font-size: 0.9rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 0.5rem; }
"""


@dataclass(frozen=True, kw_only=True)
class SyntheticAccuracy:
    """The accuracy of a variant on drawn faces, on which no network was trained."""

    bundle: str
    variant: str
    report: AccuracyReport


@dataclass(frozen=True, kw_only=True)
class ClipOutcome:
    """The result of the video runtime on the clip.

    Attributes:
        summary: as `fer-edge run` gives it.
        frames_judged: frames with a tracked face that shows an expression at half its strength or more.
        frames_agreeing: of these, frames whose driver label is that expression.
    """

    summary: RunSummary
    frames_judged: int
    frames_agreeing: int

    @property
    def text(self) -> str:
        """One sentence."""
        info = self.summary.info
        return (
            f"Clip: {info.bundle}/{info.variant} on {info.provider_version}, {self.summary.frames} frames, a face in "
            f"{self.summary.frames_with_face}. In {self.frames_agreeing} of the {self.frames_judged} frames that show "
            "an expression the label is that expression; the window delays every change by some frames."
        )


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """All results of the demonstration.

    Attributes:
        verified: every check of every bundle; all have passed.
        targets: the exports for this machine.
        bench: the benchmark; its accuracies are the recorded ones unless a data set was given.
        synthetic: accuracies on drawn faces.
        clip: the video runtime on the clip.
    """

    verified: tuple[VerifyReport, ...]
    targets: tuple[TargetReport, ...]
    bench: BenchReport
    synthetic: tuple[SyntheticAccuracy, ...]
    clip: ClipOutcome


def synthetic_table(report: DemoReport) -> Table:
    """Tabulate the accuracy on drawn faces, in per cent."""
    recalls = {Column(f"{name} %", priority=1): _recall(name) for name in EXPRESSIONS}
    return Table.of(
        report.synthetic,
        {
            "variant": lambda each: f"{each.bundle}/{each.variant}",
            "top-1 %": lambda each: f"{100 * each.report.top1:.1f}",
            "macro-F1 %": lambda each: f"{100 * each.report.macro_f1:.1f}",
            **recalls,
        },
        caption=f"{report.synthetic[0].report.n} drawn faces, on which no network was trained. They show that the chain "
        "works and that INT8 agrees with FP32;\nthey are no estimate of the accuracy on people."
        if report.synthetic
        else None,
    )


def render_page(report: DemoReport, strip: Sequence[Uint8]) -> str:
    """Render the page as HTML.

    Args:
        report: the results.
        strip: one annotated frame of each expression in their order, uint8 (H, W, 3) BGR.
    """
    figures = "".join(
        f'<figure><img src="{_data_uri(image)}" alt="{name}"><figcaption>drawn: {name}</figcaption></figure>'
        for name, image in zip(EXPRESSIONS, strip, strict=False)
    )
    parts = [
        "<h1>fer-edge demo</h1>",
        "<p>Every face is drawn by a program from a seed: no person is shown.</p>",
        "<h2>Speed, size and accuracy</h2>",
        verdict_table(report.bench).to_html(),
        cost_table(report.bench).to_html(),
        '<p>Plots, tails and the machine: <a href="bench.html">bench.html</a>.</p>',
        "<h2>A driver's face over time</h2>",
        f"<p>{html.escape(report.clip.text)}</p>",
        '<p>The whole clip:</p><video src="clip.webm" controls muted width="480"></video>',
        f'<div class="strip">{figures}</div>',
        "<h2>Drawn faces</h2>",
        '<p><img src="faces.png" alt="Three drawn people, each with the seven expressions"></p>',
        synthetic_table(report).to_html(),
        "<h2>Verified and exported</h2>",
        *(table.to_html() for table in _checks(report)),
    ]
    return html_page("fer-edge demo", parts, style=_STYLE)


def _recall(name: str) -> Any:
    return lambda each: f"{100 * each.report.per_class.get(name, 0.0):.0f}"


def _checks(report: DemoReport) -> Iterator[Table]:
    yield Table.of(
        report.verified,
        {
            "bundle": lambda each: each.path,
            "checks passed": lambda each: sum(check.verdict == "ok" for check in each.checks),
            Column("sha256", "left"): lambda each: (each.sha256 or "")[:16],
        },
    )
    yield Table.of(
        report.targets,
        {
            "variant": lambda each: f"{each.bundle}/{each.variant}",
            "target": lambda each: each.target,
            "engine": lambda each: each.provider,
            "files": lambda each: len(each.files),
            "largest difference": lambda each: None if each.parity is None else f"{each.parity.max_abs_diff:.2g}",
        },
    )


def _data_uri(image: Uint8) -> str:
    cv2 = require("cv2", needed_by="fer-edge demo", extra="cpu")
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not encoded:
        raise OutputError("JPEG: got an OpenCV that cannot encode it, expected one that can; install another OpenCV")
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
