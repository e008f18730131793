"""FER2013's rows as the tables hold them, all splits in one, and their parting into splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.labels import FER2013_ORDER
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.dataset import Role, StillSet

__all__ = ["ROLES_BY_USAGE", "SIDE", "USAGES", "Rows", "emotion_label", "missing_note", "usage_code"]

SIDE: Final = 48
"""Width and height of every FER2013 image in pixels."""

ROLES_BY_USAGE: Final[Mapping[str, Role]] = {"Training": "train", "PublicTest": "choose", "PrivateTest": "report"}
USAGES: Final = tuple(ROLES_BY_USAGE)


def missing_note(splits: Mapping[str, StillSet]) -> str:
    """The sentence about the splits that are not there; empty where all are."""
    missing = [usage for usage in USAGES if usage not in splits]
    return f"There is no {' and no '.join(missing)}." if missing else ""


def usage_code(usage: object, *, where: str) -> int:
    """Index of a `Usage` value in `USAGES`.

    Raises:
        InputError: it is none of them; the message begins with `where`.
    """
    if usage not in USAGES:
        raise InputError(f"{where}: usage {usage!r}, expected one of {', '.join(USAGES)}")
    return USAGES.index(str(usage))


def emotion_label(emotion: object, *, where: str) -> int:
    """An `emotion` value as an index into `EXPRESSIONS` (FER2013's order is the same).

    Raises:
        InputError: it is not a whole number from 0 to 6; the message begins with `where`.
    """
    text = str(emotion).strip()
    if text not in _LABELS:
        meaning = ", ".join(f"{index} {name}" for index, name in enumerate(FER2013_ORDER))
        raise InputError(f"{where}: emotion {text!r}, expected {meaning}")
    return _LABELS[text]


_LABELS: Final = {str(index): index for index in range(len(FER2013_ORDER))}


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows of all splits, in the source's order.

    Attributes:
        images: uint8 (N, 48, 48) grey.
        labels: int64 (N,).
        numbers: int64 (N,), the row's number in the official file.
        usages: int64 (N,), index into `USAGES`.
        votes: uint8 (N, 10) FER+ votes, or None.
    """

    images: Uint8
    labels: Int64
    numbers: Int64
    usages: Int64
    votes: Uint8 | None

    def splits(self, source: Path) -> dict[str, StillSet]:
        """The splits there are, each ordered by row number.

        Raises:
            InputError: a row number stands twice in one split.
        """
        found = {}
        for code, name in enumerate(USAGES):
            places = np.flatnonzero(self.usages == code)
            if not len(places):
                continue
            places = places[np.argsort(self.numbers[places], kind="stable")]
            numbers = self.numbers[places]
            if len(twice := numbers[1:][numbers[1:] == numbers[:-1]]):
                raise InputError(f"{source}: row {twice[0]} of {name} stands there more than once")
            found[name] = StillSet(
                name=name,
                images=self.images[places],
                labels=self.labels[places],
                rows=numbers,
                votes=None if self.votes is None else self.votes[places],
            )
        return found
