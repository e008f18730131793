"""The deployment bundle: a folder with `manifest.json`, `provenance.json` and `graphs/<sha256>.onnx`.

Replacing `manifest.json` is the commit: new files are written before it and unreferenced ones removed after it, so that
a kill at any moment leaves the old bundle or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_edge.core.errors import BundleError, InputError, OutputError
from fer_edge.core.files import claimed, output_folder, sha256_bytes, write_atomic
from fer_edge.core.labels import Reading
from fer_edge.core.manifest import DataFacts, FileEntry, GraphFile, Manifest, SequenceSpec, Variant, timestamp
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.core.provenance import Provenance
from fer_edge.core.variant import Part

__all__ = [
    "Bundle",
    "DataFacts",
    "GraphFile",
    "Manifest",
    "Part",
    "PreprocessSpec",
    "Provenance",
    "SequenceSpec",
    "Variant",
    "timestamp",
    "zoo_names",
]

MANIFEST_FILE: Final = "manifest.json"
PROVENANCE_FILE: Final = "provenance.json"
SIGNATURE_FILE: Final = "manifest.sig"
GRAPH_FOLDER: Final = "graphs"

_ZOO: Final = Path(__file__).parent.parent / "zoo"
_MANIFEST_LIMIT_BYTES: Final = 1 << 20
_FILE_LIMIT_BYTES: Final = 2 << 30  # protobuf's own limit

# A named pipe in place of a file must not block the reader.
_READ_FLAGS: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


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
        data = _read(path, file, limit_bytes=_MANIFEST_LIMIT_BYTES)
        try:
            manifest = Manifest.from_bytes(data)
        except BundleError as error:
            raise BundleError(f"{file}: {error}") from error
        return cls(path=path, manifest=manifest, sha256=sha256_bytes(data))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        manifest: Manifest,
        graphs: Mapping[str, bytes],
        *,
        provenance: Provenance | None = None,
        overwrite: bool = False,
    ) -> Bundle:
        """Write a new bundle, whole or not at all.

        Args:
            path: the folder to make.
            manifest: names every graph; its `provenance` is set here.
            graphs: exactly the graphs that the manifest names, by sha256.
            provenance: history of training and calibration.
            overwrite: replace an existing bundle; a folder that holds anything else is never replaced.

        Raises:
            InputError: graphs and manifest do not belong together.
            OutputError: the folder exists or cannot be written; it is unchanged.
        """
        path = Path(path)
        if surplus := sorted(set(graphs) - set(manifest.graph_files)):
            raise InputError(f"graphs: got {surplus[0]}, which no variant of the manifest names")
        _check_graphs(manifest, graphs, present=set())
        if overwrite and path.is_dir() and any(path.iterdir()) and not (path / MANIFEST_FILE).is_file():
            raise OutputError(f"{path} holds files but no bundle, so it is not overwritten; choose another folder")
        history = None if provenance is None else provenance.to_bytes()
        manifest = dataclasses.replace(manifest, provenance=None if history is None else _entry(history))
        data = manifest.to_bytes()
        with output_folder(path, overwrite=overwrite) as scratch:
            (scratch / GRAPH_FOLDER).mkdir()
            for sha256, graph in graphs.items():
                write_atomic(_graph_path(scratch, sha256), graph)
            if history is not None:
                write_atomic(scratch / PROVENANCE_FILE, history)
            write_atomic(scratch / MANIFEST_FILE, data)
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
        return _read_entry(self.path, _graph_path(self.path, file.sha256), file)

    def read_provenance(self) -> Provenance:
        """Read the history of training and calibration; empty where the bundle has none.

        Raises:
            BundleError: `provenance.json` is missing, damaged or not the one that the manifest names.
        """
        entry = self.manifest.provenance
        if entry is None:
            return Provenance()
        staged = _staged_provenance(self.path, entry.sha256)
        path = staged if staged.is_file() else self.path / PROVENANCE_FILE
        try:
            return Provenance.from_bytes(_read_entry(self.path, path, entry))
        except BundleError as error:
            if Bundle.open_manifest(self.path).sha256 != self.sha256:
                raise BundleError(f"{self.path} was changed since it was opened; open it again") from error
            raise BundleError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

    def sign(self, private_key: Path) -> None:
        """Write `manifest.sig`: the raw ed25519 signature of `manifest.json`, which names every other file by hash.

        OpenSSL checks it too:
        ``openssl pkeyutl -verify -rawin -in manifest.json -sigfile manifest.sig -pubin -inkey KEY.pub``.

        Args:
            private_key: PEM file, as ``openssl genpkey -algorithm ed25519`` writes it, without a pass phrase.

        Raises:
            BundleError: the manifest changed on disk since the bundle was opened.
            InputError: the key cannot be read or is of another kind.
            OutputError: the bundle cannot be written.
            MissingPackageError: `cryptography` is not installed.
        """
        from fer_edge.core.signature import sign_bytes

        data = _read(self.path, self.path / MANIFEST_FILE, limit_bytes=_MANIFEST_LIMIT_BYTES)
        if sha256_bytes(data) != self.sha256:
            raise BundleError(f"{self.path} was changed since it was opened; open it again before signing it")
        write_atomic(self.path / SIGNATURE_FILE, sign_bytes(data, private_key))

    def updated(
        self, manifest: Manifest, graphs: Mapping[str, bytes] | None = None, *, provenance: Provenance | None = None
    ) -> Bundle:
        """Replace the manifest and add the graphs that are new to it; then remove graphs that it no longer names.

        The signature is removed too, since it belongs to the old manifest.

        Args:
            manifest: the new manifest; its `provenance` is set here.
            graphs: new graphs by sha256; those already in the bundle need not be given.
            provenance: the new history; the old one stays where None.

        Raises:
            InputError: a graph that the new manifest names is neither given nor in the bundle, or has another hash.
            BundleError: the bundle changed on disk since it was opened, or another process is updating it.
            OutputError: it cannot be written; the old bundle is unchanged.
        """
        given = {sha256: data for sha256, data in (graphs or {}).items() if sha256 in manifest.graph_files}
        history = None if provenance is None else provenance.to_bytes()
        entry = self.manifest.provenance if history is None else _entry(history)
        manifest = dataclasses.replace(manifest, provenance=entry)
        data = manifest.to_bytes()
        with _update_lock(self.path):
            if Bundle.open_manifest(self.path).sha256 != self.sha256:
                raise BundleError(f"{self.path} was changed since it was opened; open it again and repeat the change")
            here = {sha for sha in manifest.graph_files if _graph_path(self.path, sha).is_file()}
            _check_graphs(manifest, given, present=here)
            added = [_graph_path(self.path, sha256) for sha256 in given.keys() - here]
            staged = None if entry is None else _staged_provenance(self.path, entry.sha256)
            if history is not None and staged is not None and entry != self.manifest.provenance:
                added.append(staged)
            try:
                for sha256, graph in given.items():
                    write_atomic(_graph_path(self.path, sha256), graph)
                if history is not None and staged is not None:
                    write_atomic(staged, history)
                write_atomic(self.path / MANIFEST_FILE, data)
            except BaseException:
                # A Ctrl-C may arrive just after the manifest was replaced: then the new files are in use.
                if sha256_bytes((self.path / MANIFEST_FILE).read_bytes()) == self.sha256:
                    _remove(added)
                raise
            if staged is not None and staged.is_file():
                with contextlib.suppress(OSError):  # the commit is done; a reader finds the staged file too
                    os.replace(staged, self.path / PROVENANCE_FILE)
            _remove([self.path / SIGNATURE_FILE, *_orphans(self.path, manifest)])
        return Bundle(path=self.path, manifest=manifest, sha256=sha256_bytes(data))


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
        shipped = f"; shipped bundles: {', '.join(zoo_names())}" if bare and zoo_names() else ""
        raise BundleError(f"no bundle at {text!r}: no such folder{shipped}")
    if not path.is_dir():
        raise BundleError(f"{path} is a file, expected a bundle: a folder with {MANIFEST_FILE} in it")
    if not (path / MANIFEST_FILE).exists():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_FILE}")
    return path


def _graph_path(folder: Path, sha256: str) -> Path:
    return folder / GRAPH_FOLDER / f"{sha256}.onnx"


def _staged_provenance(folder: Path, sha256: str) -> Path:
    """The place of a new `provenance.json` until the manifest that names it is committed."""
    return folder / f".{PROVENANCE_FILE}.{sha256}"


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=sha256_bytes(data), size_bytes=len(data))


def _check_size(folder: Path, file: GraphFile) -> None:
    path = _graph_path(folder, file.sha256)
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
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path}: got a link to {path.resolve()}, outside the bundle, expected a file inside it")


def _read_entry(folder: Path, path: Path, entry: FileEntry) -> bytes:
    """Read a file that the manifest names; the bytes returned are the bytes that were hashed."""
    data = _read(folder, path, limit_bytes=min(entry.size_bytes, _FILE_LIMIT_BYTES))
    if (got := sha256_bytes(data)) != entry.sha256:
        raise BundleError(
            f"{path}: the content's sha256 is {got}, expected {entry.sha256}; the file was damaged or changed, "
            "fetch or export the bundle again"
        )
    return data


def _read(folder: Path, path: Path, *, limit_bytes: int) -> bytes:
    """Read a regular file inside `folder` whose size is checked before any memory is allocated for it."""
    _check_confined(folder, path)
    try:
        with open(os.open(path, _READ_FLAGS), "rb") as handle:
            found = os.fstat(handle.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{path}: got a device, pipe or folder, expected a regular file")
            if found.st_size > limit_bytes:
                raise BundleError(f"{path}: got {found.st_size} bytes, expected at most {limit_bytes}")
            return handle.read(limit_bytes)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def _check_graphs(manifest: Manifest, graphs: Mapping[str, bytes], *, present: Set[str]) -> None:
    for sha256, file in manifest.graph_files.items():
        if sha256 not in graphs:
            if sha256 not in present:
                raise InputError(f"graphs: {sha256} is missing, but the manifest names it")
            continue
        got = sha256_bytes(graphs[sha256])
        if got != sha256:
            raise InputError(f"graphs[{sha256}]: its content's sha256 is {got}")
        if len(graphs[sha256]) != file.size_bytes:
            raise InputError(f"graphs[{sha256}]: got {len(graphs[sha256])} bytes, expected {file.size_bytes}")


def _orphans(folder: Path, manifest: Manifest) -> list[Path]:
    """List graphs that the manifest does not name, and the unfinished files of a killed writer."""
    named = {f"{sha256}.onnx" for sha256 in manifest.graph_files}
    graphs = [path for path in (folder / GRAPH_FOLDER).glob("*.onnx") if path.name not in named]
    staged = [] if manifest.provenance is None else [_staged_provenance(folder, manifest.provenance.sha256)]
    graph_folder = folder / GRAPH_FOLDER
    unfinished = {*folder.glob(".*.part"), *folder.glob(f".{PROVENANCE_FILE}.*"), *graph_folder.glob(".*.part")}
    return [*graphs, *unfinished.difference(staged)]


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # the commit is done; a file that stays is never loaded
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _update_lock(folder: Path) -> Iterator[None]:
    """Admit one writer; without file locks the check against the opened manifest still holds."""
    with claimed(folder) as ours:
        if not ours:
            raise BundleError(f"{folder} is being updated by another process; wait for it and open it again")
        yield
