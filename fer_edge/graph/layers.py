"""Nodes of a graph found by node name, layer name or pattern."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from fer_edge.core.errors import RecipeError
from fer_edge.graph.graph import Graph

__all__ = ["PATTERN", "find_nodes", "layer_of"]

PATTERN: Final = "re:"
"""Prefix of a regular expression among the names."""


def layer_of(name: str) -> str:
    """Layer of a node: the path of its module in torch, or the name itself where it holds no path.

    torch's exporter repeats the path at every level: ``/cnn/cnn.1/cnn.1.3/expand/expand.0/Conv`` is
    ``cnn.1.3.expand.0``. Unlike running numbers, it is the same in every export.
    """
    if not name.startswith("/"):
        return name
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path) or name


def find_nodes(graph: Graph, entries: Iterable[str], *, where: str) -> list[str]:
    """Find the nodes that the entries name; returns their names in graph order.

    Args:
        graph: its nodes have names.
        entries: a node's name; a layer or the module around several (`layer_of`: ``cnn.3`` holds ``cnn.3.0``); or a
            regular expression after ``re:``, which the whole of a node's or a layer's name matches.
        where: the recipe key of the entries, for messages.

    Raises:
        RecipeError: an entry that names no node (the message gives the nearest name), or an invalid pattern.
    """
    names = [node.name for node in graph.nodes]
    found: set[str] = set()
    for entry in entries:
        named = [name for name in names if _matches(entry, name, where)]
        if not named:
            raise RecipeError(f"{where}: got {entry!r}, expected a node or layer of the encoder{_hint(entry, names)}")
        found.update(named)
    return [name for name in names if name in found]


def _matches(entry: str, name: str, where: str) -> bool:
    layer = layer_of(name)
    if not entry.startswith(PATTERN):
        return entry in (name, layer) or layer.startswith(f"{entry}.")
    try:
        pattern = re.compile(entry.removeprefix(PATTERN))
    except re.error as error:
        raise RecipeError(f"{where}: got {entry!r}, expected a regular expression after re: ({error})") from error
    return any(pattern.fullmatch(text) for text in (name, layer))


def _hint(entry: str, names: list[str]) -> str:
    layers = list(dict.fromkeys(map(layer_of, names)))
    listed = f"; layers: {', '.join(layers)}"
    if entry.startswith(PATTERN):
        return listed
    near = difflib.get_close_matches(entry, [*layers, *names], n=1)
    return f"; did you mean {near[0]!r}?" if near else listed
