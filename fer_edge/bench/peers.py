"""Other projects' models, measured elsewhere: the table `bench/peers.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fer_edge.core.errors import InputError
from fer_edge.core.recipes import load_recipe
from fer_edge.data.dataset import Role

__all__ = ["PEERS_NAME", "Peer", "PeerTable", "Published", "find_peers", "read_peers"]

PEERS_NAME: Final = Path("bench") / "peers.toml"
"""The table's path in the repository; the package does not contain it."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A model that was timed beside the reference CNN.

    Attributes:
        source: project and weights.
        x: its time over the reference CNN's.
        private_top1: per cent on PrivateTest; None where no valid score exists.
        public_top1: per cent on PublicTest.
        input: height, width and channels.
        ms_p50: median milliseconds on the machine of the measurement.
        ms_min: the least.
    """

    name: str
    source: str
    x: float
    private_top1: float | None = None
    public_top1: float | None = None
    parameters: int
    input: tuple[int, ...]
    ms_p50: float | None = None
    ms_min: float | None = None
    note: str | None = None

    def top1(self, role: Role) -> float | None:
        """Return its top-1 as a fraction on the split that serves `role`; None where it has none."""
        rate = self.private_top1 if role == "report" else self.public_top1
        return None if rate is None else rate / 100


@dataclass(frozen=True, kw_only=True)
class Published:
    """An accuracy that its authors publish: PrivateTest, per cent; neither measured nor timed here."""

    name: str
    source: str
    private_top1: float
    parameters: int | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class PeerTable:
    """Every row, with machine, data and date of the measurement."""

    measured: Literal["elsewhere"]
    date: str
    data: str
    machine: str
    reference_cnn_ms_min: float
    note: str
    peer: tuple[Peer, ...]
    published: tuple[Published, ...] = ()


def find_peers(start: Path | None = None) -> Path:
    """Find the repository's table from `start` (the current folder) upwards, or beside a package run from a checkout.

    Raises:
        InputError: it is in neither.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / PEERS_NAME).is_file() and (folder / "fer_edge").is_dir():
            return folder / PEERS_NAME
    raise InputError(
        f"{PEERS_NAME}: got {here}, expected a folder inside the repository (the installed package has no table); "
        "name a copy with --peers FILE, or leave other models out with --no-peers"
    )


def read_peers(path: Path) -> PeerTable:
    """Read a table, a ``.toml`` file.

    Raises:
        RecipeError: the file is missing or no such table; the message names file, line and field.
    """
    return load_recipe(PeerTable, str(path), room="bench")
