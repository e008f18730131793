"""`manifest.json` of a bundle: what a runtime needs and the figures, typed and validated.

    {"schema": 2, "name", "created", "labels", "preprocess": {...}, "sequence": {...},
     "variants": [{"name", "precision", "encoder": GRAPH, "parent", "how_made", "parity",
                   "heads": {"fer2013": {"graph": GRAPH, "temperature", "unknown_threshold", "metrics": {SPLIT: ...}},
                             "crowd": {the same, and "labels", "not_judgeable_threshold"}}}],
     "class_frequencies": {READING: {LABEL: share}},
     "licence", "intended_use", "data": [{"dataset", "used_for", "sha256", "splits", "licence", "limits"}],
     "model": {...}, "provenance": {"sha256", "size_bytes"}, "extensions": {...}}

Both heads read the features of one encoder. A variant without a head `crowd` is valid, and so is the old name `default`
of the head `fer2013`. Keys under `extensions` are free and survive an update.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Final, Literal

from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.labels import EXPRESSIONS, NOT_JUDGEABLE, READINGS
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.variant import NAME, CrowdHead, FileEntry, GraphFile, Variant

__all__ = [
    "NOT_STATED",
    "SCHEMA",
    "CrowdHead",
    "DataFacts",
    "FileEntry",
    "GraphFile",
    "Manifest",
    "SequenceSpec",
    "Variant",
    "parse_json",
    "timestamp",
    "to_json_bytes",
]

SCHEMA: Final = 2
"""The one manifest schema that this version writes and reads."""

NOT_STATED: Final = "not stated"
"""The licence of weights whose owner gave none."""


def timestamp() -> str:
    """Return the current UTC time as the manifest writes it: ``"2025-01-31T12:00:00+00:00"``."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


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
class DataFacts:
    """A data set that the weights were made from.

    Attributes:
        dataset: its name, for example ``"fer2013"`` or ``"folder"``.
        used_for: its use; data of the initial weights or of a teacher counts too.
        sha256: over the splits' hashes; empty where it was not recorded.
        splits: rows by split.
        licence: the data's terms.
        limits: known limits of the data, a sentence each.
    """

    dataset: str
    used_for: Literal["training", "initial weights", "teacher"] = "training"
    sha256: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    licence: str = NOT_STATED
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        schema: version of this format.
        name: the model's name, for example ``"edge"``.
        created: ISO 8601 time; `timestamp` gives it.
        labels: the classes in output order.
        preprocess: how a face becomes a frame.
        sequence: window, feature size, frame rate.
        class_frequencies: share of each label in the training of each head, by reading.
        variants: at least one; the first is the one the others descend from.
        licence: of the weights, apart from the code's; `NOT_STATED` where nobody stated it.
        intended_use: what the weights are for, and what not.
        data: the data sets that the weights were made from.
        model: configuration summary, parameters, MACs.
        provenance: `provenance.json`, the history of training and calibration; None where the bundle has none.
        extensions: free keys, kept as they are.

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
    class_frequencies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    licence: str = NOT_STATED
    intended_use: str = NOT_STATED
    data: tuple[DataFacts, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    provenance: FileEntry | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(self.schema == SCHEMA, "schema", self.schema, str(SCHEMA))
        expect(bool(NAME.fullmatch(self.name)), "name", self.name, "letters, digits, '.', '_', '-' (at most 64)")
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
            if variant.crowd is not None:
                expected = (*self.labels, NOT_JUDGEABLE)
                where = f"variants[{index}].heads.crowd.labels"
                expect(variant.crowd.labels == expected, where, variant.crowd.labels, ", ".join(expected))
        for reading, shares in self.class_frequencies.items():
            fit = reading in READINGS and set(shares) == set(self.labels) and min(shares.values()) > 0
            expect(fit, f"class_frequencies.{reading}", shares, "a share above 0 for every label, by reading")

    @property
    def graph_files(self) -> dict[str, GraphFile]:
        """Every graph file that the variants name, by sha256."""
        return {file.sha256: file for variant in self.variants for file in variant.parts.values()}

    def with_variant(self, variant: Variant) -> Manifest:
        """Return a copy in which `variant` replaces the one of its name, or is added after the others."""
        kept = [variant if old.name == variant.name else old for old in self.variants]
        if variant not in kept:
            kept.append(variant)
        return dataclasses.replace(self, variants=tuple(kept))

    def without_variant(self, name: str) -> Manifest:
        """Return a copy without the variant called `name`; the same where there is none."""
        return dataclasses.replace(self, variants=tuple(each for each in self.variants if each.name != name))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `from_json` reads back."""
        return dict(encode(self))

    def to_bytes(self) -> bytes:
        """Return `manifest.json`: indented UTF-8 JSON.

        Raises:
            InputError: a free-form field holds something that JSON cannot, NaN included.
        """
        return to_json_bytes(self.to_json(), what=f"the manifest of {self.name!r}")

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Build a manifest from parsed JSON.

        Raises:
            BundleError: an unknown schema, or a field that is missing, unknown, or of a wrong type or range.
        """
        if not isinstance(value, Mapping) or "schema" not in value:
            raise BundleError(f'schema: missing; expected a JSON object with "schema": {SCHEMA}')
        schema = value["schema"]
        if schema != SCHEMA or isinstance(schema, bool):
            older = isinstance(schema, int) and not isinstance(schema, bool) and 0 < schema < SCHEMA
            cure = (
                "export and calibrate the bundle again with this fer-edge"
                if older
                else "a newer schema needs a newer fer-edge (pip install --upgrade fer-edge)"
            )
            raise BundleError(f"schema: got {schema!r}, expected {SCHEMA}; {cure}")
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
        return cls.from_json(parse_json(data))


def to_json_bytes(value: Any, *, what: str) -> bytes:
    """Return `value` as indented UTF-8 JSON.

    Raises:
        InputError: `value` holds something that JSON cannot, NaN included.
    """
    try:
        return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be written as JSON: {error}") from error


def parse_json(data: bytes) -> Any:
    """Parse UTF-8 JSON of a file that may be hostile.

    Raises:
        BundleError: not UTF-8, not JSON, NaN or Infinity in it, or a key given twice.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not valid JSON: {error}") from error


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        repeated = next(key for key in table if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {repeated!r} appears twice")
    return table
