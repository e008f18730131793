"""Integrity of a bundle: manifest, graphs, weights, provenance, signature, each with a verdict."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fer_edge.core.bundle import GRAPH_FOLDER, SIGNATURE_FILE, Bundle
from fer_edge.core.errors import BundleError
from fer_edge.core.graph_interface import graph_misfits
from fer_edge.core.json import encode
from fer_edge.core.manifest import GraphFile
from fer_edge.core.onnx_wire import graph_faults
from fer_edge.core.provenance import read_provenance
from fer_edge.core.variant import Part

__all__ = ["Check", "VerifyReport", "verify_bundle"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: what was checked.
        verdict: ``"note"`` informs; the bundle stays fit.
        detail: the finding.
        sha256: of the file, as the manifest states it; None where no one file was checked.
        size_bytes: its size, likewise.
    """

    name: str
    verdict: Literal["ok", "failed", "note"]
    detail: str
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """Every check of one bundle.

    Attributes:
        path: the bundle's folder as given.
        sha256: of its manifest, None where that cannot be read.
        checks: in the order of execution.
    """

    path: str
    sha256: str | None
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """No check failed."""
        return all(check.verdict != "failed" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """`ok`, `path`, `sha256` and the checks."""
        return {"ok": self.ok, **encode(self)}


def verify_bundle(path_or_name: str | os.PathLike[str], *, public_key: Path | None = None) -> VerifyReport:
    """Check every file against the manifest, every weight for NaN, and the signature where a key is given.

    What the runtime refuses to load without running it, this refuses too (`graph_misfits`).

    The bundle may be damaged: a fault becomes a failed check, not an error.

    Args:
        path_or_name: as `Bundle.open` takes it.
        public_key: PEM file of an ed25519 key; with it, a bundle without a valid signature fails.

    Raises:
        InputError: the key cannot be read or is of another kind.
        MissingPackageError: a key was given and `cryptography` is not installed.
    """
    try:
        bundle = Bundle.open_manifest(path_or_name)
    except BundleError as error:
        failed = Check(name="manifest", verdict="failed", detail=str(error))
        return VerifyReport(path=os.fspath(path_or_name), sha256=None, checks=(failed,))
    manifest = bundle.manifest
    names = ", ".join(variant.name for variant in manifest.variants)
    checks = [Check(name="manifest", verdict="ok", detail=f"schema {manifest.schema}, {manifest.name}: {names}")]
    for variant in manifest.variants:
        checks += [_check_graph(bundle, f"{variant.name} {part}", part, file) for part, file in variant.parts.items()]
    checks.append(_check_provenance(bundle))
    checks += _unnamed_files(bundle)
    checks.append(_check_signature(bundle, public_key))
    return VerifyReport(path=str(bundle.path), sha256=bundle.sha256, checks=tuple(checks))


def _check_graph(bundle: Bundle, name: str, part: Part, file: GraphFile) -> Check:
    check = partial(Check, name=name, sha256=file.sha256, size_bytes=file.size_bytes)
    try:
        data = bundle.read_graph(file)
    except BundleError as error:
        return check(verdict="failed", detail=str(error))
    if faults := graph_faults(data) or graph_misfits(data, bundle.manifest, part):
        return check(verdict="failed", detail="; ".join(faults))
    return check(verdict="ok", detail=f"sha256 {file.sha256[:12]}, {file.size_bytes:,} bytes, finite")


def _check_provenance(bundle: Bundle) -> Check:
    entry = bundle.manifest.provenance
    if entry is None:
        return Check(name="provenance", verdict="note", detail="none")
    check = partial(Check, name="provenance", sha256=entry.sha256, size_bytes=entry.size_bytes)
    try:
        read_provenance(bundle)
    except BundleError as error:
        return check(verdict="failed", detail=str(error))
    return check(verdict="ok", detail=f"sha256 {entry.sha256[:12]}, {entry.size_bytes:,} bytes")


def _unnamed_files(bundle: Bundle) -> list[Check]:
    named = {f"{sha256}.onnx" for sha256 in bundle.manifest.graph_files}
    folder = bundle.path / GRAPH_FOLDER
    extra = sorted(path.name for path in folder.iterdir() if path.name not in named) if folder.is_dir() else []
    if not extra:
        return []
    detail = f"{len(extra)} in {GRAPH_FOLDER}/ that no variant names and nothing loads: {', '.join(extra[:3])}"
    return [Check(name="other files", verdict="note", detail=detail)]


def _check_signature(bundle: Bundle, public_key: Path | None) -> Check:
    if public_key is None:
        detail = "present; give the public key to check it" if (bundle.path / SIGNATURE_FILE).exists() else "none"
        return Check(name="signature", verdict="note", detail=detail)
    try:
        bundle.check_signature(public_key)
    except BundleError as error:
        return Check(name="signature", verdict="failed", detail=str(error))
    return Check(name="signature", verdict="ok", detail="made by the owner of the key")
