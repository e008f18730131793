"""The options and arguments that commands share: one name, one type and one rule for each.

An output that exists is refused without ``--overwrite``, before the command does any work. ``~`` is expanded in every
path and data spec. Numbers are finite and within a range; no value is empty.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin, get_type_hints

import click

from fer_edge.core.errors import OutputError
from fer_edge.core.labels import Reading

__all__ = [
    "DATA_SPEC",
    "INPUT_PATH",
    "OUTPUT",
    "OUTPUT_FILE",
    "OUTPUT_FOLDER",
    "REGION",
    "RUN_FOLDER",
    "STDOUT",
    "TEXT",
    "Budget",
    "BundleName",
    "Detector",
    "Device",
    "Number",
    "PrivateLog",
    "Provider",
    "Resume",
    "Split",
    "Threads",
    "VariantName",
    "WholeFrame",
    "argument",
    "dataset",
    "flag",
    "integer",
    "make_command",
    "option",
    "output",
    "overwriting",
    "real",
    "recipe",
    "settings",
]

STDOUT: Final = Path("-")
"""The value of ``--json`` that means standard output."""

_OVERWRITE: Final = "fer_edge.overwrite"
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_Parameter = Callable[[str, Any], _Decorator]
"""Makes the option or argument of a parameter from its name and type."""
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
    """A file or folder that a command writes: absent, an empty folder, or anything of its kind with ``--overwrite``.

    With `folder` None it is either, and the command checks which.
    """

    def __init__(self, *, folder: bool | None) -> None:
        self.name, self._folder = "folder" if folder else "file", folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from fer_edge.core.files import expect_new

        path = super().convert(value, param, ctx)
        folder = path.is_dir() if self._folder is None else self._folder
        path = expect_new(path, overwrite=overwriting(), folder=folder)
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


class _Region(_Text):
    """Left, top, right, bottom, separated by commas."""

    name = "region"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(super().convert(value, param, ctx))
        numbers = tuple(real(-1e6, 1e6).convert(each, param, ctx) for each in text.split(","))
        if len(numbers) != 4:
            self.fail(f"got {len(numbers)} numbers, expected left,top,right,bottom", param, ctx)
        return numbers


TEXT: Final = _Text()
DATA_SPEC: Final = _DataSpec()
INPUT_PATH: Final = _InputPath()
REGION: Final = _Region()
OUTPUT_FILE: Final = _Output(folder=False)
OUTPUT: Final = _Output(folder=None)
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


def make_command(function: Callable[..., Any]) -> click.Command:
    """Make the command of a module, which is named after it, from a function whose annotations hold its options.

    Every command has ``--json [FILE]``, passed as ``json_out: Path | None`` (`STDOUT` without FILE), and
    ``--overwrite``.
    """
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
    made = as_json(overwrite(function))
    for name, hint in reversed(get_type_hints(function, include_extras=True).items()):
        for make in getattr(hint, "__metadata__", ()):
            made = make(name, hint.__origin__)(made)
    return click.command(name=function.__module__.rpartition(".")[2].replace("_", "-"))(made)


def option(
    help: str,
    kind: _Type | None = None,
    *,
    name: str = "",
    default: Any = None,
    metavar: str | None = None,
    **more: Any,
) -> _Parameter:
    """Describe an option that takes a value, in the annotation of a command's parameter.

    It may be repeated where the parameter is a tuple, and is required where that is neither a tuple nor None.

    Args:
        help: one line.
        kind: type of the value; by default a text, an input path or a choice, as the parameter is annotated.
        name: the option, where it is not ``--`` and the parameter's name.
        default: the value without the option; shown in the help.
        metavar: the value in the help; the name of its type by default.
        more: further keywords of `click.option`.
    """

    def make(parameter: str, hint: Any) -> _Decorator:
        # A default of None would satisfy `required` since click 8.3.
        given = {"default": default, "show_default": True} if default is not None else {}
        multiple = get_origin(hint) is tuple
        required = default is None and not multiple and type(None) not in get_args(hint)
        known = {"help": help, "metavar": metavar or None, "multiple": multiple, "required": required}
        kept: dict[str, Any] = {"type": kind or _type_of(hint), **known, **given, **more}
        return click.option(_option_name(parameter, name), parameter, **kept)

    return make


def _type_of(hint: Any) -> _Type:
    """Return the type of the values that an annotation allows."""
    kinds = [each for each in get_args(hint) if each not in (type(None), ...)]
    if get_origin(hint) is Literal:
        return click.Choice(kinds)
    return _type_of(kinds[0]) if kinds else INPUT_PATH if hint is Path else TEXT


def flag(help: str, *, name: str = "", **more: Any) -> _Parameter:
    """Describe an option that takes no value."""
    return lambda parameter, _: click.option(_option_name(parameter, name), parameter, is_flag=True, help=help, **more)


def argument(kind: _Type | None = None, **more: Any) -> _Parameter:
    """Describe an argument; `kind` is as for `option`, `more` are further keywords of `click.argument`."""

    def make(parameter: str, hint: Any) -> _Decorator:
        required = type(None) not in get_args(hint) and not more.keys() & {"nargs", "default"}
        return click.argument(parameter, type=kind or _type_of(hint), **{"required": required} | more)

    return make


def _option_name(parameter: str, name: str) -> str:
    return name or f"--{parameter.replace('_', '-')}"


def output(help: str, *, name: str = "") -> _Parameter:
    """Describe an option for a file that the command writes."""
    return option(help, OUTPUT_FILE, name=name)


def dataset(help: str) -> _Parameter:
    """Describe ``--data SPEC``."""
    return option(help, DATA_SPEC, name="--data")


def recipe(default: str | None, help: str = "A shipped recipe, or a TOML file.") -> _Parameter:
    """Describe ``--recipe NAME|FILE``."""
    return option(help, default=default, metavar="NAME|FILE")


def settings(example: str) -> _Parameter:
    """Describe ``--set KEY=VALUE``."""
    return option(f"Change a value of the recipe: {example}.", name="--set", metavar="KEY=VALUE")


BundleName: TypeAlias = Annotated[str, argument()]
VariantName: TypeAlias = Annotated[str, option("fp32, int8, ...; auto: int8 if present.", default="auto")]
Provider: TypeAlias = Annotated[str, option("Engine: cpu, openvino, cuda, tensorrt, ...", default="cpu")]
Threads: TypeAlias = Annotated[int, option("Threads per session.", integer(1, 1024), default=1)]
Device: TypeAlias = Annotated[str, option("auto, cpu or cuda.", default="auto")]
Budget: TypeAlias = Annotated[
    float | None, option("Start no training after this time.", real(0, 1e6), metavar="MINUTES")
]
Split: TypeAlias = Annotated[
    Literal["choose", "report"],
    option("PublicTest, or PrivateTest (logged).", default="choose"),
]
PrivateLog: TypeAlias = Annotated[Path | None, option("Log of PrivateTest evaluations.", metavar="FILE")]
Resume: TypeAlias = Annotated[bool, flag("Continue the interrupted run in --out.", is_eager=True)]
Detector: TypeAlias = Annotated[str, option("haar, or yunet:FILE with a YuNet model.", default="haar")]
ReadingName: TypeAlias = Annotated[Reading | None, option("Labels to predict; crowd if present.", name="--reading")]
WholeFrame: TypeAlias = Annotated[bool, flag("The frames are face crops: detect no faces.")]
