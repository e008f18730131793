"""Nodes of a graph by the names that people give them: of the node, of its layer, or a pattern."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from onnx import ModelProto

from fer_edge.core.errors import InputError

__all__ = ["PATTERN", "find_nodes", "layer_of"]

PATTERN: Final = "re:"
"""What a regular expression among the names begins with."""


def layer_of(name: str) -> str:
    """The layer that a node belongs to, by the path of its module in torch; the name itself where it tells of none.

    torch's exporter repeats the module's path along the way: ``/cnn/cnn.1/cnn.1.3/expand/expand.0/Conv`` is
    ``cnn.1.3.expand.0``. That name outlives an export, where running numbers do not.
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


def find_nodes(model: ModelProto, entries: Iterable[str], *, where: str) -> list[str]:
    """Names of the nodes that the entries mean, in the graph's order.

    Args:
        model: its nodes have names.
        entries: a node's name; a layer or the module around several (`layer_of`: ``cnn.3`` holds ``cnn.3.0``); or a
            regular expression after ``re:``, which the whole of a node's or a layer's name matches.
        where: the key that the entries come from, for messages.

    Raises:
        InputError: an entry that means no node, with the nearest name that means one, or a pattern that is none.
    """
    names = [node.name for node in model.graph.node]
    found: set[str] = set()
    for entry in entries:
        meant = [name for name in names if _means(entry, name, where)]
        if not meant:
            raise InputError(f"{where}: the encoder has no node {entry!r}{_hint(entry, names)}")
        found.update(meant)
    return [name for name in names if name in found]


def _means(entry: str, name: str, where: str) -> bool:
    layer = layer_of(name)
    if not entry.startswith(PATTERN):
        return entry in (name, layer) or layer.startswith(f"{entry}.")
    try:
        pattern = re.compile(entry.removeprefix(PATTERN))
    except re.error as error:
        raise InputError(f"{where}: {entry!r} is not a regular expression: {error}") from error
    return any(pattern.fullmatch(text) for text in (name, layer))


def _hint(entry: str, names: list[str]) -> str:
    layers = list(dict.fromkeys(map(layer_of, names)))
    listed = f"; its layers are {', '.join(layers)}"
    if entry.startswith(PATTERN):
        return listed
    near = difflib.get_close_matches(entry, [*layers, *names], n=1)
    return f"; did you mean {near[0]!r}?" if near else listed
