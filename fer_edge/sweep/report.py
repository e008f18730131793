"""The report of a sweep: its points, their front, models of others; as JSON, tables and a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from fer_edge.bench.peers import PeerTable
from fer_edge.bench.report import BenchReport, ReferenceResult, VariantResult
from fer_edge.core.errors import InputError
from fer_edge.core.json import expect
from fer_edge.core.json_report import JsonReport
from fer_edge.core.tables import Column, Table, megabytes, percent
from fer_edge.data.dataset import Role
from fer_edge.sweep.grid import Axes

__all__ = [
    "PLOT_NAME",
    "Measurement",
    "PeerPoint",
    "SweepPoint",
    "SweepReport",
    "mark_front",
    "measurement_of",
    "peer_points",
    "peer_table",
    "point_of",
    "point_table",
    "render_page",
]

PLOT_NAME: Final = "pareto.png"
"""File name of the plot beside a page."""

_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One network in one precision on one provider; rates are fractions.

    Attributes:
        network: the bundle's name; `sha256` is of its manifest.
        axes: the network's coordinates in the grid.
        x: encoder + head at T = 1 over the reference CNN, from the interleaved run of its provider.
        x_quartiles: of x, over the rounds.
        x_of_minima: the fastest call over the reference's fastest; far from x on a busy machine.
        ms_p50, graph_bytes, parameters: of encoder + head at T = 1.
        macs: encoder for one frame and head for one window; None where unknown.
        top1: on all rows of the split; `top1_without_leaked` without rows that are also in the training split.
        ece: expected calibration error, after temperature.
        front: whether no other point is at least as accurate and as fast, and better in one of both.
    """

    network: str
    sha256: str
    variant: str
    precision: str
    provider: str
    provider_version: str
    axes: Axes = field(default_factory=Axes)
    x: float
    x_quartiles: tuple[float, ...]
    x_of_minima: float
    ms_p50: float
    graph_bytes: int
    parameters: int
    macs: int | None
    top1: float
    top1_without_leaked: float | None
    ece: float
    front: bool = False

    @property
    def name(self) -> str:
        """Network and variant, for tables and plots."""
        return f"{self.network}/{self.variant}"


@dataclass(frozen=True, kw_only=True)
class PeerPoint:
    """A model of others, measured elsewhere.

    Attributes:
        x: its latency over the reference CNN's, on another machine.
        top1: on the split of the points, a fraction.
        beaten_by: the most accurate point that is at least as fast and as accurate; None where there is none.
    """

    name: str
    source: str
    x: float
    top1: float
    parameters: int
    note: str | None = None
    beaten_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The interleaved timing run of one provider."""

    provider: str
    created: str
    reference_ms_p50: float
    rounds: int
    per_round: int
    load_at_start: float | None


@dataclass(frozen=True, kw_only=True)
class SweepReport(JsonReport):
    """A whole sweep.

    Attributes:
        device: the machine; one of `measurements` per provider.
        role: of the split: ``"choose"`` or ``"report"``.
        n: rows of the split.
        points, peers: sorted by x; peers are empty where excluded, or scored on another data set.
        missing: networks and variants of the recipe that are not among the points, with the reason.
    """

    schema: int = _SCHEMA
    created: str
    command: str | None
    recipe_name: str
    recipe: Mapping[str, Any]
    device: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    role: Literal["choose", "report"]
    dataset: str
    split: str
    split_sha256: str
    n: int
    threads: int
    points: tuple[SweepPoint, ...]
    peers: tuple[PeerPoint, ...]
    peers_measured: str = "elsewhere"
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expect(self.schema == _SCHEMA, "schema", self.schema, str(_SCHEMA))
        expect(bool(self.points), "points", self.points, "at least one")

    @property
    def front(self) -> tuple[SweepPoint, ...]:
        """The points of the front, from the fastest to the most accurate."""
        return tuple(point for point in self.points if point.front)

    @property
    def busy(self) -> str | None:
        """A warning where the machine was busy during the measurement; None otherwise."""
        cores = self.device.get("cores")
        loads = [each.load_at_start for each in self.measurements if each.load_at_start is not None]
        if not loads or not isinstance(cores, int) or max(loads) < 0.5 * cores:
            return None
        return (
            f"The machine was busy (load {max(loads):g} on {cores} cores). Other work interrupts long calls more than "
            "short ones, so x is biased, above all where it differs from x min; measure again on an idle machine."
        )


def mark_front(points: Iterable[SweepPoint]) -> tuple[SweepPoint, ...]:
    """Sort points by x and mark those that no other point dominates: less x is better, and more top-1.

    Of two equal points both are on the front, or none.
    """
    ordered = sorted(points, key=lambda point: (point.x, point.name, point.provider))

    def dominated(point: SweepPoint) -> bool:
        return any(
            other.x <= point.x and other.top1 >= point.top1 and (other.x, other.top1) != (point.x, point.top1)
            for other in ordered
        )

    return tuple(replace(point, front=not dominated(point)) for point in ordered)


def point_of(result: VariantResult, reference: ReferenceResult, axes: Axes) -> SweepPoint:
    """Return a variant's measurement as a point, not yet marked for the front.

    Raises:
        InputError: no accuracy was measured.
    """
    if result.accuracy is None or result.accuracy.recorded:
        raise InputError(f"{result.bundle}/{result.name}: got no measured accuracy; give the benchmark --data")
    report = result.accuracy.report
    return SweepPoint(
        network=result.bundle,
        sha256=result.sha256,
        variant=result.name,
        precision=result.precision,
        provider=result.provider,
        provider_version=result.provider_version,
        axes=axes,
        x=result.x,
        x_quartiles=result.x_quartiles,
        x_of_minima=result.latency_ms["frame"].min / reference.latency_ms.min,
        ms_p50=result.latency_ms["frame"].p50,
        graph_bytes=result.graph_bytes,
        parameters=result.parameters,
        macs=result.macs,
        top1=report.top1,
        top1_without_leaked=report.top1_without_leaked,
        ece=report.ece,
    )


def measurement_of(report: BenchReport, provider: str) -> Measurement:
    """Return the circumstances of a benchmark."""
    load = report.device.get("load_at_start")
    return Measurement(
        provider=provider,
        created=report.created,
        reference_ms_p50=report.reference.latency_ms.p50,
        rounds=report.timing.rounds,
        per_round=report.timing.per_round,
        load_at_start=float(load) if isinstance(load, (int, float)) else None,
    )


def peer_points(table: PeerTable, points: Sequence[SweepPoint], role: Role) -> tuple[PeerPoint, ...]:
    """Return the peers with a score on the role's split, each with the point that beats it."""
    found = []
    for peer in sorted(table.peer, key=lambda peer: peer.x):
        top1 = peer.top1(role)
        if top1 is None:
            continue
        better = [point for point in points if point.x <= peer.x and point.top1 >= top1]
        best = max(better, key=lambda point: point.top1, default=None)
        found.append(
            PeerPoint(
                name=peer.name,
                source=peer.source,
                x=peer.x,
                top1=top1,
                parameters=peer.parameters,
                note=peer.note,
                beaten_by=None if best is None else f"{best.name} {best.provider}",
            )
        )
    return tuple(found)


