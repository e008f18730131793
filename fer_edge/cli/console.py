"""What commands print with: tables and JSON on stdout, everything said along the way on stderr."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["ProgressBar", "console", "emit_json", "json_flag", "print_table", "progress"]

# Brackets stay as they are (pip install 'fer-edge[cpu]') and paths are never broken over lines.
_PLAIN: Final[dict[str, Any]] = {"markup": False, "highlight": False, "emoji": False}
_UNFOLDED_COLUMNS = 1000

console: Final = Console(stderr=True, soft_wrap=True, **_PLAIN)
"""For what is said along the way, on stderr; a result goes to stdout, by `click.echo`, `print_table` or `emit_json`."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_flag(command: _Command) -> _Command:
    """The option `--json`, passed to the command as `as_json: bool`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."
    )(command)


def emit_json(value: Any) -> None:
    """Print `value` (what JSON can hold; NaN and infinity it cannot) as indented JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    caption: str | None = None,
    right: Collection[str] = (),
) -> None:
    """Print a table on stdout; folded to the terminal's width, and not at all where stdout is a file or a pipe.

    Args:
        columns: the headings.
        rows: the cells; `None` is shown as a dash, everything else as `str` shows it.
        title: a line above.
        caption: a line below.
        right: the headings of the columns to align right (figures).
    """
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    stdout = Console(**_PLAIN)
    if not stdout.is_terminal:
        stdout = Console(width=_UNFOLDED_COLUMNS, **_PLAIN)
    stdout.print(table)


class ProgressBar:
    """A `fer_edge.core.types.Progress` that moves the bar: what the library functions' `progress` expects."""

    def __init__(self, display: Progress, task: TaskID) -> None:
        self._display = display
        self._task = task

    def __call__(self, what: str, done: int, total: int) -> None:
        self._display.update(self._task, description=what, completed=done, total=total)

    def describe(self, text: str) -> None:
        """Replace the text beside the bar."""
        self._display.update(self._task, description=text)


@contextlib.contextmanager
def progress(description: str, *, total: int | None = None) -> Iterator[ProgressBar]:
    """A progress bar on stderr while the block runs, where stderr is a terminal; silent elsewhere.

    Args:
        description: what is going on, for example ``"reading fer2013"``.
        total: how many steps there are, where that is known before the first call.
    """
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with display:
        yield ProgressBar(display, display.add_task(description, total=total))
