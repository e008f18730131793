"""Tables: built once, printed to a terminal, written as Markdown or HTML."""

from __future__ import annotations

import codecs
import html
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TextIO, TypeAlias, TypeVar

__all__ = ["SUBSTITUTE", "Cell", "Column", "Table", "megabytes", "percent", "points", "print_table"]

Cell: TypeAlias = object
"""A cell: None is shown as a dash, everything else as `str` gives it."""

_Align: TypeAlias = Literal["left", "right"]
_Item = TypeVar("_Item")

_DASH: Final = "–"
_LEFT: Final[_Align] = "left"
_RIGHT: Final[_Align] = "right"
_MIN_TEXT_WIDTH: Final = 16
"""A column of text is wrapped down to this width before columns of figures are moved."""
_FIGURE: Final = re.compile(r"[<>≤≥~]?\s*[+\-−±]?\.?\d")
_ASCII: Final = {
    "–": "-", "—": "-", "−": "-", "×": "x", "±": "+/-", "Δ": "d", "●": "*", "†": "+", "…": "...", "≤": "<=",
    "≥": ">=", "→": "->", "─": "-", "·": "*", "²": "2", "µ": "u", "✓": "x",
}  # fmt: skip

SUBSTITUTE: Final = "fer_edge.substitute"
"""Name of an error handler for `str.encode` and text streams that replaces what the encoding lacks."""


@dataclass(frozen=True)
class Column:
    """A heading with its alignment and its priority.

    Attributes:
        name: the heading.
        align: ``"left"`` or ``"right"``; None aligns figures right and text left.
        priority: 0 is always shown; where a table is too wide, the columns with the highest number go first.
    """

    name: str
    align: _Align | None = None
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of cells; a column without any value is left out.

    Attributes:
        columns: headings; a plain string is a `Column` of that name.
        rows: cells, as many as there are columns.
        title: one line above.
        caption: lines below: units, n, and what the figures are compared with.

    Example:
        >>> table = Table(columns=("variant", "ms"), rows=[("fp32", "1.20"), ("int8", "0.41")])
        >>> print(table.to_markdown(), end="")
        | variant | ms |
        | --- | ---: |
        | fp32 | 1.20 |
        | int8 | 0.41 |
    """

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell]]
    title: str | None = None
    caption: str | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row!r}: got {len(row)} cells, expected {len(self.columns)}")

    @property
    def headings(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in _columns(self))

    @classmethod
    def of(
        cls,
        items: Iterable[_Item],
        columns: Mapping[Any, Callable[[_Item], Cell]],
        *,
        title: str | None = None,
        caption: str | None = None,
    ) -> Table:
        """Make a row of every item; `columns` maps a heading (`Column` or str) to the function of its cell."""
        rows = [[cell(item) for cell in columns.values()] for item in items]
        return cls(columns=tuple(columns), rows=rows, title=title, caption=caption)

    def to_markdown(self) -> str:
        """Render as Markdown; every line of the caption ends in a line break."""
        columns, aligns, rows = _shown(self)
        rule = ["---" if align == "left" else "---:" for align in aligns]
        body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        lines = [f"| {' | '.join(cells)} |" for cells in ([column.name for column in columns], rule, *body)]
        head = [f"**{self.title}**", ""] if self.title else []
        tail = ["", *(f"{line}  " for line in self.caption.splitlines())] if self.caption else []
        return "\n".join([*head, *lines, *tail]).rstrip() + "\n"

    def to_html(self) -> str:
        """Render as an escaped `<table>` in `<div class="wide">`, with title and caption as paragraphs around it."""
        columns, aligns, rows = _shown(self)
        styles = [' style="text-align:left"' if align == "left" else "" for align in aligns]

        def line(tag: str, cells: Iterable[str]) -> str:
            marked = zip(styles, cells, strict=True)
            return f"<tr>{''.join(f'<{tag}{style}>{html.escape(cell)}</{tag}>' for style, cell in marked)}</tr>"

        body = "".join(line("td", row) for row in rows)
        title = f"<h3>{html.escape(self.title)}</h3>" if self.title else ""
        caption = f'<p class="note">{html.escape(self.caption)}</p>' if self.caption else ""
        table = f"<table>{line('th', [column.name for column in columns])}{body}</table>"
        return f'{title}<div class="wide">{table}</div>{caption}'


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print on stdout or `file`: as wide as the terminal (or `COLUMNS`), unlimited in a pipe or a file.

    A table that is too wide loses its columns with the highest priority numbers, and names them below; then its text is
    wrapped; at last its rows become columns. Figures are never wrapped.
    """
    out = sys.stdout if file is None else file
    sized = out.isatty() or "COLUMNS" in os.environ
    width = shutil.get_terminal_size().columns if sized else None
    _print(table, out, width=width, encoding=getattr(out, "encoding", None) or "utf-8")


def percent(rate: float | None, *, digits: int = 2) -> str | None:
    """Format a fraction as per cent, without the sign."""
    return None if rate is None else f"{100 * rate:.{digits}f}"


def points(delta: float | None) -> str | None:
    """Format a difference of fractions in percentage points, with its sign."""
    return None if delta is None else f"{100 * delta:+.2f}"


