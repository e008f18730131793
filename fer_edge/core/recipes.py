"""Recipes: TOML files, shipped in ``fer_edge/<room>/recipes`` or the user's own, read into frozen dataclasses.

A recipe holds what differs from the dataclass's defaults; a table is a nested dataclass. Errors name file and line.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fer_edge.core.errors import FerEdgeError, RecipeError
from fer_edge.core.files import user_path
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
    """Return the sorted names of the recipes shipped for a room (``"train"``, ``"calibrate"``, ``"export"``)."""
    folder = _folder(room)
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(kind: type[T], name_or_path: str, *, room: str) -> T:
    """Read a recipe.

    Args:
        kind: the frozen dataclass to fill.
        name_or_path: the name of a shipped recipe, or a path that ends in ``.toml`` (``~`` is expanded).
        room: the room of the shipped recipe.

    Raises:
        RecipeError: no such recipe, invalid TOML, an unknown key (the nearest valid one is named), a missing key, or a
            value that the dataclass refuses. The message names file and line.
    """
    file = _find(name_or_path, room)
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {file} is not UTF-8 text: {error}") from error
    try:
        return decode(kind, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {file} is not valid TOML: {error}") from error
    except FerEdgeError as error:
        line = _line_of(text, str(error).partition(":")[0])
        raise RecipeError(f"{file}{f', line {line}' if line else ''}: {error}") from error


def override(recipe: T, settings: Iterable[str]) -> T:
    """Return a copy of `recipe` with some values replaced (``--set``).

    Args:
        recipe: the recipe.
        settings: ``"key=value"`` or ``"table.key=value"`` with a TOML value; quotes around text are optional, ``none``
            empties an optional key, and the last setting of a key counts.

    Raises:
        RecipeError: a setting without ``=``, an unknown key, or a value that does not fit.
    """
    tree = encode(recipe)
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        *tables, key = dotted.strip().split(".")
        if not equals or not all((*tables, key)):
            raise RecipeError(f"--set {setting!r}: expected key=value or table.key=value")
        node = tree
        for table in tables:
            if node.get(table) is None:
                node[table] = {}
            node = node[table]
            if not isinstance(node, dict):
                raise RecipeError(f"--set {setting!r}: {table!r} is a value, not a table")
        value = _value(text.strip())
        number = isinstance(value, (int, float)) and _takes_text(type(recipe), (*tables, key))
        node[key] = text.strip() if number else value
    try:
        return decode(type(recipe), tree)
    except FerEdgeError as error:
        raise RecipeError(f"--set: {error}") from error


def _folder(room: str) -> Traversable:
    return importlib.resources.files("fer_edge").joinpath(room, "recipes")


def _find(name_or_path: str, room: str) -> Traversable:
    if name_or_path.endswith(".toml"):
        return user_path(name_or_path)
    names = recipe_names(room)
    if name_or_path not in names:
        near = difflib.get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}."
        raise RecipeError(f"no {room} recipe is called {name_or_path!r}; {hint} The path of your own ends in .toml")
    return _folder(room).joinpath(f"{name_or_path}.toml")


def _value(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _takes_text(kind: Any, path: Sequence[str]) -> bool:
    """Return whether a key holds text, so that ``flavour=10.3`` is not read as a number."""
    for name in path:
        if not dataclasses.is_dataclass(kind):
            return False
        hint = typing.get_type_hints(kind).get(name)
        options = [each for each in typing.get_args(hint) if each is not type(None)]
        kind = options[0] if len(options) == 1 else hint
    return kind is str


def _line_of(text: str, address: str) -> int | None:
    """Return the line, from 1, of the statement that defines `address` (``"loss.weights[2]"``) in a valid TOML `text`.

    A statement ends at the first line up to which the text is valid TOML and holds the address; it begins after the
    previous such line. An address that is missing gives its table's line.
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
