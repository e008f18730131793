"""The deployment bundle: a folder with `manifest.json`, `provenance.json` and `graphs/<sha256>.onnx`.

This module reads bundles; `bundle_writer` writes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_edge.core.disk import read_regular, sha256_bytes
from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.labels import Reading
from fer_edge.core.manifest import DataFacts, FileEntry, GraphFile, Manifest, SequenceSpec, Variant, timestamp
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.variant import Part

__all__ = [
    "Bundle",
    "DataFacts",
    "GraphFile",
    "Manifest",
    "Part",
    "PreprocessSpec",
    "SequenceSpec",
    "Variant",
    "timestamp",
    "zoo_names",
]

MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
GRAPH_FOLDER: Final = "graphs"

_ZOO: Final = Path(__file__).parent.parent / "zoo"
_MANIFEST_LIMIT_BYTES: Final = 1 << 20
_SIGNATURE_LIMIT_BYTES: Final = 1 << 12

_READING: Final[Mapping[str, Reading]] = {"head": "fer2013", "crowd": "crowd"}


def zoo_names() -> tuple[str, ...]:
    """Return the names of the shipped bundles, as `Bundle.open` takes them."""
    return tuple(sorted(manifest.parent.name for manifest in _ZOO.glob(f"*/{MANIFEST_FILE}")))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An open bundle. It keeps no file open: files are read, and checked against the manifest, on demand.

    Attributes:
        path: its folder.
        manifest: the validated content of `manifest.json`.
        sha256: of `manifest.json`, which names every other file by hash, so it identifies the bundle.

    Example:
        >>> from fer_edge.core.bundle import Bundle
        >>> bundle = Bundle.open("nano")
        >>> [variant.name for variant in bundle.manifest.variants]
        ['fp32', 'int8', 'int8-trt']
    """

    path: Path
    manifest: Manifest
    sha256: str

    @classmethod
    def open(cls, path_or_name: str | os.PathLike[str]) -> Bundle:
        """Open a bundle's folder, or a shipped bundle by its bare name.

        Validates the manifest and checks that every graph exists with its size; a graph's hash is checked when it is
        read (`graph_bytes`) and by `verify_bundle`.

        Raises:
            BundleError: no bundle there, an unknown schema, a bad field, a graph missing or of another size.
        """
        bundle = cls.open_manifest(path_or_name)
        for file in bundle.manifest.graph_files.values():
            _check_size(bundle.path, file)
        return bundle

    @classmethod
    def open_manifest(cls, path_or_name: str | os.PathLike[str]) -> Bundle:
        """Open a bundle without checking its graphs.

        Raises:
            BundleError: no bundle there, an unknown schema or a bad field.
        """
        path = _locate(path_or_name)
        file = path / MANIFEST_FILE
        data = read_manifest(path)
        try:
            manifest = Manifest.from_bytes(data)
        except BundleError as error:
            raise BundleError(f"{file}: {error}") from error
        return cls(path=path, manifest=manifest, sha256=sha256_bytes(data))

    def variant(self, name: str) -> Variant:
        """Return the variant called `name`.

        Raises:
            BundleError: there is none; the message lists the variants.
        """
        for variant in self.manifest.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.manifest.variants)
        raise BundleError(f"{self.path} has no variant {name!r}; it has {names}")

    def graph_bytes(self, variant: str, part: Part) -> bytes:
        """Read one graph of a variant; the bytes returned are the bytes whose hash was checked.

        Raises:
            BundleError: no such variant or head; the file is missing, outside the bundle, or not the one the manifest
                names.
        """
        if part not in ("encoder", "head", "crowd"):
            raise InputError(f"part: got {part!r}, expected 'encoder', 'head' or 'crowd'")
        chosen = self.variant(variant)
        return self.read_graph(chosen.encoder if part == "encoder" else chosen.head_graph(_READING[part]))

    def read_graph(self, file: GraphFile) -> bytes:
        """Read a graph by its manifest entry, as `graph_bytes` does."""
        _check_size(self.path, file)
        return read_entry(self.path, graph_path(self.path, file.sha256), file)

    def check_signature(self, public_key: Path) -> None:
        """Require a signature of the manifest that was opened, by the owner of a key.

        Args:
            public_key: PEM file of an ed25519 key.

        Raises:
            BundleError: there is no signature, another's, or the manifest changed since the bundle was opened.
            InputError: the key cannot be read or is of another kind.
            MissingPackageError: `cryptography` is not installed.
        """
        from fer_edge.core.signature import signature_holds

        file = self.path / SIGNATURE_FILE
        if not file.exists():
            raise BundleError(f"{self.path}: got no {SIGNATURE_FILE}, expected one made with the owner's key")
        data, signature = read_manifest(self.path), _read(self.path, file, limit_bytes=_SIGNATURE_LIMIT_BYTES)
        if sha256_bytes(data) != self.sha256:
            raise BundleError(f"{self.path}: {MANIFEST_FILE} changed since it was opened; open it again")
        if not signature_holds(data, signature, public_key):
            raise BundleError(
                f"{file}: got another signature, expected one of this {MANIFEST_FILE} by the owner of the key "
                f"{public_key}; fetch the bundle again"
            )


