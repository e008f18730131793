"""What every reader returns: labelled grey faces by split, read-only, with the hash of what was read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fer_edge.core.errors import InputError
from fer_edge.core.labels import CKPLUS_EMOTIONS, EXPRESSIONS, FERPLUS_VOTES
from fer_edge.core.types import Array, Int64, Uint8

__all__ = ["ROLES", "Dataset", "Role", "StillSet"]

Role: TypeAlias = Literal["train", "choose", "report"]
ROLES: Final[tuple[Role, ...]] = ("train", "choose", "report")
"""What a split is for: fitting weights, choosing anything at all, and reporting once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StillSet:
    """One split of labelled faces. All arrays are read-only views; images may be memory-mapped.

    Attributes:
        name: the split's own name, for example ``"PublicTest"``.
        images: uint8 (N, H, W) grey.
        labels: int64 (N,), index into `expressions`.
        rows: int64 (N,), the row's number in the official file, or the running number where there is none.
        votes: uint8 (N, 10) FER+ votes in the order of `FERPLUS_VOTES`, where the source has them.
        groups: str (N,), the subject, where the source names it.
        expressions: what the labels mean.

    Raises:
        InputError: an array of another dtype, shape or length, or a label outside the expressions.
    """

    name: str
    images: Uint8
    labels: Int64
    rows: Int64
    votes: Uint8 | None = None
    groups: npt.NDArray[np.str_] | None = None
    expressions: tuple[str, ...] = EXPRESSIONS

    def __post_init__(self) -> None:
        count = len(self.images)
        for name, kind, shape in (
            ("images", np.uint8, (count, *self.images.shape[1:3])),
            ("labels", np.int64, (count,)),
            ("rows", np.int64, (count,)),
            ("votes", np.uint8, (count, len(FERPLUS_VOTES))),
            ("groups", np.str_, (count,)),
        ):
            array = getattr(self, name)
            if array is None and name in ("votes", "groups"):
                continue
            if not np.issubdtype(array.dtype, kind) or array.shape != shape or (name == "images" and array.ndim != 3):
                raise InputError(
                    f"split {self.name!r}: {name} are {array.dtype} {array.shape}, "
                    f"expected {kind.__name__} {shape if name != 'images' else '(N, H, W)'}"
                )
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.expressions):
            raise InputError(f"split {self.name!r}: labels outside 0 to {len(self.expressions) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 over images, labels and rows: the same pixels give the same hash, whatever file they came in.

        Labels that do not mean `EXPRESSIONS` give another hash, by their names.
        """
        digest = hashlib.sha256()
        if self.expressions != EXPRESSIONS:
            digest.update(f"{' '.join(self.expressions)}\n".encode())
        for array in (self.images, self.labels.astype("<i8"), self.rows.astype("<i8")):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data if array.size else b"")
        return digest.hexdigest()

    def subset(self, index: Array) -> StillSet:
        """The stills at `index` (int positions or a bool mask, (N,)), copied into memory."""
        return StillSet(
            name=self.name,
            images=np.asarray(self.images[index]),
            labels=self.labels[index],
            rows=self.rows[index],
            votes=None if self.votes is None else self.votes[index],
            groups=None if self.groups is None else self.groups[index],
            expressions=self.expressions,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set as read: its splits, and which split serves which role.

    Attributes:
        name: ``"fer2013"``, ``"ckplus"``, ``"folder"`` or ``"synthetic"``.
        source: the spec as given to `load_dataset`.
        layout: the shape in which the data was found, for example ``"csv"``.
        splits: split name -> stills.
        roles: role -> split name; a role that the source cannot serve is absent.
        note: what a reader of the numbers should know: what was left out, what the source does not say.
        cache: the folder the arrays are mapped from; None where they were decoded into memory.
    """

    name: str
    source: str
    layout: str
    splits: Mapping[str, StillSet]
    roles: Mapping[Role, str] = field(default_factory=dict)
    note: str = ""
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if name != split.name:
                raise InputError(f"{self.source}: split {split.name!r} stands under the name {name!r}")
        for role, name in self.roles.items():
            if role not in ROLES or name not in self.splits:
                raise InputError(
                    f"{self.source}: role {role!r} points at {name!r}, expected one of {list(self.splits)}"
                )
        if len({split.expressions for split in self.splits.values()}) > 1:
            raise InputError(f"{self.source}: its splits are labelled with different expressions")

    @property
    def expressions(self) -> tuple[str, ...]:
        """What the labels of every split mean."""
        return next((split.expressions for split in self.splits.values()), EXPRESSIONS)

    def expect_expressions(self, wanted: tuple[str, ...], *, of: str) -> None:
        """Refuse labels that mean something else than a network's outputs do.

        Args:
            wanted: the network's labels, in output order.
            of: the network, for the message.

        Raises:
            InputError: saying both.
        """
        if self.expressions != wanted:
            cure = " Leave out ?labels=official." if self.expressions == CKPLUS_EMOTIONS else ""
            raise InputError(
                f"{self.source} is labelled with {', '.join(self.expressions)}, and {of} tells apart "
                f"{', '.join(wanted)}: their figures would mean nothing.{cure}"
            )

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 over the splits' names and hashes."""
        lines = (f"{name} {split.sha256}\n" for name, split in sorted(self.splits.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def split(self, role: Role) -> StillSet:
        """The split that serves `role`.

        Raises:
            InputError: the source has no split for it; the message names what there is.
        """
        if role not in self.roles:
            held = ", ".join(f"{name} ({len(split):,})" for name, split in self.splits.items())
            because = f" {self.note}" if self.note else ""
            raise InputError(f"{self.source} has no split to {role} on; it holds {held}.{because}")
        return self.splits[self.roles[role]]
