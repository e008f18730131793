"""A bundle to the files that one engine on one kind of machine runs; torch is not involved."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.bundle import Bundle
from fer_edge.data.faces.stills import synthetic_stills
from fer_edge.errors import InputError, MissingPackageError, require
from fer_edge.export.parity import Parity, compare_outputs, require_parity
from fer_edge.files import output_folder, sha256_file, write_json
from fer_edge.preprocess import prepare_stills
from fer_edge.runtime.network import choose_variant
from fer_edge.runtime.providers import open_session
from fer_edge.telemetry import without_telemetry

__all__ = ["TARGETS", "TargetFile", "TargetReport", "choose_target", "export_target"]


@dataclass(frozen=True, kw_only=True)
class TargetFile:
    """One file of a target folder."""

    name: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> TargetFile:
        """The entry of a file that stands on disk."""
        return cls(name=path.name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """What was written for a target, from what, and how well it agrees; `target.json` beside the files.

    Attributes:
        target: the target's name.
        bundle: the bundle's name.
        bundle_sha256: of its manifest.
        variant: the variant that was taken.
        provider: the engine that runs the files, with its version.
        machine: the processor's architecture the files were made on.
        files: what was written.
        parity: the written files against the bundle's own graphs in the same engine.
    """

    target: str
    bundle: str
    bundle_sha256: str
    variant: str
    provider: str
    machine: str
    files: tuple[TargetFile, ...]
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {**asdict(self), "files": [asdict(file) for file in self.files], "parity": self.parity.to_json()}


Run = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """How one engine's files are written, and how a written graph is run again.

    Attributes:
        write: (graph, stem, folder) -> the files written.
        load: (stem, folder) -> what runs the files just written.
    """

    write: Callable[[bytes, str, Path], list[Path]]
    load: Callable[[str, Path], Run]


def _write_ort(graph: bytes, stem: str, folder: Path) -> list[Path]:
    """ONNX Runtime's own optimisations, short of those that bind the file to one processor, done ahead of time."""
    onnxruntime = require("onnxruntime", needed_by="the target 'cpu'", extra="cpu")
    path = folder / f"{stem}.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return [path]


def _load_ort(stem: str, folder: Path) -> Run:
    return open_session((folder / f"{stem}.onnx").read_bytes(), provider="cpu").run


def _write_openvino(graph: bytes, stem: str, folder: Path) -> list[Path]:
    """OpenVINO's intermediate representation: a graph in XML and its weights beside it."""
    with without_telemetry():
        openvino = require("openvino", needed_by="the target 'openvino'", extra="openvino")
        path = folder / f"{stem}.xml"
        from fer_edge.runtime.openvino_session import openvino_core

        openvino.save_model(openvino_core().read_model(graph), path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def _load_openvino(stem: str, folder: Path) -> Run:
    from fer_edge.runtime.openvino_session import openvino_core

    compiled = openvino_core().compile_model(folder / f"{stem}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = compiled(dict(feeds))
        return {output.any_name: np.array(found[output]) for output in compiled.outputs}

    return run


TARGETS: Final[Mapping[str, _Target]] = {
    "cpu": _Target(write=_write_ort, load=_load_ort),
    "openvino": _Target(write=_write_openvino, load=_load_openvino),
}
"""Target name -> how its files are written and run."""


def choose_target(target: str) -> str:
    """The target that `target` means: itself, or for ``"auto"`` the fastest engine that is installed here.

    Raises:
        InputError: no such target.
        MissingPackageError: ``"auto"``, and no engine is installed.
    """
    if target != "auto":
        if target not in TARGETS:
            raise InputError(f"unknown target {target!r}; expected auto or one of {', '.join(TARGETS)}")
        return target
    for name, package in (("openvino", "openvino"), ("cpu", "onnxruntime")):
        try:
            with without_telemetry():
                require(package, needed_by="fer-edge export --target auto", extra=name)
        except MissingPackageError:
            continue
        return name
    raise MissingPackageError(
        "fer-edge export --target auto found neither onnxruntime nor openvino. "
        "Install one with: pip install 'fer-edge[cpu]'"
    )


def export_target(
    bundle: Bundle,
    *,
    target: str = "auto",
    out: Path,
    variant: str = "auto",
    clip: bool = False,
    tolerance: float = 1e-3,
    overwrite: bool = False,
) -> TargetReport:
    """Write a variant's graphs in the form that the target's engine runs.

    Args:
        bundle: an open bundle.
        target: one of `TARGETS`, or ``"auto"``.
        out: folder for the files and `target.json`.
        variant: a variant's name, or ``"auto"``.
        clip: also write the fused graph from a whole clip to its logits (needs the package onnx).
        tolerance: largest difference of any output, on generated faces, between the written files and the same engine
            on the bundle's own graphs.
        overwrite: replace what stands in `out`.

    Raises:
        InputError: no such target.
        BundleError: no such variant, or a damaged bundle.
        GateError: the written files do not compute what the bundle's graphs compute; nothing is left behind.
        OutputError: the folder cannot be written.
    """
    target = choose_target(target)
    chosen = choose_variant(bundle.manifest, variant=variant, provider=target)
    graphs = {part: bundle.graph_bytes(chosen, part) for part in ("encoder", "head")}
    if clip:
        graphs["clip"] = _fused(graphs)
    with output_folder(out, overwrite=overwrite) as folder:
        paths = [path for stem, graph in graphs.items() for path in TARGETS[target].write(graph, stem, folder)]
        parity, provider = _parity(bundle, target, graphs, folder)
        require_parity(parity, tolerance=tolerance, what=f"the target {target!r} against the bundle's {chosen}")
        report = TargetReport(
            target=target,
            bundle=bundle.manifest.name,
            bundle_sha256=bundle.sha256,
            variant=chosen,
            provider=provider,
            machine=platform.machine(),
            files=tuple(TargetFile.of(path) for path in paths),
            parity=parity,
        )
        write_json(folder / "target.json", report.to_json())
    return report


def _fused(graphs: Mapping[str, bytes]) -> bytes:
    require("onnx", needed_by="the fused clip graph", extra="calibrate")
    from fer_edge.graph.fuse import fuse_clip_graph
    from fer_edge.graph.load import dump_graph, load_graph

    return dump_graph(fuse_clip_graph(load_graph(graphs["encoder"]), load_graph(graphs["head"])))


def _parity(bundle: Bundle, target: str, graphs: Mapping[str, bytes], folder: Path) -> tuple[Parity, str]:
    """The written files against the bundle's own graphs in the same engine, on generated faces."""
    size, window = bundle.manifest.preprocess.size, bundle.manifest.sequence.window
    faces = prepare_stills(synthetic_stills(2 * window, seed=0)[0], bundle.manifest.preprocess)
    lengths = np.array([window, 1 + window // 2], np.int64)
    clips = faces.reshape(2, window, size, size)
    feeds: dict[str, dict[str, NDArray[Any]]] = {
        "encoder": {"frames": faces},
        "clip": {"frames": clips, "length": lengths},
    }
    pairs, provider = [], ""
    for stem, graph in graphs.items():
        with open_session(graph, provider=target) as session:
            expected, provider = session.run(feeds[stem]), session.provider_version
        pairs.append((expected, TARGETS[target].load(stem, folder)(feeds[stem])))
        if stem == "encoder":
            feeds["head"] = {"features": expected["features"].reshape(2, window, -1), "length": lengths}
    return compare_outputs(pairs, [next(iter(feeds[stem].values())).shape for stem in graphs]), provider