def _locate(path_or_name: str | os.PathLike[str]) -> Path:
    try:
        return _place(path_or_name)
    except OSError as error:  # an unreadable folder, or a name that no file can have
        raise BundleError(f"cannot read {os.fspath(path_or_name)}: {error.strerror or error}") from error


def _place(path_or_name: str | os.PathLike[str]) -> Path:
    text = os.fspath(path_or_name)
    path = Path(text)
    bare = isinstance(path_or_name, str) and bool(text) and path.name == text and text not in (".", "..")
    if not path.exists() and bare and (_ZOO / text / MANIFEST_FILE).is_file():
        return _ZOO / text
    if not path.exists():
        shipped = f", or one of {', '.join(zoo_names())}" if bare else ""
        raise BundleError(f"bundle: got {text!r}, which does not exist, expected a bundle's folder{shipped}")
    if not path.is_dir():
        raise BundleError(f"{path} is a file, expected a bundle: a folder with {MANIFEST_FILE} in it")
    if not (path / MANIFEST_FILE).exists():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_FILE}")
    return path


def graph_path(folder: Path, sha256: str) -> Path:
    """Return the place of a graph."""
    return folder / GRAPH_FOLDER / f"{sha256}.onnx"


def _check_size(folder: Path, file: GraphFile) -> None:
    path = graph_path(folder, file.sha256)
    _check_confined(folder, path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BundleError(
            f"{path}: {error.strerror or error}, but {MANIFEST_FILE} names it; fetch or export the bundle again "
            "(or open it again, if it was updated meanwhile)"
        ) from error
    if size != file.size_bytes:
        raise BundleError(f"{path}: got {size} bytes, expected {file.size_bytes}; fetch or export the bundle again")


def _check_confined(folder: Path, path: Path) -> None:
    try:
        place, inside = path.resolve(), path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is a RuntimeError
        raise BundleError(f"{path}: got a loop of links, expected a regular file") from error
    if not inside:
        raise BundleError(f"{path}: got a link to {place}, outside the bundle, expected a file inside it")


def read_manifest(folder: Path) -> bytes:
    """Read `manifest.json`.

    Raises:
        BundleError: it is missing, no regular file, or too large.
    """
    return _read(folder, folder / MANIFEST_FILE, limit_bytes=_MANIFEST_LIMIT_BYTES)


def read_entry(folder: Path, path: Path, entry: FileEntry) -> bytes:
    """Read a file that the manifest names; the bytes returned are the bytes that were hashed.

    Raises:
        BundleError: it is missing, outside the bundle, no regular file, or not the one that the manifest names.
    """
    data = _read(folder, path, limit_bytes=entry.size_bytes)
    if (got := sha256_bytes(data)) != entry.sha256:
        raise BundleError(
            f"{path}: the content's sha256 is {got}, expected {entry.sha256}; the file was damaged or changed, "
            "fetch or export the bundle again"
        )
    return data


def _read(folder: Path, path: Path, *, limit_bytes: int) -> bytes:
    """Read a regular file inside `folder` whose size is checked before any memory is allocated for it."""
    _check_confined(folder, path)
    return read_regular(path, limit_bytes=limit_bytes, error=BundleError)
