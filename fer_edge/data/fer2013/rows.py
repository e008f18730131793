"""FER2013's rows in the order of the source, all splits together, and the data set that they form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fer_edge.core.errors import DataError
from fer_edge.core.label_sets import FER2013_ORDER
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.dataset import Dataset, Role, StillSet

__all__ = ["SIDE", "USAGES", "Rows", "emotion_label", "usage_code"]

SIDE: Final = 48
"""Width and height of every FER2013 image in pixels."""

_ROLES: Final[Mapping[str, Role]] = {"Training": "train", "PublicTest": "choose", "PrivateTest": "report"}
USAGES: Final = (*_ROLES, "test")
"""The splits; ``test`` is PublicTest and PrivateTest together, where the files do not name them."""

_LABELS: Final = {str(index): index for index in range(len(FER2013_ORDER))}
_NOTE: Final = (
    "The file names in test/ do not say PublicTest or PrivateTest, so the split may be neither chosen on nor reported; "
    "use fer2013.csv, the parquet files, or folders with the original file names."
)


def usage_code(usage: object, *, where: str) -> int:
    """Return the index of a `Usage` value in `USAGES`.

    Raises:
        DataError: an unknown value; the message begins with `where`.
    """
    if usage not in _ROLES:
        raise DataError(f"{where}: usage {usage!r}, expected one of {', '.join(_ROLES)}")
    return USAGES.index(str(usage))


def emotion_label(emotion: object, *, where: str) -> int:
    """Return an `emotion` value as an index into `EXPRESSIONS` (FER2013's order is the same).

    Raises:
        DataError: it is not a whole number from 0 to 6; the message begins with `where`.
    """
    text = str(emotion).strip()
    if text not in _LABELS:
        meaning = ", ".join(f"{index} {name}" for index, name in enumerate(FER2013_ORDER))
        raise DataError(f"{where}: emotion {text!r}, expected {meaning}")
    return _LABELS[text]


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
    votes: Uint8 | None = None

    def dataset(self, layout: str, *, where: str) -> Dataset:
        """Group the rows by split, each ordered by row number.

        Raises:
            DataError: a row number appears twice in one split.
        """
        splits = {}
        for code, name in enumerate(USAGES):
            places = np.flatnonzero(self.usages == code)
            if not len(places):
                continue
            places = places[np.argsort(self.numbers[places], kind="stable")]
            numbers = self.numbers[places]
            if len(twice := numbers[1:][numbers[1:] == numbers[:-1]]):
                raise DataError(f"{where}: got row {twice[0]} of {name} more than once, expected once")
            splits[name] = StillSet(
                name=name,
                images=self.images[places],
                labels=self.labels[places],
                rows=numbers,
                votes=None if self.votes is None else self.votes[places],
            )
        missing = [usage for usage in _ROLES if usage not in splits]
        note = f"There is no {' and no '.join(missing)}." if missing else ""
        return Dataset(
            name="fer2013",
            layout=layout,
            splits=splits,
            roles={role: usage for usage, role in _ROLES.items() if usage in splits},
            note=_NOTE if "test" in splits else note,
        )
