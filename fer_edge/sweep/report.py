"""What a sweep says: its points, the front among them, and others' models beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from fer_edge.bench.peers import PeerTable
from fer_edge.bench.report import BenchReport, ReferenceResult, VariantResult
from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, write_json
from fer_edge.core.json import decode, encode, expect
from fer_edge.data.dataset import Role
from fer_edge.sweep.grid import Axes

__all__ = [
    "SCHEMA",
    "Measurement",
    "PeerPoint",
    "SweepPoint",
    "SweepReport",
    "front_of",
    "measurement_of",
    "peer_points",
    "point_of",
]

SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One network in one precision on one provider; rates are fractions.

    Attributes:
        network: the bundle's name.
        sha256: of the bundle's manifest.
        variant: the bundle's variant.
        precision: of its graphs.
        provider: what ran it.
        provider_version: the same with its version.
        axes: where in the grid the network stands.
        x: encoder + head at T = 1 over the reference CNN, of the interleaved run of its provider.
        x_quartiles: of the same, over the rounds.
        x_of_minima: the fastest call over the reference's fastest: far from x where the machine was busy.
        ms_p50: encoder + head at T = 1.
        graph_bytes: encoder + head.
        parameters: encoder + head.
        macs: encoder for one frame and head for one window; None where not known.
        top1: on all rows of the split.
        top1_without_leaked: without rows that also stand in the training split.
        ece: expected calibration error, after temperature.
        front: whether no other point is at least as accurate and at least as fast, and better in one of both.
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
        """As tables and pictures call it."""
        return f"{self.network}/{self.variant}"


@dataclass(frozen=True, kw_only=True)
class PeerPoint:
    """Somebody else's model, measured elsewhere.

    Attributes:
        name: of the model.
        source: whose it is.
        x: its time over the reference CNN's, on another machine.
        top1: on the same split as the points', a fraction.
        parameters: how many.
        note: what to know of it.
        beaten_by: the most accurate point that is at most as slow, if it is at least as accurate; None where none is.
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
    """The interleaved run that all points of one provider come from.

    Attributes:
        provider: the provider.
        created: when.
        reference_ms_p50: the reference CNN's time in it.
        rounds: visits of every point.
        per_round: samples at each visit.
        load_at_start: the machine's load average.
    """

    provider: str
    created: str
    reference_ms_p50: float
    rounds: int
    per_round: int
    load_at_start: float | None


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """A whole sweep.

    Attributes:
        created: ISO 8601 time.
        command: what was run; None where the library was called.
        recipe_name: the recipe's name or path.
        recipe: what it said.
        device: the machine.
        measurements: one a provider.
        role: which split was measured on: ``"choose"`` or ``"report"``.
        dataset: the data set's name.
        split: the split's name.
        split_sha256: of the split.
        n: its rows.
        threads: of every session.
        points: sorted by x.
        peers: sorted by x; empty where they were left out, or measured on another data set.
        missing: what of the recipe is not among the points, and why.
    """

    schema: int = SCHEMA
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
        expect(self.schema == SCHEMA, "schema", self.schema, str(SCHEMA))
        expect(bool(self.points), "points", self.points, "at least one")

    @property
    def front(self) -> tuple[SweepPoint, ...]:
        """The points of the front, from the fastest to the most accurate."""
        return tuple(point for point in self.points if point.front)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON.

        Raises:
            OutputError: it cannot be written; what stood there is untouched.
        """
        write_json(Path(path), encode(self))

    @property
    def busy(self) -> str | None:
        """A warning where the machine had other work: the medians of x then mean little."""
        cores = self.device.get("cores")
        loads = [each.load_at_start for each in self.measurements if each.load_at_start is not None]
        if not loads or not isinstance(cores, int) or max(loads) < 0.5 * cores:
            return None
        return (
            f"The machine was busy (load {max(loads):g} on {cores} cores). Other work interrupts long calls and spares "
            "short ones, so that x itself is off, above all where the fastest calls give another; measure again on an "
            "idle machine."
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SweepReport:
        """Read a sweep's JSON.

        Raises:
            InputError: the file is missing, no JSON, or no sweep's.
        """
        try:
            return decode(cls, read_json(Path(path)))
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from error


def front_of(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """Which of the points (x, accuracy) no other one dominates: less x is better, and more accuracy.

    Two equal points are both on the front or both off it.
    """

    def dominated(x: float, accuracy: float) -> bool:
        return any(
            other_x <= x and other >= accuracy and (other_x, other) != (x, accuracy) for other_x, other in points
        )

    return tuple(not dominated(x, accuracy) for x, accuracy in points)


def point_of(result: VariantResult, reference: ReferenceResult, axes: Axes) -> SweepPoint:
    """A variant's measurement as a point, not yet told whether it is on the front.

    Raises:
        InputError: no accuracy was measured.
    """
    if result.accuracy is None or result.accuracy.recorded:
        raise InputError(f"{result.bundle}/{result.name} was measured without data; a sweep needs its accuracy")
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
    """What a benchmark says of its circumstances."""
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
    """The peers that have a score on the role's split, and which of the points beats each."""
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
