"""What a bundle's `manifest.json` says: typed, validated, and the same bytes for the same content."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final

from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import AccuracyReport
from fer_edge.core.preprocess import PreprocessSpec

__all__ = ["SCHEMA", "GraphFile", "Manifest", "Provenance", "SequenceSpec", "Variant", "timestamp"]

SCHEMA: Final = 1
"""The one manifest schema that this version writes and reads."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RESERVED: Final = frozenset({"auto"})


def timestamp() -> str:
    """Now, in UTC, as the manifest writes it: ``"2025-01-31T12:00:00+00:00"``."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """One ONNX file of a bundle, `graphs/<sha256>.onnx`.

    Attributes:
        sha256: hex digest of the file, which is also its name.
        size_bytes: its size.
        opset: version of the default operator set.
        ir_version: ONNX IR version.
        parameters: numbers stored in its weights.
        macs: multiply-accumulates of one frame (encoder) or of one full window (head).
    """

    sha256: str
    size_bytes: int
    opset: int
    ir_version: int
    parameters: int
    macs: int | None = None

    def __post_init__(self) -> None:
        expect(bool(_SHA256.fullmatch(self.sha256)), "sha256", self.sha256, "64 lower-case hexadecimal digits")
        expect(self.size_bytes > 0, "size_bytes", self.size_bytes, "more than 0")
        expect(self.opset > 0, "opset", self.opset, "more than 0")
        expect(self.ir_version > 0, "ir_version", self.ir_version, "more than 0")
        expect(self.parameters >= 0, "parameters", self.parameters, "0 or more")
        expect(self.macs is None or self.macs >= 0, "macs", self.macs, "0 or more, or null")


@dataclass(frozen=True, kw_only=True)
class SequenceSpec:
    """The window that the sequence head was trained for.

    Attributes:
        window: frames T of a full window.
        feature_size: width F of one frame's feature vector.
        frame_rate: features a second, whatever the camera's rate.
    """

    window: int = 16
    feature_size: int
    frame_rate: float = 10.0

    def __post_init__(self) -> None:
        expect(1 <= self.window <= 1024, "window", self.window, "1 to 1024 frames")
        expect(1 <= self.feature_size <= 65536, "feature_size", self.feature_size, "1 to 65536")
        expect(0 < self.frame_rate <= 1000, "frame_rate", self.frame_rate, "above 0, at most 1000 a second")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One precision of the model: an encoder, a head, and how they came to be.

    Attributes:
        name: ``"fp32"``, ``"int8"``, ``"int8-trt"`` and so on; unique in the bundle.
        precision: numeric precision of the graphs.
        encoder: frames to features.
        head: features to logits.
        parent: the variant that this one was made from.
        how_made: method, settings and versions.
        temperature: logits are divided by it before the softmax.
        unknown_threshold: below this probability the runtime reports ``unknown``.
        metrics: accuracy by split.
        parity: differences to the parent or to torch, before temperature.
    """

    name: str
    precision: str
    encoder: GraphFile
    head: GraphFile
    parent: str | None = None
    how_made: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    unknown_threshold: float = 0.0
    metrics: Mapping[str, AccuracyReport] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(bool(_NAME.fullmatch(self.name)), "name", self.name, "letters, digits, '.', '_', '-' (at most 64)")
        expect(self.name not in _RESERVED, "name", self.name, "another name: 'auto' is the runtime's choice")
        expect(bool(_NAME.fullmatch(self.precision)), "precision", self.precision, "a word such as 'fp32' or 'int8'")
        expect(self.parent != self.name, "parent", self.parent, "another variant or null")
        warm = math.isfinite(self.temperature) and self.temperature > 0
        expect(warm, "temperature", self.temperature, "a finite number above 0")
        expect(0 <= self.unknown_threshold <= 1, "unknown_threshold", self.unknown_threshold, "0 to 1")

    @property
    def graphs(self) -> tuple[GraphFile, GraphFile]:
        """Encoder and head."""
        return self.encoder, self.head


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the weights came from: data set, split, sample hashes, seeds, versions."""

    training: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a bundle says about itself.

    Attributes:
        schema: version of this format.
        name: the model's name, for example ``"edge"``.
        created: ISO 8601 time; `timestamp` gives it.
        labels: the classes in output order.
        preprocess: how a face becomes a frame.
        sequence: window, feature size, frame rate.
        variants: at least one; the first is the one the others descend from.
        provenance: training and calibration.
        licence: of the weights, apart from the code's.
        intended_use: what the weights are for, and what not.
        model: configuration summary, parameters, MACs.

    Raises:
        InputError: a value outside its range, named.
    """

    schema: int = SCHEMA
    name: str
    created: str
    labels: tuple[str, ...] = EXPRESSIONS
    preprocess: PreprocessSpec
    sequence: SequenceSpec
    variants: tuple[Variant, ...]
    provenance: Provenance
    licence: str
    intended_use: str
    model: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(self.schema == SCHEMA, "schema", self.schema, str(SCHEMA))
        expect(bool(_NAME.fullmatch(self.name)), "name", self.name, "letters, digits, '.', '_', '-' (at most 64)")
        expect(_is_time(self.created), "created", self.created, "an ISO 8601 time")
        distinct = len(set(self.labels)) == len(self.labels) >= 2 and all(self.labels)
        expect(distinct, "labels", self.labels, "at least two different names")
        expect(bool(self.licence.strip()), "licence", self.licence, "the weights' licence")
        expect(bool(self.intended_use.strip()), "intended_use", self.intended_use, "a sentence on the intended use")
        names = [variant.name for variant in self.variants]
        expect(len(names) > 0, "variants", names, "at least one variant")
        expect(len(set(names)) == len(names), "variants", names, "different names")
        for index, variant in enumerate(self.variants):
            known = variant.parent is None or variant.parent in names
            expect(known, f"variants[{index}].parent", variant.parent, f"null or one of {', '.join(names)}")

    @property
    def graph_files(self) -> dict[str, GraphFile]:
        """Every graph file that the variants name, by sha256."""
        return {file.sha256: file for variant in self.variants for file in variant.graphs}

    def with_variant(self, variant: Variant) -> Manifest:
        """A copy in which `variant` replaces the one of its name, or is added after the others."""
        kept = [variant if old.name == variant.name else old for old in self.variants]
        if variant not in kept:
            kept.append(variant)
        return dataclasses.replace(self, variants=tuple(kept))

    def without_variant(self, name: str) -> Manifest:
        """A copy that lacks the variant called `name`; the same where there is none."""
        return dataclasses.replace(self, variants=tuple(each for each in self.variants if each.name != name))

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads back."""
        return dict(encode(self))

    def to_bytes(self) -> bytes:
        """`manifest.json`: indented UTF-8 JSON.

        Raises:
            InputError: a free-form field holds something that JSON cannot, NaN included.
        """
        try:
            return (json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise InputError(f"the manifest of {self.name!r} cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Read a parsed manifest, every field of it.

        Raises:
            BundleError: an unknown schema, or a field that is missing, unknown, or of a wrong type or range, named.
        """
        if not isinstance(value, Mapping) or "schema" not in value:
            raise BundleError('schema: missing; expected a JSON object with "schema": 1')
        if value["schema"] != SCHEMA or isinstance(value["schema"], bool):
            raise BundleError(
                f"schema: got {value['schema']!r}, expected {SCHEMA}; a newer schema needs a newer fer-edge "
                "(pip install --upgrade fer-edge)"
            )
        try:
            return decode(cls, value)
        except InputError as error:
            raise BundleError(str(error)) from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse `manifest.json`.

        Raises:
            BundleError: not UTF-8, not JSON, NaN or Infinity in it, or as `from_json`.
        """
        try:
            value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"not valid JSON: {error}") from error
        return cls.from_json(value)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        repeated = next(key for key in table if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {repeated!r} stands twice")
    return table
