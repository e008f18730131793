"""A data set in memory: labelled grey faces by split, read-only, with a hash of their content."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_edge.core.errors import DataError
from fer_edge.core.label_sets import CKPLUS_EMOTIONS, FERPLUS_VOTES
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Array, Int64, Uint8

__all__ = ["ROLES", "Dataset", "Role", "StillSet"]

Role: TypeAlias = Literal["train", "choose", "report"]
ROLES: Final[tuple[Role, ...]] = ("train", "choose", "report")
"""The purposes of a split: fitting weights, every selection, and the reported figures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StillSet:
    """One split of labelled faces. All arrays are read-only views; images may be memory-mapped.

    Attributes:
        name: the split's own name, for example ``"PublicTest"``.
        images: uint8 (N, H, W) grey.
        labels: int64 (N,), index into `expressions`.
        rows: int64 (N,), row numbers in the official file, or running numbers.
        votes: uint8 (N, 10) FER+ votes in the order of `FERPLUS_VOTES`, or None.
        groups: str (N,), the subject of each image, or None.

    Raises:
        DataError: an array of another dtype, shape or length, or a label outside the expressions.

    Example:
        >>> import numpy as np
        >>> from fer_edge.data import StillSet
        >>> faces = np.zeros((2, 48, 48), np.uint8)
        >>> split = StillSet(name="own", images=faces, labels=np.array([3, 6]), rows=np.arange(2))
        >>> [split.expressions[label] for label in split.labels]
        ['happy', 'neutral']
    """

    name: str
    images: Uint8
    labels: Int64
    rows: Int64
    votes: Uint8 | None = None
    groups: NDArray[np.str_] | None = None
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
                expected = "(N, H, W)" if name == "images" else shape
                raise DataError(
                    f"split {self.name!r}: {name}: got {array.dtype} {array.shape}, expected {kind.__name__} {expected}"
                )
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.expressions):
            raise DataError(
                f"split {self.name!r}: labels: got {self.labels.min()} to {self.labels.max()}, "
                f"expected 0 to {len(self.expressions) - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 over images, labels and rows, independent of the file format.

        Label names other than `EXPRESSIONS` are part of the hash.
        """
        digest = hashlib.sha256()
        if self.expressions != EXPRESSIONS:
            digest.update(f"{' '.join(self.expressions)}\n".encode())
        for array in (self.images, self.labels.astype("<i8"), self.rows.astype("<i8")):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data if array.size else b"")
        return digest.hexdigest()

    def subset(self, index: Array) -> StillSet:
        """Return a copy of the stills at `index`: int positions, or a bool mask (N,)."""
        return dataclasses.replace(
            self,
            images=np.asarray(self.images[index]),
            labels=self.labels[index],
            rows=self.rows[index],
            votes=None if self.votes is None else self.votes[index],
            groups=None if self.groups is None else self.groups[index],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set: its splits, and the role of each.

    Attributes:
        name: ``"fer2013"``, ``"ckplus"``, ``"folder"`` or ``"synthetic"``.
        source: the spec given to `load_dataset`.
        layout: the format that was found, for example ``"csv"``.
        splits: split name -> stills.
        roles: role -> split name; roles that the source cannot serve are absent.
        note: what is left out or unknown.
        cache: the folder of the memory-mapped arrays; None if they are in memory.
    """

    name: str
    source: str = ""
    layout: str
    splits: Mapping[str, StillSet]
    roles: Mapping[Role, str] = field(default_factory=dict)
    note: str = ""
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if name != split.name:
                raise DataError(f"{self.source}: split {name!r}: got the name {split.name!r}, expected {name!r}")
        for role, name in self.roles.items():
            if role not in ROLES or name not in self.splits:
                raise DataError(f"{self.source}: role {role!r}: got {name!r}, expected one of {list(self.splits)}")
        if len({split.expressions for split in self.splits.values()}) > 1:
            raise DataError(f"{self.source}: got splits with different label names, expected the same in all")

    @property
    def expressions(self) -> tuple[str, ...]:
        """The label names of every split."""
        return next((split.expressions for split in self.splits.values()), EXPRESSIONS)

    def expect_expressions(self, wanted: tuple[str, ...], *, of: str) -> None:
        """Refuse label names that differ from a network's.

        Args:
            wanted: the network's labels in output order.
            of: the network, for the message.

        Raises:
            DataError: the label names differ.
        """
        if self.expressions != wanted:
            cure = "; leave out ?labels=official" if self.expressions == CKPLUS_EMOTIONS else ""
            raise DataError(
                f"{self.source}: got labels {', '.join(self.expressions)}, expected those of {of}: "
                f"{', '.join(wanted)}{cure}"
            )

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 over the names and hashes of the splits."""
        lines = (f"{name} {split.sha256}\n" for name, split in sorted(self.splits.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def split(self, role: Role) -> StillSet:
        """Return the split for `role`.

        Raises:
            DataError: the source has no split for it.
        """
        if role not in self.roles:
            held = ", ".join(f"{name} ({len(split):,})" for name, split in self.splits.items())
            because = f" {self.note}" if self.note else ""
            raise DataError(f"{self.source} has no split to {role} on; it holds {held}.{because}")
        return self.splits[self.roles[role]]
