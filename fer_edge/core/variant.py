"""One variant of a bundle as the manifest describes it: its graphs, its two heads and their figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fer_edge.core.accuracy import AccuracyReport, CrowdAccuracy
from fer_edge.core.errors import BundleError
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.labels import CROWD_LABELS, NOT_JUDGEABLE, READINGS, Reading

__all__ = ["NAME", "CrowdHead", "FileEntry", "GraphFile", "Part", "Variant"]

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of bundles and variants."""

Part = Literal["encoder", "head", "crowd"]
"""A graph of a variant: the encoder, the head `fer2013`, or the head `crowd`."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RESERVED: Final = frozenset({"auto"})
_HEAD: Final = "fer2013"
_OLD_HEAD: Final = "default"
_CROWD: Final = "crowd"
_LARGEST_BYTES: Final = 1 << 29
_COLDEST, _HOTTEST = 0.01, 100.0  # far beyond what fitting gives; probabilities stay finite between
_OF_A_HEAD: Final = ("temperature", "unknown_threshold", "metrics")


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the bundle.

    Attributes:
        sha256: hex digest of its content.
        size_bytes: its size.
    """

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        expect(bool(_SHA256.fullmatch(self.sha256)), "sha256", self.sha256, "64 lower-case hexadecimal digits")
        sizes = f"1 to {_LARGEST_BYTES}"
        expect(0 < self.size_bytes <= _LARGEST_BYTES, "size_bytes", self.size_bytes, sizes)


@dataclass(frozen=True, kw_only=True)
class GraphFile(FileEntry):
    """One ONNX file of a bundle, `graphs/<sha256>.onnx`.

    Attributes:
        opset: version of the default operator set.
        ir_version: ONNX IR version.
        parameters: numbers stored in its weights.
        macs: multiply-accumulates of one frame (encoder) or of one full window (head).
    """

    opset: int
    ir_version: int
    parameters: int
    macs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.opset > 0, "opset", self.opset, "more than 0")
        expect(self.ir_version > 0, "ir_version", self.ir_version, "more than 0")
        expect(self.parameters >= 0, "parameters", self.parameters, "0 or more")
        expect(self.macs is None or self.macs >= 0, "macs", self.macs, "0 or more, or null")


