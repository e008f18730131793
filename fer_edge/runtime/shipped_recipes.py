"""The recipes that are shipped with the runtime, read without the tools' reader."""

from __future__ import annotations

import importlib.resources
import sys
from typing import TypeVar

from fer_edge.core.json import decode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["shipped_recipe"]

T = TypeVar("T")


def shipped_recipe(kind: type[T], name: str) -> T:
    """Read a recipe of ``fer_edge/runtime/recipes`` into its dataclass."""
    file = importlib.resources.files("fer_edge.runtime").joinpath("recipes", f"{name}.toml")
    return decode(kind, tomllib.loads(file.read_text("utf-8")))
