"""The options and arguments that commands share: one name, one type and one rule for each.

An output that exists is refused without ``--overwrite``, before the command does any work. ``~`` is expanded in every
path and data spec. Numbers are finite and within a range; no value is empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fer_edge.core.errors import OutputError

__all__ = [
    "DATA_SPEC",
    "INPUT_PATH",
    "OUTPUT_FILE",
    "OUTPUT_FOLDER",
    "RUN_FOLDER",
    "STDOUT",
    "TEXT",
    "Number",
    "budget",
    "bundle",
    "dataset",
    "device",
    "flag",
    "integer",
    "jobs",
    "json",
    "option",
    "output",
    "overwriting",
    "private_log",
    "provider",
    "real",
    "recipe",
    "resume",
    "settings",
    "split",
    "threads",
    "variant",
    "whole_frame",
]

STDOUT: Final = Path("-")
"""The value of ``--json`` that means standard output."""

_OVERWRITE: Final = "fer_edge.overwrite"
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:  # generic since click 8.3
    _Type = click.ParamType


class _Text(_Type):
    """A name, a path or another text; a leading ``~`` is expanded."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("got an empty value, expected a text", param, ctx)
        return os.path.expanduser(value)


class _DataSpec(_Text):
    """A data set as ``KIND:PATH``; a ``~`` at the start of PATH is expanded."""

    name = "spec"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, colon, where = str(super().convert(value, param, ctx)).partition(":")
        return f"{kind}{colon}{os.path.expanduser(where)}"


class _InputPath(_Text):
    """A file or folder that a command reads, or continues to write."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(super().convert(value, param, ctx))


class _Output(_InputPath):
    """A file or folder that a command writes: absent, an empty folder, or anything of its kind with ``--overwrite``."""

    def __init__(self, *, folder: bool) -> None:
        self.name, self._folder = "folder" if folder else "file", folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from fer_edge.core.files import expect_new

        path = expect_new(super().convert(value, param, ctx), overwrite=overwriting(), folder=self._folder)
        parent = next(each for each in path.absolute().parents if os.path.lexists(each))
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise OutputError(f"cannot write {path}: got {parent}, expected a writable folder; choose another place")
        return path


class _RunFolder(_InputPath):
    """The folder of a training run: absent or empty, or any folder with ``--resume``. It is never replaced."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        resuming = ctx is not None and ctx.params.get("resume")
        if os.path.lexists(path) and (not path.is_dir() or (any(path.iterdir()) and not resuming)):
            raise OutputError(f"{path} already holds files; choose another --out, or continue its run with --resume")
        return path


class _JsonFile(_Output):
    """``-`` for standard output, or a file; its ending is checked, so that no argument is taken for it by mistake."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == str(STDOUT):
            return STDOUT
        if not str(value).endswith((".json", ".jsonl")):
            self.fail(f"got {value!r}, expected - or a file that ends in .json or .jsonl", param, ctx)
        return super().convert(value, param, ctx)


class Number(_Type):
    """A finite number from `low` to `high`."""

    name = "n"

    def __init__(self, kind: type[int] | type[float], low: float, high: float) -> None:
        self._kind, self._low, self._high = kind, low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self._kind(value)
        except (ValueError, OverflowError):
            number = None
        if number is None or not self._low <= number <= self._high:
            kind = "a whole number" if self._kind is int else "a number"
            self.fail(f"got {str(value)[:20]!r}, expected {kind} from {self._low:,} to {self._high:,}", param, ctx)
        return number


TEXT: Final = _Text()
DATA_SPEC: Final = _DataSpec()
INPUT_PATH: Final = _InputPath()
OUTPUT_FILE: Final = _Output(folder=False)
OUTPUT_FOLDER: Final = _Output(folder=True)
RUN_FOLDER: Final = _RunFolder()


def integer(low: int, high: int) -> Number:
    """Return the type of a whole number from `low` to `high`."""
    return Number(int, low, high)


def real(low: float, high: float) -> Number:
    """Return the type of a finite number from `low` to `high`."""
    return Number(float, low, high)


def overwriting() -> bool:
    """Return whether the running command was given ``--overwrite``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_OVERWRITE))


