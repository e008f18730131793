"""Engines by name: each is imported when it is asked for, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_edge.core.errors import InputError, SessionError, require
from fer_edge.core.files import sha256_bytes
from fer_edge.core.onnx_wire import graph_faults
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.tensorrt_flavours import Package
from fer_edge.runtime.session import Session

__all__ = [
    "ENGINE_FOLDER",
    "ENGINE_PROVIDERS",
    "IDENTITY_GRAPH",
    "PROVIDERS",
    "Opening",
    "default_engine_folder",
    "open_session",
]

ENGINE_FOLDER: Final = "engines"
"""The folder of built engines in a bundle or in the user's cache."""

IDENTITY_GRAPH: Final = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""An ONNX file (IR 8, opset 17), float32 x (1) -> Identity -> y: shows that an engine loads a graph at all."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What an engine is told when it opens a graph.

    Attributes:
        threads: threads that one run may use.
        engines: a folder for what the engine compiles, so that the next start is quicker; None writes nothing.
    """

    threads: int = 1
    engines: Path | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InputError(f"threads: got {self.threads}, expected 1 or more")


def _cpu(graph: bytes, opening: Opening) -> Session:
    require("onnxruntime", needed_by="the provider 'cpu'", extra="cpu")
    from fer_edge.runtime.ort_session import OrtSession

    return OrtSession(graph, threads=opening.threads)


def _ort_gpu(provider: str) -> Callable[[bytes, Opening], Session]:
    def opened(graph: bytes, opening: Opening) -> Session:
        require("onnxruntime", needed_by=f"the provider {provider!r}", extra="cuda")
        from fer_edge.runtime.ort_gpu_session import OrtGpuSession

        return OrtGpuSession(graph, provider=provider, threads=opening.threads, cache=opening.engines)

    return opened


def _openvino(graph: bytes, opening: Opening) -> Session:
    with without_telemetry():
        require("openvino", needed_by="the provider 'openvino'", extra="openvino")
    from fer_edge.runtime.openvino_session import OpenVinoSession, OpenVinoSettings

    return OpenVinoSession(graph, threads=opening.threads, settings=OpenVinoSettings(cache=opening.engines))


PROVIDERS: Final[Mapping[str, Callable[[bytes, Opening], Session]]] = {
    "cpu": _cpu,
    "cuda": _ort_gpu("cuda"),
    "ort-tensorrt": _ort_gpu("ort-tensorrt"),
    "openvino": _openvino,
}
"""What `open_session` opens from a graph alone: ONNX Runtime on CPU, CUDA and TensorRT, OpenVINO on CPU."""

ENGINE_PROVIDERS: Final[Mapping[str, Package]] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""What `open_session` opens from an engine that was built from the graph (`fer-edge export --target`)."""


def default_engine_folder() -> Path:
    """Where engines lie that no folder is named for: ``engines`` in the user's cache (``FER_EDGE_CACHE``)."""
    from fer_edge.core.files import default_cache_folder

    return default_cache_folder() / ENGINE_FOLDER


def open_session(graph: bytes, *, provider: str = "cpu", threads: int = 1, engines: Path | None = None) -> Session:
    """Load a graph into an engine.

    Args:
        graph: an ONNX file's bytes, weights included.
        provider: one of `PROVIDERS` or `ENGINE_PROVIDERS`; it runs or it raises, there is no falling back.
        threads: threads that one run may use.
        engines: for `ENGINE_PROVIDERS` an engine's file or a folder of engines; `default_engine_folder` by default. For
            OpenVINO and ONNX Runtime's TensorRT provider a folder in which they keep what they compiled, so that the
            next start is quicker; without it they write nothing.

    Raises:
        InputError: an unknown provider, or fewer than one thread.
        SessionError: the graph is cut off or holds NaN weights, or the engine refuses it or is not to be had here.
        MissingPackageError: the engine's package is not installed.
        OutputError: `engines` cannot be written.
    """
    if provider not in PROVIDERS and provider not in ENGINE_PROVIDERS:
        known = ", ".join((*PROVIDERS, *ENGINE_PROVIDERS))
        raise InputError(f"unknown provider {provider!r}; expected one of {known}")
    opening = Opening(threads=threads, engines=engines)
    if faults := graph_faults(graph):
        raise SessionError(f"the graph cannot be used: {'; '.join(faults)}; export it again")
    if provider in ENGINE_PROVIDERS:
        from fer_edge.runtime.tensorrt_session import open_engine_session

        return open_engine_session(
            engines or default_engine_folder(),
            graph_sha256=sha256_bytes(graph),
            package=ENGINE_PROVIDERS[provider],
            build="fer-edge export BUNDLE --target TARGET --out FOLDER, or run with --rebuild",
        )
    return PROVIDERS[provider](graph, opening)
