"""Values of a recipe replaced on the command line (``--set key=value``)."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from fer_edge.core.errors import FerEdgeError, RecipeError
from fer_edge.core.json import decode, encode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["override"]

T = TypeVar("T")


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
