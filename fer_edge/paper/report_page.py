"""The study's page in Markdown, and the function that writes JSON, page and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from fer_edge.core.files import write_atomic, writing
from fer_edge.core.tables import Table
from fer_edge.paper.analysis import ALPHA
from fer_edge.paper.report import PairSummary, StudyReport
from fer_edge.paper.report_plots import PLOTS, draw_study
from fer_edge.paper.report_tables import (
    ablation_table,
    ckplus_table,
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
from fer_edge.paper.systems import PAPER, WHY_THEY_DIFFER

__all__ = ["JSON_NAME", "MARKDOWN_NAME", "render_study", "verdict", "write_study"]

JSON_NAME: Final = "study.json"
MARKDOWN_NAME: Final = "README.md"

# The part that a system lacks, as the subject of a sentence.
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
    "expressions.png": "Recall of each expression",
    "differences.png": "Differences from the complete system with their intervals",
    "lstm-parameters.png": "Settings of the LSTM against the complete system's",
    "preprocessing.png": "Accuracy under noise and in poor light",
}


def write_study(report: StudyReport, folder: Path, *, plots: bool = True) -> None:
    """Write ``study.json``, ``README.md`` and the plots into a folder, over an earlier study's.

    Everything is rendered before the first file is written, each file is written atomically, and the JSON comes last.
    Of other files only plots that this study has no figures for are removed.

    Raises:
        OutputError: the folder cannot be written.
        MissingPackageError: matplotlib is not installed.
    """
    drawn = draw_study(report) if plots else {}
    page = render_study(report, drawn)
    for name, data in drawn.items():
        write_atomic(folder / name, data)
    for name in PLOTS.keys() - drawn.keys():
        with writing(folder / name):
            (folder / name).unlink(missing_ok=True)
    write_atomic(folder / MARKDOWN_NAME, page.encode())
    report.write(folder / JSON_NAME)


def render_study(report: StudyReport, drawn: Iterable[str] = ()) -> str:
    """Render the page in Markdown, with the plots whose file names are in `drawn`."""
    plots = set(drawn)
    sections = [
        "# The paper's tables, measured",
        _introduction(report),
        "## Table 1: the gain of each part",
        _verdicts(report, "tables", ablations=True),
        ablation_table(report, group="tables").to_markdown(),
        "### Beyond the paper",
        _verdicts(report, "beyond", ablations=True),
        ablation_table(report, group="beyond").to_markdown(),
        *_plot("differences.png", plots),
        "## Tables 2 and 3: the systems",
        _verdicts(report, "tables", ablations=False),
        comparison_table(report).to_markdown(),
        *_optional("### Ranks", rank_table(report)),
        *_plot("critical-differences.png", plots),
        "## The role of LSTM parameters",
        lstm_table(report).to_markdown(),
        *_plot("lstm-parameters.png", plots),
        "## The paper's input size",
        size_table(report).to_markdown(),
        "## Recall by expression",
        expression_table(report).to_markdown(),
        *_plot("expressions.png", plots),
        *_plot("confusion-matrices.png", plots),
        *_preprocessing(report, plots),
        "## CK+",
        *(ckplus_table(each).to_markdown() for each in report.ckplus),
        "## Why our figures differ from the paper's",
        WHY_THEY_DIFFER,
    ]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def verdict(pair: PairSummary, *, title: str) -> str:
    """Return one sentence: whether the part that a system lacks helps, or the complete system beats another.

    A part helps if the whole interval is above 0 and p is below 0.05 after Holm's correction.
    """
    difference, low, high = (0.0 - end for end in (pair.report.difference, pair.report.high, pair.report.low))
    part = _PARTS.get(pair.system)
    better, worse, even = ("helps", "harms", "does not help") if part else (
        f"beats {title}", f"is beaten by {title}", f"does not beat {title}"
    )  # fmt: skip
    significant = pair.p_holm < ALPHA
    if low > 0 and significant:
        finding = better
    elif low > 0:
        finding = f"{even} significantly: the interval excludes 0, but p is above {ALPHA:g} after Holm's correction"
    elif high < 0:
        finding = f"{worse} on these images" + ("" if significant else ", but not after Holm's correction")
    else:
        finding = f"{even} measurably: the interval contains 0"
    figures = (
        f"{100 * difference:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}], p {probability(pair.p_holm)}, "
        f"n = {pair.report.n:,}, {_seeds(pair)}"
    )
    return f"**{part or 'The complete system'}** {finding} ({figures})."


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
    faces = ", ".join(f"{name} {facts['rows']:,}" for name, facts in splits.items())
    if protocol.report is None:
        used = f"Rows are reported on {protocol.choose}: there is no other split."
    else:
        used = f"Rows are reported on {protocol.report}; every choice was made on {protocol.choose}."
    command = "" if report.command is None else f" Made by `{report.command}`."
    points = [
        f"**Same for all rows:** recipe `{protocol.recipe_name}` ({protocol.epochs} epochs, "
        f"{protocol.input_size}x{protocol.input_size} pixels except where a row says otherwise); seeds "
        f"{_list(protocol.seeds)} for Tables 1 to 3, {_list(protocol.extra_seeds)} beyond them.",
        f"**Data:** {faces} faces. {used}",
        "**Uncertainty:** intervals come from resampling images (paired, seeds averaged), so they cover other images "
        "for these trained networks. Only the sd over seeds covers other trainings; one seed covers none.",
        f"**Machine:** {device.get('cpu', 'unknown processor')}, {device.get('cores', '?')} cores, "
        f"{report.created[:10]}.",
        *_unfinished(report),
    ]
    return (
        f"Every system of the tables of {PAPER}, trained and evaluated under one protocol; `{JSON_NAME}` holds every "
        f"figure on this page and more.{command}\n\n" + "\n".join(f"- {point}" for point in points)
    )


def _unfinished(report: StudyReport) -> list[str]:
    waiting = [row.title for row in report.not_run]
    short = [row.title for row in report.systems if set(row.planned_seeds) - set(row.seeds)]
    parts = [
        f"{what}: {', '.join(names)}"
        for what, names in (("no training yet", waiting), ("seeds to come", short))
        if names
    ]
    return [f"**Unfinished:** {'; '.join(parts)}."] if parts else []


def _preprocessing(report: StudyReport, plots: set[str]) -> list[str]:
    measured = report.preprocessing
    heading = "## Preprocessing under noise and in poor light"
    if measured is None:
        return [heading, "Not measured yet."]
    return [
        heading,
        robustness_table(measured).to_markdown(),
        *_plot("preprocessing.png", plots),
        *_optional("### The gain of each part", gain_table(measured) if measured.gains else None),
        *_optional("### The cost of each part", cost_table(measured)),
    ]


def _optional(heading: str, table: Table | None) -> list[str]:
    return [] if table is None else [heading, table.to_markdown()]


def _plot(name: str, plots: set[str]) -> list[str]:
    return [f"![{_CAPTIONS[name]}]({name})"] if name in plots else []


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
