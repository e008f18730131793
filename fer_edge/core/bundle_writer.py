"""Writes bundles: a new one, an update, a signature. Tools import this; the runtime in the vehicle does not.

Replacing `manifest.json` is the commit: new files are written before it and unreferenced ones removed after it, so that
a kill at any moment leaves the old bundle or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from fer_edge.core.bundle import (
    GRAPH_FOLDER,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Bundle,
    graph_path,
    read_manifest,
)
from fer_edge.core.errors import BundleError, InputError, OutputError, require
from fer_edge.core.files import claimed, output_folder, sha256_bytes, write_atomic
from fer_edge.core.manifest import FileEntry, Manifest
from fer_edge.core.provenance import PROVENANCE_FILE, Provenance, staged_provenance
from fer_edge.core.signature import load_key

__all__ = ["create_bundle", "sign_bundle", "update_bundle"]


def create_bundle(
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
            write_atomic(graph_path(scratch, sha256), graph)
        if history is not None:
            write_atomic(scratch / PROVENANCE_FILE, history)
        write_atomic(scratch / MANIFEST_FILE, data)
    return Bundle(path=path, manifest=manifest, sha256=sha256_bytes(data))


def update_bundle(
    bundle: Bundle,
    manifest: Manifest,
    graphs: Mapping[str, bytes] | None = None,
    *,
    provenance: Provenance | None = None,
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
    entry = bundle.manifest.provenance if history is None else _entry(history)
    manifest = dataclasses.replace(manifest, provenance=entry)
    data = manifest.to_bytes()
    with _update_lock(bundle.path):
        if Bundle.open_manifest(bundle.path).sha256 != bundle.sha256:
            raise BundleError(f"{bundle.path} was changed since it was opened; open it again and repeat the change")
        here = {sha for sha in manifest.graph_files if graph_path(bundle.path, sha).is_file()}
        _check_graphs(manifest, given, present=here)
        added = [graph_path(bundle.path, sha256) for sha256 in given.keys() - here]
        staged = None if entry is None else staged_provenance(bundle.path, entry.sha256)
        if history is not None and staged is not None and entry != bundle.manifest.provenance:
            added.append(staged)
        try:
            for sha256, graph in given.items():
                write_atomic(graph_path(bundle.path, sha256), graph)
            if history is not None and staged is not None:
                write_atomic(staged, history)
            write_atomic(bundle.path / MANIFEST_FILE, data)
        except BaseException:
            # A Ctrl-C may arrive just after the manifest was replaced: then the new files are in use.
            if sha256_bytes((bundle.path / MANIFEST_FILE).read_bytes()) == bundle.sha256:
                _remove(added)
            raise
        if staged is not None and staged.is_file():
            with contextlib.suppress(OSError):  # the commit is done; a reader finds the staged file too
                os.replace(staged, bundle.path / PROVENANCE_FILE)
        _remove([bundle.path / SIGNATURE_FILE, *_orphans(bundle.path, manifest)])
    return Bundle(path=bundle.path, manifest=manifest, sha256=sha256_bytes(data))


def sign_bundle(bundle: Bundle, private_key: Path) -> None:
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
    data = read_manifest(bundle.path)
    if sha256_bytes(data) != bundle.sha256:
        raise BundleError(f"{bundle.path} was changed since it was opened; open it again before signing it")
    write_atomic(bundle.path / SIGNATURE_FILE, _sign(data, private_key))


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=sha256_bytes(data), size_bytes=len(data))


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
    staged = [] if manifest.provenance is None else [staged_provenance(folder, manifest.provenance.sha256)]
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


def _sign(data: bytes, private_key: Path) -> bytes:
    """Return the raw 64-byte ed25519 signature of `data`."""
    require("cryptography", needed_by="a bundle's signature", extra="sign")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    cure = "make one with: openssl genpkey -algorithm ed25519 -out KEY"
    what = "private key without pass phrase"
    key = load_key(
        private_key, lambda pem: load_pem_private_key(pem, password=None), Ed25519PrivateKey, what=what, cure=cure
    )
    signature: bytes = key.sign(data)
    return signature