def json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json [FILE]``, passed as ``json_out: Path | None`` (`STDOUT` without FILE), and ``--overwrite``."""
    overwrite = click.option(
        "--overwrite",
        is_flag=True,
        is_eager=True,  # output types read it while they are converted
        expose_value=False,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(_OVERWRITE, value),
        help="Replace outputs that exist.",
    )
    as_json = click.option(
        "--json",
        "json_out",
        type=_JsonFile(folder=False),
        is_flag=False,
        flag_value=str(STDOUT),
        metavar="[FILE]",
        help="Print only JSON, or write it to FILE as well.",
    )
    return as_json(overwrite(command))


def option(
    names: str,
    kind: _Type,
    help: str,
    *,
    default: Any = None,
    metavar: str | None = None,
    required: bool = False,
    multiple: bool = False,
) -> _Decorator:
    """Add an option that takes a value; a default is shown in its help.

    Args:
        names: ``"--name"``, or ``"--name parameter"`` where the parameter of the function has another name.
        kind: type of the value.
        help: one line.
        default: the value without the option.
        metavar: the value in the help; the name of its type by default.
        required: refuse the command without it.
        multiple: the option may be repeated; passed as a tuple.
    """
    # A default of None would satisfy `required` since click 8.3.
    given = {} if default is None else {"default": default, "show_default": True}
    return click.option(
        *names.split(), type=kind, help=help, metavar=metavar, required=required, multiple=multiple, **given
    )


def flag(names: str, help: str) -> _Decorator:
    """Add an option that takes no value."""
    return click.option(*names.split(), is_flag=True, help=help)


def output(names: str, help: str) -> _Decorator:
    """Add an option for a file that the command writes."""
    return option(names, OUTPUT_FILE, help, metavar="FILE")


def dataset(help: str, *, required: bool = True, multiple: bool = False) -> _Decorator:
    """Add ``--data SPEC``."""
    return option("--data", DATA_SPEC, help, metavar="SPEC", required=required, multiple=multiple)


def recipe(default: str | None, help: str = "A shipped recipe, or a TOML file.") -> _Decorator:
    """Add ``--recipe NAME|FILE``."""
    return option("--recipe", TEXT, help, default=default, metavar="NAME|FILE")


def settings(example: str) -> _Decorator:
    """Add ``--set KEY=VALUE``, passed as ``settings``."""
    text = f"Change a value of the recipe: {example}."
    return option("--set settings", TEXT, text, metavar="KEY=VALUE", multiple=True)


bundle: Final = click.argument("bundle", type=TEXT)
variant: Final = option("--variant", TEXT, "fp32, int8, ...; auto: int8 if present.", default="auto")
provider: Final = option("--provider", TEXT, "Engine: cpu, openvino, cuda, tensorrt, ...", default="cpu")
threads: Final = option("--threads", integer(1, 1024), "Threads per session.", default=1)
device: Final = option("--device", TEXT, "auto, cpu or cuda.", default="auto")
jobs: Final = option("--jobs", integer(1, 256), "Trainings at the same time.", default=1)
budget: Final = option("--budget", real(0, 1e6), "Start no training after this time.", metavar="MINUTES")
split: Final = option(
    "--split", click.Choice(["choose", "report"]), "PublicTest, or PrivateTest (logged).", default="choose"
)
private_log: Final = option("--private-log", INPUT_PATH, "Log of PrivateTest evaluations.", metavar="FILE")
resume: Final = click.option("--resume", is_flag=True, is_eager=True, help="Continue the interrupted run in --out.")
whole_frame: Final = flag("--whole-frame", "The frames are face crops: detect no faces.")
