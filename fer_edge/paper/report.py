"""The study as Markdown, and the one function that writes its JSON, Markdown and drawings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from fer_edge.core.errors import OutputError
from fer_edge.core.files import write_atomic
from fer_edge.core.tables import Table
from fer_edge.paper.ckplus_table import ckplus_table
from fer_edge.paper.published import PAPER, WHY_THEY_DIFFER
from fer_edge.paper.report_plots import DRAWINGS, draw_study
from fer_edge.paper.report_tables import (
    ablation_table,
    comparison_table,
    cost_table,
    expression_table,
    gain_table,
    lstm_table,
    probability,
    rank_table,
    robustness_table,
    size_table,
)
from fer_edge.paper.statistics import ALPHA
from fer_edge.paper.summary import PairSummary, StudyReport

__all__ = ["JSON_NAME", "MARKDOWN_NAME", "render_study", "verdict", "write_study"]

JSON_NAME: Final = "study.json"
MARKDOWN_NAME: Final = "README.md"

# What a system lacks, as a sentence names it.
_PARTS: Final[Mapping[str, str]] = {
    "no-features": "Feature extraction",
    "no-attention": "Attention",
    "no-reconstruction": "Reconstruction (the DenseNet block)",
    "no-lda": "LDA",
    "no-centre-loss": "The centre loss",
    "no-median": "The median filter",
    "no-gcn": "Contrast normalisation",
    "no-preprocessing": "Preprocessing (median filter and normalisation)",
}

_CAPTIONS: Final[Mapping[str, str]] = {
    "critical-differences.png": "Mean ranks with the critical difference",
    "confusion-matrices.png": "Confusion matrices: rows are labels, columns predictions, per cent of the row",
    "expressions.png": "Recognition rate of each expression",
    "differences.png": "Differences from the complete system with their intervals",
    "lstm-parameters.png": "Settings of the LSTM against the complete system's",
    "preprocessing.png": "Accuracy under noise and in poor light",
}


def write_study(report: StudyReport, folder: str | os.PathLike[str], *, drawings: bool = True) -> None:
    """Write ``study.json``, ``README.md`` and the drawings into a folder, over an earlier study's.

    Everything is rendered before the first file is written, each file is written atomically, and the JSON comes last.
    Other files in the folder stay as they are, but for drawings that this study has no figures for.

    Raises:
        OutputError: the folder cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    place = Path(folder)
    drawn = draw_study(report) if drawings else {}
    page = render_study(report, drawn)
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, data in drawn.items():
        write_atomic(place / name, data)
    for name in DRAWINGS.keys() - drawn.keys():
        try:
            (place / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove the outdated {place / name}: {error.strerror or error}") from error
    write_atomic(place / MARKDOWN_NAME, page.encode())
    write_atomic(place / JSON_NAME, text.encode())


def render_study(report: StudyReport, drawn: Iterable[str] = ()) -> str:
    """The study's page in Markdown.

    Args:
        report: the study.
        drawn: names of the drawings that lie beside the page.
    """
    pictures = set(drawn)
    sections = [
        "# The paper's tables, measured",
        _introduction(report),
        "## Table 1: what each part brings",
        _verdicts(report, "tables", ablations=True),
        ablation_table(report, group="tables").to_markdown(),
        "### Beyond the paper",
        _verdicts(report, "beyond", ablations=True),
        ablation_table(report, group="beyond").to_markdown(),
        *_picture("differences.png", pictures),
        "## Tables 2 and 3: the systems",
        _verdicts(report, "tables", ablations=False),
        comparison_table(report).to_markdown(),
        *_optional("### Ranks", rank_table(report)),
        *_picture("critical-differences.png", pictures),
        "## The role of LSTM parameters",
        lstm_table(report).to_markdown(),
        *_picture("lstm-parameters.png", pictures),
        "## The paper's input size",
        size_table(report).to_markdown(),
        "## Recognition rates by expression",
        expression_table(report).to_markdown(),
        *_picture("expressions.png", pictures),
        *_picture("confusion-matrices.png", pictures),
        *_preprocessing(report, pictures),
        "## CK+",
        *(ckplus_table(each).to_markdown() for each in report.ckplus),
        "## Why our figures differ from the paper's",
        WHY_THEY_DIFFER,
    ]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def verdict(pair: PairSummary, *, title: str) -> str:
    """One sentence: does the part that a system lacks help, or does the complete system beat another, and how sure?

    A part helps where the complete system is better with its whole interval above 0 and p below 0.05 after Holm's
    correction. Anything else is said plainly.
    """
    difference, low, high = (0.0 - end for end in (pair.report.difference, pair.report.high, pair.report.low))
    part = _PARTS.get(pair.system)
    subject = part or "The complete system"
    better, worse, even = ("helps", "harms", "does not help") if part else (
        f"beats {title}", f"is beaten by {title}", f"does not beat {title}"
    )  # fmt: skip
    if low > 0 and pair.p_holm < ALPHA:
        said = better
    elif low > 0:
        said = f"{even} for certain: the interval alone leaves 0 out, but not after Holm's correction"
    elif high < 0:
        said = f"{worse}, by these images" + ("" if pair.p_holm < ALPHA else ", though not after Holm's correction")
    else:
        said = f"{even} measurably: the interval holds 0"
    figures = (
        f"{100 * difference:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}], p {probability(pair.p_holm)}, "
        f"n = {pair.report.n:,}, {_seeds(pair)}"
    )
    return f"**{subject}** {said} ({figures})."


def _seeds(pair: PairSummary) -> str:
    if len(pair.seeds) == 1:
        return "one seed"
    by_seed = pair.report.by_seed
    disagree = by_seed and min(by_seed) < 0 < max(by_seed)
    return f"{len(pair.seeds)} seeds" + (", which disagree in the sign" if disagree else "")


def _verdicts(report: StudyReport, family: str, *, ablations: bool) -> str:
    titles = {row.name: row.title for row in report.systems}
    pairs = [pair for pair in report.pairs if pair.family == family and (pair.system in _PARTS) == ablations]
    return "\n".join(f"- {verdict(pair, title=titles[pair.system])}" for pair in pairs)


def _introduction(report: StudyReport) -> str:
    protocol, device = report.protocol, report.device
    splits: Mapping[str, Any] = protocol.data.get("splits", {})
    held = ", ".join(f"{name} {facts['rows']:,}" for name, facts in splits.items())
    if protocol.report is None:
        used = f"Rows are reported on {protocol.choose}: there is no other split."
    else:
        used = (
            f"Rows are reported on {protocol.report}, which nothing was chosen on; what was chosen was chosen on "
            f"{protocol.choose}."
        )
    made = "" if report.command is None else f" Made by `{report.command}`."
    points = [
        f"**Same for all rows:** recipe `{protocol.recipe_name}` ({protocol.epochs} epochs, "
        f"{protocol.input_size}x{protocol.input_size} pixels but where a row says otherwise); seeds "
        f"{_list(protocol.seeds)} for Tables 1 to 3, {_list(protocol.extra_seeds)} beyond them.",
        f"**Data:** {held} faces. {used}",
        "**How sure:** intervals come from resampling images (paired, seeds averaged), so they speak of other images "
        "for these trained networks. Of other trainings only the sd over seeds speaks; of one seed, nothing does.",
        f"**Where:** {device.get('cpu', 'unknown processor')}, {device.get('cores', '?')} cores, "
        f"{report.created[:10]}.",
        *_unfinished(report),
    ]
    return (
        f"Every system of the tables of {PAPER}, trained and evaluated under one protocol; `{JSON_NAME}` holds every "
        f"figure on this page and more.{made}\n\n" + "\n".join(f"- {point}" for point in points)
    )


def _unfinished(report: StudyReport) -> list[str]:
    waiting = [row.title for row in report.not_run]
    short = [row.title for row in report.systems if set(row.planned_seeds) - set(row.seeds)]
    said = [
        f"{what}: {', '.join(names)}"
        for what, names in (("not one training yet", waiting), ("seeds to come", short))
        if names
    ]
    return [f"**Unfinished:** {'; '.join(said)}."] if said else []


def _preprocessing(report: StudyReport, pictures: set[str]) -> list[str]:
    measured = report.preprocessing
    heading = "## Preprocessing under noise and in poor light"
    if measured is None:
        return [heading, "Not measured yet."]
    return [
        heading,
        robustness_table(measured).to_markdown(),
        *_picture("preprocessing.png", pictures),
        *_optional("### What each part brings", gain_table(measured) if measured.gains else None),
        *_optional("### What it costs", cost_table(measured)),
    ]


def _optional(heading: str, table: Table | None) -> list[str]:
    return [] if table is None else [heading, table.to_markdown()]


def _picture(name: str, pictures: set[str]) -> list[str]:
    return [f"![{_CAPTIONS[name]}]({name})"] if name in pictures else []


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