def point_table(report: SweepReport) -> Table:
    """Build the table of points, sorted by x."""
    caption = (
        "●: no other point is as accurate and as fast. x: encoder + head on one frame over the reference CNN, all "
        "points of a provider interleaved in one run; x min: the fastest call over the reference's fastest.\n"
        f"ms: the same, p50, {report.threads} thread{'s' * (report.threads != 1)}. top-1: on {report.dataset} "
        f"{report.split} ({report.n:,} rows); unleaked: without the rows that are also in the training split."
    )
    return Table.of(
        report.points,
        {
            "network": lambda point: point.name,
            "provider": lambda point: point.provider,
            Column("front", align="left"): lambda point: "●" if point.front else None,
            "x": lambda point: f"{point.x:.3f}",
            Column("x min", priority=1): lambda point: f"{point.x_of_minima:.3f}",
            Column("ms", priority=2): lambda point: f"{point.ms_p50:.3f}",
            "MB": lambda point: megabytes(point.graph_bytes),
            Column("k param", priority=3): lambda point: f"{point.parameters / 1000:,.0f}",
            "top-1 %": lambda point: percent(point.top1),
            Column("unleaked %", priority=1): lambda point: percent(point.top1_without_leaked),
            Column("ECE", priority=2): lambda point: f"{point.ece:.4f}",
        },
        caption=caption,
    )


def peer_table(report: SweepReport) -> Table | None:
    """Build the table of models of others, sorted by x; None where there are none."""
    if not report.peers:
        return None
    notes = "; ".join(f"{peer.name}: {peer.note}" for peer in report.peers if peer.note)
    caption = (
        f"Measured {report.peers_measured}, on another machine (bench/peers.toml); top-1 on {report.split}. Last "
        "column: the most accurate point that is at least as accurate and as fast."
        f"{' ' if notes else ''}{notes}"
    )
    return Table.of(
        report.peers,
        {
            "model of others": lambda peer: peer.name,
            "x": lambda peer: f"{peer.x:.2f}",
            "top-1 %": lambda peer: percent(peer.top1),
            "k param": lambda peer: f"{peer.parameters / 1000:,.0f}",
            Column("as accurate, as fast", align="left"): lambda peer: peer.beaten_by,
        },
        caption=caption,
    )


def render_page(report: SweepReport, *, plot: bool) -> str:
    """Render the Markdown page, with the plot `PLOT_NAME` where `plot` is set."""
    parts = [f"# Sweep: {report.recipe_name}"]
    if report.command:
        parts.append(f"`{report.command}`")
    parts.append(_circumstances(report))
    if report.busy:
        parts.append(f"**{report.busy}**")
    if plot:
        parts.append(f"![Accuracy against x]({PLOT_NAME})")
    parts.append(point_table(report).to_markdown().rstrip())
    others = peer_table(report)
    if others is not None:
        parts.append(others.to_markdown().rstrip())
    if report.missing:
        parts.append("Not among the points:")
        parts.append("\n".join(f"- {' '.join(line.split())}" for line in report.missing))
    return "\n\n".join(parts) + "\n"


def _circumstances(report: SweepReport) -> str:
    cpu, cores = report.device.get("cpu"), report.device.get("cores")
    runs = [
        f"{each.provider}: {each.rounds} rounds of {each.per_round}, reference CNN {each.reference_ms_p50:.3f} ms, "
        f"load at start {'unknown' if each.load_at_start is None else f'{each.load_at_start:g}'}"
        for each in report.measurements
    ]
    return f"Measured {report.created} on {cpu}, {cores} cores. {'; '.join(runs)}."