@dataclass(frozen=True, kw_only=True)
class CrowdHead:
    """The head `crowd` of a variant: features to the logits of the seven expressions and `not judgeable`.

    Attributes:
        graph: features to logits.
        labels: the outputs in order.
        temperature: logits are divided by it before the softmax.
        unknown_threshold: below this probability among the seven the runtime reports ``unknown``.
        not_judgeable_threshold: above this probability of `not judgeable` the runtime reports ``unknown``.
        metrics: agreement with the FER+ votes by split.
    """

    graph: GraphFile
    labels: tuple[str, ...] = CROWD_LABELS
    temperature: float = 1.0
    unknown_threshold: float = 0.0
    not_judgeable_threshold: float = 1.0
    metrics: Mapping[str, CrowdAccuracy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(self.labels[-1:] == (NOT_JUDGEABLE,), "labels", self.labels, f"the last one to be {NOT_JUDGEABLE!r}")
        _check_scale(self.temperature, self.unknown_threshold)
        limit = self.not_judgeable_threshold
        expect(0 <= limit <= 1, "not_judgeable_threshold", limit, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One precision of the model: an encoder and its heads.

    Attributes:
        name: ``"fp32"``, ``"int8"``, ``"int8-trt"`` and so on; unique in the bundle.
        precision: numeric precision of the graphs.
        encoder: frames to features.
        head: the head `fer2013`: features to logits.
        crowd: the head `crowd`; None where the variant has none.
        parent: the variant that this one was made from.
        how_made: the method, and the gate's figures; the settings are in `provenance.json`.
        temperature: of the head `fer2013`: logits are divided by it before the softmax.
        unknown_threshold: of the head `fer2013`: below this probability the runtime reports ``unknown``.
        metrics: accuracy of the head `fer2013` by split.
        parity: differences to the parent or to torch, before temperature; ``"chain"`` holds the last parity verdict.
    """

    name: str
    precision: str
    encoder: GraphFile
    head: GraphFile
    crowd: CrowdHead | None = None
    parent: str | None = None
    how_made: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    unknown_threshold: float = 0.0
    metrics: Mapping[str, AccuracyReport] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(bool(NAME.fullmatch(self.name)), "name", self.name, "letters, digits, '.', '_', '-' (at most 64)")
        expect(self.name not in _RESERVED, "name", self.name, "another name: 'auto' is the runtime's choice")
        expect(bool(NAME.fullmatch(self.precision)), "precision", self.precision, "a word such as 'fp32' or 'int8'")
        expect(self.parent != self.name, "parent", self.parent, "another variant or null")
        _check_scale(self.temperature, self.unknown_threshold)

    @property
    def graphs(self) -> tuple[GraphFile, GraphFile]:
        """Encoder and head `fer2013`: what runs for one reading."""
        return self.encoder, self.head

    @property
    def parts(self) -> dict[Part, GraphFile]:
        """Every graph of the variant by its part; ``"head"`` is the head `fer2013`."""
        graphs: dict[Part, GraphFile] = {"encoder": self.encoder, "head": self.head}
        return graphs if self.crowd is None else {**graphs, "crowd": self.crowd.graph}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The heads of the variant, the runtime's default first."""
        return READINGS if self.crowd is not None else ("fer2013",)

    def head_graph(self, reading: Reading) -> GraphFile:
        """Return the graph of a head.

        Raises:
            BundleError: the variant has no such head.
        """
        if reading == "fer2013":
            return self.head
        if self.crowd is None:
            raise BundleError(
                f"reading: got {reading!r}, expected 'fer2013', the only head of the variant {self.name!r}"
            )
        return self.crowd.graph

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, with everything that belongs to a head under its name."""
        value = dict(encode(self))
        heads = {_HEAD: {"graph": value.pop("head"), **{name: value.pop(name) for name in _OF_A_HEAD}}}
        if (crowd := value.pop("crowd")) is not None:
            heads[_CROWD] = crowd
        return {**value, "heads": heads}

    @classmethod
    def from_json(cls, value: Any) -> Variant:
        """Build a variant from the object that `to_json` returns.

        Raises:
            InputError: a field is missing, unknown, or has a wrong type or range.
        """
        expect(isinstance(value, Mapping), "variant", value, "an object")
        heads = value.get("heads")
        names = set(heads) - {_CROWD} if isinstance(heads, Mapping) else set()
        expect(names in ({_HEAD}, {_OLD_HEAD}), "heads", heads, "a head 'fer2013', and 'crowd' where there are two")
        [name] = names
        head = heads[name]
        known = isinstance(head, Mapping) and set(head) <= {"graph", *_OF_A_HEAD}
        expect(known, f"heads.{name}", head, f"an object with graph, {', '.join(_OF_A_HEAD)}")
        own = {"head" if key == "graph" else key: part for key, part in head.items()}
        misplaced = {"head", "crowd", *_OF_A_HEAD} & set(value)
        expect(not misplaced, "variant", sorted(misplaced), "these inside heads")
        if _CROWD in heads:
            own["crowd"] = heads[_CROWD]
        rest = {key: part for key, part in value.items() if key != "heads"}
        return decode(cls, {**rest, **own})


def _check_scale(temperature: float, unknown_threshold: float) -> None:
    expect(_COLDEST <= temperature <= _HOTTEST, "temperature", temperature, f"{_COLDEST} to {_HOTTEST}")
    expect(0 <= unknown_threshold <= 1, "unknown_threshold", unknown_threshold, "0 to 1")
