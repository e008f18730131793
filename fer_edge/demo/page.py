"""The demonstration's report: one page that loads nothing from elsewhere but the video and the page beside it."""

from __future__ import annotations

from fer_edge.core.types import Uint8

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import OutputError, require
from fer_edge.core.files import write_atomic
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.tables import Table

if TYPE_CHECKING:
    from fer_edge.demo.run import DemoReport

__all__ = ["render_demo_page", "synthetic_table", "write_demo_page"]

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } .wide { overflow-x: auto; }
.note { color: #555; white-space: pre-line; } img { max-width: 100%; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 0.5rem; }
figure { margin: 0; } figcaption { color: #555; font-size: 0.9rem; }
"""


def write_demo_page(
    report: DemoReport, *, measured: Sequence[Table], strip: Sequence[Uint8], path: Path
) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(path, render_demo_page(report, measured=measured, strip=strip).encode())


def render_demo_page(report: DemoReport, *, measured: Sequence[Table], strip: Sequence[Uint8]) -> str:
    """The page's HTML.

    Args:
        report: what was found.
        measured: the benchmark's tables.
        strip: one annotated frame of each expression in their order, uint8 (H, W, 3) BGR.
    """
    parts = [
        "<h1>fer-edge demo</h1>",
        "<p>Every face here is drawn by a program from a seed: no person is shown.</p>",
        *_measured(measured),
        *_clip(report, strip),
        "<h2>Made-up faces</h2>",
        '<p><img src="faces.png" alt="Three drawn people, each with the seven expressions"></p>',
        *_synthetic(report),
        *_verified(report),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>fer-edge demo</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def synthetic_table(report: DemoReport) -> Table:
    """Tabulate the accuracy on drawn faces, in per cent."""
    rows = [
        (
            f"{each.bundle}/{each.variant}",
            f"{100 * each.report.top1:.1f}",
            f"{100 * each.report.macro_f1:.1f}",
            *(f"{100 * each.report.per_class.get(name, 0.0):.0f}" for name in EXPRESSIONS),
        )
        for each in report.synthetic
    ]
    return Table(columns=("variant", "top-1 %", "macro-F1 %", *(f"{name} %" for name in EXPRESSIONS)), rows=rows)


def _measured(tables: Sequence[Table]) -> list[str]:
    return [
        "<h2>Speed, size and accuracy</h2>",
        *(table.to_html() for table in tables),
        '<p>Plots, tails and the machine: <a href="bench.html">bench.html</a>.</p>',
    ]


def _clip(report: DemoReport, strip: Sequence[Uint8]) -> list[str]:
    outcome = report.clip
    info, summary = outcome.summary.info, outcome.summary
    figures = "".join(
        f'<figure><img src="{_data_uri(image)}" alt="{name}"><figcaption>drawn: {name}</figcaption></figure>'
        for name, image in zip(EXPRESSIONS, strip, strict=False)
    )
    text = (
        f"{info.bundle}/{info.variant} on {info.provider_version}: {summary.frames} frames, the face found and "
        f"followed in {summary.frames_with_face}. Of the {outcome.frames_judged} in which an expression was shown, it "
        f"was the one given in {outcome.frames_agreeing}; the window makes a change show some frames late."
    )
    return [
        "<h2>A driver's face over time</h2>",
        f"<p>{html.escape(text)}</p>",
        '<p>The whole clip: <a href="clip.mp4">clip.mp4</a>.</p>',
        f'<div class="strip">{figures}</div>',
    ]


def _synthetic(report: DemoReport) -> list[str]:
    note = (
        f"Accuracy on {report.synthetic[0].report.n} drawn faces that no network was trained on. It shows that the "
        "chain works and that INT8 keeps what FP32 says; it is no estimate of the accuracy on people."
    )
    return [f'<p class="note">{note}</p>', synthetic_table(report).to_html()]


def _verified(report: DemoReport) -> list[str]:
    checked = [
        (each.path, str(sum(check.verdict == "ok" for check in each.checks)), (each.sha256 or "")[:16])
        for each in report.verified
    ]
    exported = [
        (
            f"{each.bundle}/{each.variant}",
            each.target,
            each.provider,
            str(len(each.files)),
            None if each.parity is None else f"{each.parity.max_abs_diff:.2g}",
        )
        for each in report.targets
    ]
    return [
        "<h2>Verified and exported</h2>",
        Table(columns=("bundle", "checks passed", "sha256"), rows=checked).to_html(),
        Table(columns=("variant", "target", "engine", "files", "largest difference"), rows=exported).to_html(),
    ]


def _data_uri(image: Uint8) -> str:
    cv2 = require("cv2", needed_by="the demonstration's report", extra="cpu")
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not encoded:
        raise OutputError("OpenCV cannot encode JPEG, which the demonstration's report holds")
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
