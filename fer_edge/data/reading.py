"""What a reader plans to read, before it reads: enough for the cache to know whether it has been read already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer_edge.core.types import Progress
from fer_edge.data.stills import Dataset

__all__ = ["Reading"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A source that was looked at and not yet decoded.

    Attributes:
        name: the data set's name.
        root: the file or folder that the user named.
        files: every file whose content decides what is read.
        version: raised whenever the reader makes something else of the same files.
        options: reader options that change the result, as text.
        read: decodes the source.
    """

    name: str
    root: Path
    files: Sequence[Path]
    version: int
    options: str = ""
    read: Callable[[Progress], Dataset]
