"""What commands print: results on stdout, progress and remarks on stderr."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Display

from fer_edge.cli import options
from fer_edge.core.tables import Table, print_table

if TYPE_CHECKING:
    from fer_edge.core.types import Progress
    from fer_edge.runtime.inference import NetworkInfo
    from fer_edge.runtime.video_source import VideoSource

__all__ = ["command_line", "console", "name_network", "note_resume", "note_unread", "note_written", "progress", "show"]

_REDRAW_EVERY_S: Final = 0.1
_FAULTS_SHOWN: Final = 5

console: Final = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
"""For progress and remarks, on stderr; brackets are printed as they are and paths are not broken."""


def show(value: Any, json_out: Path | None, parts: Iterable[Table | str]) -> None:
    """Print a result: as JSON alone on stdout, or as tables and text, with the JSON in a file if one is named.

    Args:
        value: the result as JSON holds it, without NaN and infinity.
        json_out: the value of ``--json``.
        parts: tables and lines; not evaluated where only JSON is printed.
    """
    if json_out == options.STDOUT:
        plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        click.echo(json.dumps(value, indent=2, ensure_ascii=plain, allow_nan=False))
        return
    for part in parts:
        if isinstance(part, str):
            click.echo(part)
        else:
            print_table(part)
    if json_out is not None:
        from fer_edge.core.files import write_json

        write_json(json_out, value)
        note_written(json_out)


def name_network(info: NetworkInfo) -> None:
    """Print what runs."""
    console.print(f"{info.bundle} {info.variant}, {info.reading}, on {info.provider} ({info.provider_version})")


def note_unread(source: VideoSource, read: int) -> None:
    """Print how many of a source's frames were skipped or are missing."""
    faults = getattr(source, "unread", ())  # of many photographs
    for fault in faults[:_FAULTS_SHOWN]:
        console.print(f"note: skipped: {fault}")
    if len(faults) > _FAULTS_SHOWN:
        console.print(f"note: {len(faults)} photographs were skipped in all; --json lists them")
    elif source.skipped and not faults:
        console.print(f"note: {source.name}: {source.skipped} damaged or lost frames were skipped, {read} were read")
    elif not faults and read < (source.frames or 0):
        console.print(f"note: {source.name} announces {source.frames} frames, {read} could be read")


def note_written(*paths: Path | None) -> None:
    """Name the files that were written; None is skipped."""
    for path in filter(None, paths):
        console.print(f"written: {path}")


def command_line() -> str:
    """Return the running command as a shell would take it."""
    return shlex.join(["fer-edge", *sys.argv[1:]])


@contextlib.contextmanager
def note_resume(hint: str) -> Iterator[None]:
    """Print how to continue where the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(hint)
        raise


@contextlib.contextmanager
def progress(what: str = "") -> Iterator[Progress]:
    """Show a progress bar on stderr while the block runs, where stderr is a terminal.

    The bar is drawn only when it is called: a thread that redraws it would disturb what is timed.

    Args:
        what: what is done before the first call.
    """
    display = Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    task = display.add_task(what, total=None)
    shown, drawn_s = what, 0.0

    def update(what: str, done: int, total: int) -> None:
        nonlocal shown, drawn_s
        now = time.monotonic()
        if what == shown and done != total and now - drawn_s < _REDRAW_EVERY_S:
            return
        shown, drawn_s = what, now
        display.update(task, description=what, completed=done, total=total or None, refresh=True)

    with display:
        display.refresh()
        yield update
