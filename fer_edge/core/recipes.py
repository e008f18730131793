"""Recipes: TOML files, shipped in ``fer_edge/<room>/recipes`` or the user's own, read into frozen dataclasses.

A recipe holds what differs from the dataclass's defaults; a table is a nested dataclass. Errors name file and line.
"""

from __future__ import annotations

import difflib
import importlib.resources
import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fer_edge.core.errors import FerEdgeError, RecipeError
from fer_edge.core.files import user_path
from fer_edge.core.json import decode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["load_recipe", "recipe_names"]

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
