"""Whether a graph fits the manifest that names it: inputs, outputs and labels; for the runtime and for `verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from fer_edge.core.labels import EXPRESSIONS, NOT_JUDGEABLE
from fer_edge.core.manifest import Manifest
from fer_edge.core.onnx_wire import fields
from fer_edge.core.variant import Part

__all__ = ["graph_misfits"]

Tensor: TypeAlias = "tuple[str, tuple[int | None, ...]]"  # element type, and sizes, None where any

_GRAPH, _PROPERTY, _INPUT, _OUTPUT = 7, 14, 11, 12  # field numbers of onnx.proto
_TYPES: Final[Mapping[int, str]] = {1: "float32", 2: "uint8", 7: "int64"}
_LABELS: Final = b"fer_edge.labels"  # of the graph's card, which the graph's hash covers


def graph_misfits(graph: bytes, manifest: Manifest, part: Part) -> tuple[str, ...]:
    """Compare an ONNX file with the manifest.

    Labels are compared with those of the graph's card. Where it has none, only the usual order of the seven expressions
    is accepted for them.

    Args:
        graph: a whole ONNX file (`graph_faults`).
        manifest: the manifest.
        part: what the graph is in a variant.

    Returns:
        A phrase for each fault; empty where it fits.
    """
    name = "encoder" if part == "encoder" else "head"
    labels = (*manifest.labels, NOT_JUDGEABLE) if part == "crowd" else manifest.labels
    size, width = manifest.preprocess.size, manifest.sequence.feature_size
    inputs: dict[str, Tensor] = {"features": ("float32", (None, None, width)), "length": ("int64", (None,))}
    outputs: dict[str, Tensor] = {"logits": ("float32", (None, len(labels))), "attention": ("float32", (None, None))}
    if part == "encoder":
        inputs = {"frames": ("uint8", (None, size, size))}
        outputs = {"features": ("float32", (None, width)), "attention": outputs["attention"]}
    faults: list[str] = []
    try:
        for kind, number, wanted in (("input", _INPUT, inputs), ("output", _OUTPUT, outputs)):
            found = dict(_tensors(graph, number))
            for key in (key for key, tensor in wanted.items() if not _matches(found.get(key), tensor)):
                expected = f"got {_shown(found)}, expected {_shown({key: wanted[key]})}"
                faults.append(f"the {name}'s {kind} {key!r} does not fit the manifest: {expected}")
        if part != "encoder":
            faults += _label_faults(_card_labels(graph), labels)
    except (ValueError, TypeError, RecursionError) as error:
        faults.append(f"the {name} is not a whole ONNX file ({error})")
    return tuple(faults)


def _label_faults(card: object, labels: tuple[str, ...]) -> list[str]:
    seven = tuple(label for label in labels if label != NOT_JUDGEABLE)
    expected = card or (list(labels) if set(seven) != set(EXPRESSIONS) else [*EXPRESSIONS, *labels[len(seven) :]])
    fault = f"the head's labels: got {list(labels)} in the manifest, expected {expected}, the order of its outputs"
    return [] if list(labels) == expected else [fault]


def _card_labels(graph: bytes) -> object:
    for number, _, value in fields(memoryview(graph)):
        if number == _PROPERTY and not isinstance(value, int):
            pair = {key: bytes(text) for key, _, text in fields(value) if not isinstance(text, int)}
            if pair.get(1) == _LABELS:
                return json.loads(pair.get(2, b""))
    return None


def _tensors(graph: bytes, wanted: int) -> Iterator[tuple[str, Tensor]]:
    """Yield name, element type and sizes of the graph's inputs or outputs."""
    for body in _inside(memoryview(graph), _GRAPH):
        for info in _inside(body, wanted):
            name = b"".join(bytes(text) for text in _inside(info, 1)).decode("utf-8", "replace")
            for tensor in (each for kind in _inside(info, 2) for each in _inside(kind, 1)):
                types = [value for number, _, value in fields(tensor) if number == 1 and isinstance(value, int)]
                sizes = [
                    next((value for number, _, value in fields(size) if number == 1 and isinstance(value, int)), None)
                    for shape in _inside(tensor, 2)
                    for size in _inside(shape, 1)
                ]
                yield name, (_TYPES.get(types[-1] if types else 0, "another type"), tuple(sizes))


def _inside(message: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, _, value in fields(message) if number == wanted and not isinstance(value, int))


def _matches(found: Tensor | None, wanted: Tensor) -> bool:
    if found is None or found[0] != wanted[0] or len(found[1]) != len(wanted[1]):
        return False
    return all(None in (a, b) or a == b for a, b in zip(found[1], wanted[1], strict=True))


def _shown(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {kind} {sizes}".replace("None", "any") for name, (kind, sizes) in tensors.items())
