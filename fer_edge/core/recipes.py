"""Recipes: TOML files, shipped with the package or the user's own, read into frozen dataclasses.

A recipe says what differs from the dataclass's defaults; a table is a nested dataclass. What does not fit is named with
its file and line.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["load_recipe", "override", "recipe_names"]

T = TypeVar("T")


def recipe_names(room: str) -> tuple[str, ...]:
    """Names of the recipes shipped for a room (``"train"``, ``"calibrate"``, ``"export"``), sorted."""
    folder = _folder(room)
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(kind: type[T], name_or_path: str, *, room: str) -> T:
    """Read a recipe.

    Args:
        kind: the frozen dataclass that it fills.
        name_or_path: the name of a shipped recipe, or the path of a file that ends in ``.toml``.
        room: whose shipped recipes a bare name is looked up in.

    Raises:
        InputError: no such recipe, not valid TOML, an unknown key, a missing key, a value of the wrong type, or one
            that the dataclass refuses. The message names the file and the line.
    """
    file = _find(name_or_path, room)
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise InputError(f"cannot read the recipe {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe {file} is not UTF-8 text: {error}") from error
    try:
        return decode(kind, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the recipe {file} is not valid TOML: {error}") from error
    except InputError as error:
        line = _line_of(text, str(error).partition(":")[0])
        raise InputError(f"{file}{f', line {line}' if line else ''}: {error}") from error


def override(recipe: T, settings: Iterable[str]) -> T:
    """A copy of `recipe` with some values replaced: what `--set` does.

    Args:
        recipe: the recipe as it was read.
        settings: ``"key=value"`` or ``"table.key=value"``, the value as TOML writes it; the quotes round a text may be
            left out, and ``none`` empties an optional key. Of two settings of one key the later one holds.

    Raises:
        InputError: a setting without ``=``, an unknown key, or a value that does not fit.
    """
    tree = encode(recipe)
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        *tables, key = dotted.strip().split(".")
        if not equals or not all((*tables, key)):
            raise InputError(f"--set {setting!r}: expected key=value or table.key=value")
        node = tree
        for table in tables:
            if node.get(table) is None:
                node[table] = {}
            node = node[table]
            if not isinstance(node, dict):
                raise InputError(f"--set {setting!r}: {table!r} is a value, not a table")
        value = _value(text.strip())
        number = isinstance(value, (int, float)) and _takes_text(type(recipe), (*tables, key))
        node[key] = text.strip() if number else value
    try:
        return decode(type(recipe), tree)
    except InputError as error:
        raise InputError(f"--set: {error}") from error


def _folder(room: str) -> Traversable:
    return importlib.resources.files("fer_edge").joinpath(room, "recipes")


def _find(name_or_path: str, room: str) -> Traversable:
    if name_or_path.endswith(".toml"):
        return Path(name_or_path)
    names = recipe_names(room)
    if name_or_path not in names:
        near = difflib.get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}."
        raise InputError(f"no {room} recipe is called {name_or_path!r}; {hint} A recipe of your own ends in .toml")
    return _folder(room).joinpath(f"{name_or_path}.toml")


def _value(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _takes_text(kind: Any, path: Sequence[str]) -> bool:
    """Whether a key of a recipe is a text, so that what looks like a number there is none: ``flavour=10.3``."""
    for name in path:
        if not dataclasses.is_dataclass(kind):
            return False
        hint = typing.get_type_hints(kind).get(name)
        options = [each for each in typing.get_args(hint) if each is not type(None)]
        kind = options[0] if len(options) == 1 else hint
    return kind is str


def _line_of(text: str, address: str) -> int | None:
    """Line, from 1, of the statement that brings `address` (``"loss.weights[2]"``) into a valid TOML `text`.

    A statement ends where the text up to there is valid and holds what it brings; it begins after the last line at
    which the text was valid before. Where the address is not in the text, its table's line is given.
    """
    path = re.findall(r"[^.\[\]]+", address)
    lines = text.splitlines(keepends=True)
    while path:
        begins = 1
        for count in range(1, len(lines) + 1):
            try:
                table = tomllib.loads("".join(lines[:count]))
            except tomllib.TOMLDecodeError:
                continue
            if _holds(table, path):
                return begins
            begins = count + 1
        path.pop()
    return None


def _holds(value: Any, path: Iterable[str]) -> bool:
    for key in path:
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            return False
    return True
