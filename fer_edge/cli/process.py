"""How the process of a command ends: its exit status, its signals, and text that the terminal cannot encode."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import click

from fer_edge.core.errors import FerEdgeError
from fer_edge.core.tables import SUBSTITUTE

__all__ = ["call_interruptibly", "ending_cleanly", "tolerate_encodings"]

T = TypeVar("T")


class _Failure(click.ClickException):
    """An error that is printed as one line on stderr; exit status 1."""

    def show(self, file: Any = None) -> None:
        _drop_unwritten()
        click.echo(f"error: {self.message}", err=True)


class _Interrupted(_Failure):
    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; no partial output is left")
        self.exit_code = 128 + number  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which take the path of Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def tolerate_encodings() -> None:
    """Substitute characters that stdout or stderr cannot encode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=SUBSTITUTE)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Turn what ends a command early into one line on stderr and an exit status.

    `FerEdgeError`, `OSError`, `MemoryError` and `UnicodeError` give 1, a signal n gives 128 + n. Other exceptions are
    defects of the program and keep their traceback.
    """
    try:
        with _signals_interrupt():
            yield
    except FerEdgeError as error:
        raise _Failure(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of stdout is gone; click ends without a message
            raise
        raise _Failure(f"the operating system refuses: {error}") from error
    except MemoryError as error:
        raise _Failure(f"out of memory: {str(error) or 'allocation failed'}; use a smaller batch or input") from error
    except UnicodeError as error:
        raise _Failure(f"text that cannot be encoded or decoded: {error}") from error
    except KeyboardInterrupt as error:
        raise _Interrupted(getattr(error, "number", signal.SIGINT)) from error


def call_interruptibly(function: Callable[[], T]) -> T:
    """Call a function that may hang in a driver, such that a signal ends the wait for it; raises what it raises."""
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        done.set()

    threading.Thread(target=call, name="fer-edge opening", daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Raise a KeyboardInterrupt on SIGTERM and SIGHUP, once; a signal that the parent ignores stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()
    replaced: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker ends at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for each in replaced:
            signal.signal(each, signal.SIG_IGN)
        raise _Terminated(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)
            replaced.append(number)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _drop_unwritten() -> None:
    """Drop what a full disk under stdout refused, which Python would otherwise retry and report on exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
