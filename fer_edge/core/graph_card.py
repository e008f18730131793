"""The card of a graph: labels, preprocessing, bundle, licence and version, stored in the ONNX file itself.

A bundle names its graphs by their hashes, so a graph cannot hold its bundle's hash; it holds the hash of its weights.
The entries are ONNX's ``metadata_props``, whose keys begin with ``fer_edge.``. They are added without the package
`onnx`, because the vehicle's tools have none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fer_edge import __version__
from fer_edge.core.errors import InputError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.json import encode
from fer_edge.core.manifest import GraphFile, Manifest, Variant
from fer_edge.core.onnx_wire import fields, graph_faults
from fer_edge.core.variant import Part

__all__ = ["graph_card", "read_card", "with_card", "with_cards"]

_PREFIX: Final = "fer_edge."
_GRAPH, _PROPERTY, _TENSOR = 7, 14, 5  # field numbers of onnx.proto


def graph_card(manifest: Manifest, variant: Variant, part: Part) -> dict[str, Any]:
    """Return what a graph's user needs to know of its bundle; labels for heads only."""
    labels = () if part == "encoder" else manifest.labels
    if part == "crowd" and variant.crowd is not None:
        labels = variant.crowd.labels
    return {
        "bundle": manifest.name,
        "variant": variant.name,
        "precision": variant.precision,
        "part": part,
        **({"labels": list(labels)} if labels else {}),
        "preprocess": encode(manifest.preprocess),
        "sequence": encode(manifest.sequence),
        "licence": manifest.licence,
        "intended_use": manifest.intended_use,
        "fer_edge": __version__,
    }


def with_card(graph: bytes, card: Mapping[str, Any]) -> bytes:
    """Return an ONNX file with this card in place of an earlier one; the same card gives the same bytes."""
    entries = {**card, "weights_sha256": _weights_sha256(graph)}
    kept = [_field(*each) for each in fields(memoryview(graph)) if not _is_ours(*each)]
    added = []
    for name, value in entries.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        pair = _field(1, 2, f"{_PREFIX}{name}".encode()) + _field(2, 2, text.encode())
        added.append(_field(_PROPERTY, 2, pair))
    return b"".join([*kept, *added])


def with_cards(manifest: Manifest, graphs: Mapping[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """Put cards on graphs, and their new hashes into the manifest.

    Args:
        manifest: names the graphs by hash.
        graphs: by hash; the manifest's other graphs stay as they are.
    """
    made: dict[str, tuple[GraphFile, bytes]] = {}

    def carded(variant: Variant, part: Part, file: GraphFile) -> GraphFile:
        if file.sha256 not in graphs:
            return file
        if file.sha256 not in made:  # a graph of several variants has the card of the first
            data = with_card(graphs[file.sha256], graph_card(manifest, variant, part))
            described = dataclasses.replace(file, sha256=sha256_bytes(data), size_bytes=len(data))
            made[file.sha256] = described, data
        return made[file.sha256][0]

    variants = []
    for variant in manifest.variants:
        crowd = variant.crowd
        if crowd is not None:
            crowd = dataclasses.replace(crowd, graph=carded(variant, "crowd", crowd.graph))
        encoder, head = carded(variant, "encoder", variant.encoder), carded(variant, "head", variant.head)
        variants.append(dataclasses.replace(variant, encoder=encoder, head=head, crowd=crowd))
    return dataclasses.replace(manifest, variants=tuple(variants)), {file.sha256: data for file, data in made.values()}


def read_card(graph: bytes, *, name: str) -> dict[str, Any]:
    """Read the card of an ONNX file.

    Args:
        graph: the file's bytes.
        name: the file's name in messages.

    Raises:
        InputError: no ONNX file, no card, or weights that are not the card's.
    """
    if faults := graph_faults(graph):
        raise InputError(f"{name}: {'; '.join(faults)}")
    card: dict[str, Any] = {}
    for each in fields(memoryview(graph)):
        if _is_ours(*each):
            key, text = (bytes(value).decode() for _, _, value in fields(each[2]))  # type: ignore[arg-type]
            value = json.loads(text) if text[:1] in ("{", "[") else text
            card[key.removeprefix(_PREFIX)] = value
    if not card:
        raise InputError(f"{name}: got no card, expected entries {_PREFIX}* in metadata_props; export the bundle again")
    if card.get("weights_sha256") != (found := _weights_sha256(graph)):
        raise InputError(f"{name}: got weights of the hash {found[:16]}, expected those of its card; export it again")
    return card


def _is_ours(number: int, wire_type: int, value: int | memoryview) -> bool:
    if number != _PROPERTY or isinstance(value, int):
        return False
    return any(field == 1 and bytes(key).startswith(_PREFIX.encode()) for field, _, key in _strings(value))


def _strings(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    return ((number, kind, value) for number, kind, value in fields(message) if not isinstance(value, int))


def _weights_sha256(graph: bytes) -> str:
    """Hash the initialisers, in order."""
    digest = hashlib.sha256()
    for number, _, value in _strings(memoryview(graph)):
        if number == _GRAPH:
            for inner, _, tensor in _strings(value):
                if inner == _TENSOR:
                    digest.update(tensor)
    return digest.hexdigest()


def _field(number: int, wire_type: int, value: int | bytes | memoryview) -> bytes:
    key = _varint(number << 3 | wire_type)
    if isinstance(value, int):
        return key + (_varint(value) if wire_type == 0 else value.to_bytes(8 if wire_type == 1 else 4, "little"))
    return key + _varint(len(value)) + bytes(value)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])
