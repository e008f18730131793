"""A sweep as tables, for the terminal and as Markdown; both are drawn from its report alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fer_edge.core.files import write_atomic
from fer_edge.core.tables import Table, megabytes, percent
from fer_edge.sweep.report import SweepReport

__all__ = ["MARKDOWN_NAME", "PICTURE_NAME", "peer_table", "point_table", "render_page", "write_page"]

MARKDOWN_NAME: Final = "pareto.md"
PICTURE_NAME: Final = "pareto.png"


def point_table(report: SweepReport) -> Table:
    """Every point by x, those of the front marked."""
    columns = ("network", "provider", "front", "x", "x min", "ms", "MB", "k param", "top-1 %", "unleaked %", "ECE")
    rows = [
        (
            point.name,
            point.provider,
            "●" if point.front else None,
            f"{point.x:.3f}",
            f"{point.x_of_minima:.3f}",
            f"{point.ms_p50:.3f}",
            megabytes(point.graph_bytes),
            f"{point.parameters / 1000:,.0f}",
            percent(point.top1),
            percent(point.top1_without_leaked),
            f"{point.ece:.4f}",
        )
        for point in report.points
    ]
    caption = (
        "●: no other point is as accurate and as fast. x: encoder + head on one frame over the reference CNN, all "
        "points of a provider interleaved in one run; x min: the fastest call over the reference's fastest.\n"
        f"ms: the same, p50, {report.threads} thread{'s' * (report.threads != 1)}. top-1 on {report.dataset} "
        f"{report.split} ({report.n:,} rows), and without the rows that also stand in the training split."
    )
    return Table(columns=columns, rows=rows, caption=caption)


def peer_table(report: SweepReport) -> Table | None:
    """Others' models by x, each with the point that beats it; None where there is none."""
    if not report.peers:
        return None
    columns = ("others' model", "x", "top-1 %", "k param", "as accurate, as fast")
    rows = [
        (peer.name, f"{peer.x:.2f}", percent(peer.top1), f"{peer.parameters / 1000:,.0f}", peer.beaten_by)
        for peer in report.peers
    ]
    notes = "; ".join(f"{peer.name}: {peer.note}" for peer in report.peers if peer.note)
    caption = (
        f"Measured {report.peers_measured}, on another machine (bench/peers.toml); top-1 on {report.split}. Last "
        "column: the most accurate point that is at least as accurate and at most as slow."
        f"{' ' if notes else ''}{notes}"
    )
    return Table(columns=columns, rows=rows, caption=caption)


def render_page(report: SweepReport, *, picture: bool) -> str:
    """The Markdown page.

    Args:
        report: the sweep.
        picture: whether `PICTURE_NAME` stands beside it.
    """
    parts = [f"# Sweep: {report.recipe_name}"]
    if report.command:
        parts.append(f"`{report.command}`")
    parts.append(_circumstances(report))
    if report.busy:
        parts.append(f"**{report.busy}**")
    if picture:
        parts.append(f"![Accuracy against x]({PICTURE_NAME})")
    parts.append(point_table(report).to_markdown().rstrip())
    others = peer_table(report)
    if others is not None:
        parts.append(others.to_markdown().rstrip())
    if report.missing:
        parts.append("Not among the points:")
        parts.append("\n".join(f"- {' '.join(line.split())}" for line in report.missing))
    return "\n\n".join(parts) + "\n"


def write_page(report: SweepReport, folder: Path, *, picture: bool) -> None:
    """Write the page and, where it is wanted, the picture.

    Raises:
        OutputError: one cannot be written.
        MissingPackageError: the picture is wanted and matplotlib is not installed.
    """
    if picture:
        from fer_edge.sweep.pareto_plot import draw_front

        write_atomic(folder / PICTURE_NAME, draw_front(report))
    write_atomic(folder / MARKDOWN_NAME, render_page(report, picture=picture).encode())


def _circumstances(report: SweepReport) -> str:
    cpu, cores = report.device.get("cpu"), report.device.get("cores")
    runs = [
        f"{each.provider}: {each.rounds} rounds of {each.per_round}, reference CNN {each.reference_ms_p50:.3f} ms, "
        f"load at start {'unknown' if each.load_at_start is None else f'{each.load_at_start:g}'}"
        for each in report.measurements
    ]
    return f"Measured {report.created} on {cpu}, {cores} cores. {'; '.join(runs)}."
