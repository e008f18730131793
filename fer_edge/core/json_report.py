"""The one reader and writer of reports: a frozen dataclass as one JSON file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from fer_edge.core.errors import InputError
from fer_edge.core.files import read_json, write_json
from fer_edge.core.json import decode, encode

__all__ = ["JsonReport"]

_Report = TypeVar("_Report", bound="JsonReport")


class JsonReport:
    """Base of a dataclass that is written to and read from one JSON file."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dict(encode(self))

    @classmethod
    def from_json(cls: type[_Report], value: Any) -> _Report:
        """Read what `to_json` returned.

        Raises:
            InputError: another schema, or a key missing, unknown or of a wrong type, named.
        """
        return decode(cls, value)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically.

        Raises:
            OutputError: it cannot be written; an earlier file is unchanged.
        """
        write_json(Path(path), self.to_json())

    @classmethod
    def read(cls: type[_Report], path: str | os.PathLike[str]) -> _Report:
        """Read a file that `write` wrote.

        Raises:
            InputError: the file is missing, no JSON or no such report; the message names file and field.
        """
        try:
            return cls.from_json(read_json(Path(path)))
        except InputError as error:
            raise InputError(f"{os.fspath(path)}: {error}") from error
