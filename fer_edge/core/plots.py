"""Drawings as files: which formats there are, and how one is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fer_edge.core.errors import InputError, require
from fer_edge.core.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURE_STYLE", "check_figure_path", "write_figure"]

_FORMATS: Final = (".png", ".svg", ".pdf")

FIGURE_STYLE: Final = {"svg.hashsalt": "fer-edge", "font.family": "sans-serif"}
"""matplotlib's settings under which the same figures give the same bytes."""


def check_figure_path(path: Path, *, what: str) -> None:
    """Refuse what could not be drawn, before any work.

    Args:
        path: where the drawing is to stand.
        what: what it shows, for the message.

    Raises:
        InputError: an ending that names no format.
        MissingPackageError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: got the ending {path.suffix!r}, expected one of {', '.join(_FORMATS)}")
    require("matplotlib", needed_by=what, extra="report")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the path's ending names, atomically and without the date.

    Raises:
        OutputError: it cannot be written.
    """
    out = io.BytesIO()
    metadata: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower(), {})
    figure.savefig(out, format=path.suffix.lower()[1:], dpi=110, metadata=metadata)
    write_atomic(path, out.getvalue())
