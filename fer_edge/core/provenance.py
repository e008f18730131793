"""`provenance.json` of a bundle: its training and calibration history, which no runtime reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fer_edge.core.bundle import Bundle, read_entry
from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.json import decode, encode, expect
from fer_edge.core.manifest import parse_json, to_json_bytes

__all__ = ["PROVENANCE_FILE", "Provenance", "read_provenance", "staged_provenance"]

PROVENANCE_FILE: Final = "provenance.json"

_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The history of a bundle.

    Attributes:
        schema: version of this format.
        training: the run's record: recipe, data, seeds, versions, and the records of the networks it started from.
        calibration: by variant: sample, settings, versions.
        outputs: by variant: torch's outputs on pattern frames, for `fer-edge parity`.
    """

    schema: int = _SCHEMA
    training: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expect(self.schema == _SCHEMA, "schema", self.schema, str(_SCHEMA))

    def to_bytes(self) -> bytes:
        """Return `provenance.json`: indented UTF-8 JSON.

        Raises:
            InputError: a record holds something that JSON cannot, NaN included.
        """
        return to_json_bytes(encode(self), what="the provenance")

    @classmethod
    def from_bytes(cls, data: bytes) -> Provenance:
        """Parse `provenance.json`.

        Raises:
            BundleError: not JSON, or a field that is missing, unknown or of a wrong type.
        """
        try:
            return decode(cls, parse_json(data))
        except InputError as error:
            raise BundleError(str(error)) from error


def read_provenance(bundle: Bundle) -> Provenance:
    """Read the history of training and calibration; empty where the bundle has none.

    Raises:
        BundleError: `provenance.json` is missing, damaged or not the one that the manifest names.
    """
    entry = bundle.manifest.provenance
    if entry is None:
        return Provenance()
    staged = staged_provenance(bundle.path, entry.sha256)
    path = staged if staged.is_file() else bundle.path / PROVENANCE_FILE
    try:
        return Provenance.from_bytes(read_entry(bundle.path, path, entry))
    except BundleError as error:
        if Bundle.open_manifest(bundle.path).sha256 != bundle.sha256:
            raise BundleError(f"{bundle.path} was changed since it was opened; open it again") from error
        raise BundleError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def staged_provenance(folder: Path, sha256: str) -> Path:
    """Return the place of a new `provenance.json` until the manifest that names it is committed."""
    return folder / f".{PROVENANCE_FILE}.{sha256}"