def megabytes(size_bytes: int | None, *, digits: int = 2) -> str | None:
    """Format bytes as 10^6 bytes."""
    return None if size_bytes is None else f"{size_bytes / 1e6:.{digits}f}"


def _columns(table: Table) -> list[Column]:
    return [Column(column) if isinstance(column, str) else column for column in table.columns]


def _shown(table: Table) -> tuple[list[Column], list[_Align], list[list[str]]]:
    """Select the columns that have a value, with their alignments and their cells as text."""
    columns = _columns(table)
    kept = [
        place for place in range(len(columns)) if not table.rows or any(row[place] is not None for row in table.rows)
    ]
    aligns: list[_Align] = []
    for place in kept:
        cells = [str(row[place]) for row in table.rows if row[place] is not None]
        figures = bool(cells) and all(_FIGURE.match(cell) for cell in cells)
        aligns.append(columns[place].align or ("right" if figures else "left"))
    rows = [[_DASH if row[place] is None else str(row[place]) for place in kept] for row in table.rows]
    return [columns[place] for place in kept], aligns, rows


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Columns, alignments and substituted cells that are ready to print."""

    columns: tuple[Column, ...]
    aligns: tuple[_Align, ...]
    rows: tuple[tuple[str, ...], ...]

    def fits(self, width: int | None) -> bool:
        """Return whether it can be printed in `width` with its text wrapped and its figures whole."""
        return width is None or sum(self._least(place) + 2 for place in range(len(self.columns))) - 2 <= width

    def _least(self, place: int) -> int:
        from rich.cells import cell_len

        cells = [self.columns[place].name, *(row[place] for row in self.rows)]
        whole = max(cell_len(line) for cell in cells for line in (cell.splitlines() or [""]))
        return min(whole, _MIN_TEXT_WIDTH) if self.aligns[place] == "left" else whole

    def without(self, place: int) -> _Grid:
        def cut(cells: tuple[Any, ...]) -> tuple[Any, ...]:
            return cells[:place] + cells[place + 1 :]

        return replace(
            self, columns=cut(self.columns), aligns=cut(self.aligns), rows=tuple(cut(row) for row in self.rows)
        )

    def turned(self, rows: tuple[tuple[str, ...], ...]) -> _Grid:
        """Turn some of the rows into columns."""
        first, *others = self.columns
        columns = (Column(first.name), *(Column(row[0]) for row in rows))
        body = tuple((column.name, *(row[place] for row in rows)) for place, column in enumerate(others, start=1))
        return _Grid(columns=columns, aligns=(_LEFT, *(_RIGHT,) * len(rows)), rows=body)


def _print(table: Table, out: TextIO, *, width: int | None, encoding: str) -> None:
    from rich.console import Console

    def plain(text: str) -> str:
        return text.encode(encoding, errors=SUBSTITUTE).decode(encoding)

    columns, aligns, rows = _shown(table)
    grid = _Grid(
        columns=tuple(replace(column, name=plain(column.name)) for column in columns),
        aligns=tuple(aligns),
        rows=tuple(tuple(plain(cell) for cell in row) for row in rows),
    )
    grid, dropped = _drop(grid, width)
    console = Console(file=out, width=width or 10_000, markup=False, highlight=False, emoji=False)
    if table.title:
        console.print(plain(table.title), style="bold")
    for part in _parts(grid, width):
        console.print(_rich(part, ascii_only=plain("─") != "─"))
    for line in (table.caption or "").splitlines():
        console.print(plain(line))
    if dropped:
        console.print(plain(f"Not shown at {width} columns: {', '.join(dropped)}."))


def _drop(grid: _Grid, width: int | None) -> tuple[_Grid, list[str]]:
    dropped: list[str] = []
    while not grid.fits(width):
        place = max(range(len(grid.columns)), key=lambda place: (grid.columns[place].priority, place))
        if grid.columns[place].priority == 0:
            break
        dropped.insert(0, grid.columns[place].name)
        grid = grid.without(place)
    return grid, dropped


def _parts(grid: _Grid, width: int | None) -> list[_Grid]:
    """Split a grid that does not fit into turned ones that do, with as many rows each as fit."""
    if grid.fits(width) or not grid.rows or len(grid.columns) < 2:
        return [grid]
    parts, start = [], 0
    while start < len(grid.rows):
        end = start + 1
        while end < len(grid.rows) and grid.turned(grid.rows[start : end + 1]).fits(width):
            end += 1
        part = grid.turned(grid.rows[start:end])
        parts.append(part if part.fits(width) else replace(part, aligns=(_LEFT,) * len(part.aligns)))
        start = end
    return parts


def _rich(grid: _Grid, *, ascii_only: bool) -> Any:
    from rich import box
    from rich.table import Table as RichTable

    rule = "-" if ascii_only else "─"
    lines = ["    ", "    ", f" {rule}  ", "    ", "    ", "    ", "    ", "    "]
    head = box.Box("\n".join(lines), ascii=ascii_only)
    made = RichTable(box=head, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for column, align in zip(grid.columns, grid.aligns, strict=True):
        made.add_column(column.name, justify=align, no_wrap=align == "right", overflow="fold")
    for row in grid.rows:
        made.add_row(*row)
    return made


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_ASCII.get(character, "?") for character in missing), error.end


codecs.register_error(SUBSTITUTE, _substitute)
