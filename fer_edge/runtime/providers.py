"""Providers: the engines by name, each imported only when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fer_edge.core.disk import default_cache_folder, sha256_bytes
from fer_edge.core.errors import InputError, SessionError, require
from fer_edge.core.onnx_wire import graph_faults
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.tensorrt_flavours import Package
from fer_edge.runtime.arguments import check_type, whole_number
from fer_edge.runtime.session import Session

__all__ = [
    "ENGINE_FOLDER",
    "ENGINE_PROVIDERS",
    "IDENTITY_GRAPH",
    "PROVIDERS",
    "check_provider",
    "default_engine_folder",
    "open_session",
]

ENGINE_FOLDER: Final = "engines"
"""The folder of built engines in a bundle or in the user's cache."""

IDENTITY_GRAPH: Final = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""An ONNX file (IR 8, opset 17), float32 x (1) -> Identity -> y: the smallest graph to test an engine with."""


def _cpu(graph: bytes, threads: int, cache: Path | None) -> Session:
    require("onnxruntime", needed_by="the provider 'cpu'", extra="cpu")
    from fer_edge.runtime.ort_session import OrtSession

    return OrtSession(graph, threads=threads)


def _ort_gpu(provider: str) -> Callable[[bytes, int, Path | None], Session]:
    def opened(graph: bytes, threads: int, cache: Path | None) -> Session:
        require("onnxruntime", needed_by=f"the provider {provider!r}", extra="cuda")
        from fer_edge.runtime.ort_gpu_session import OrtGpuSession

        return OrtGpuSession(graph, provider=provider, threads=threads, cache=cache)

    return opened


def _openvino(graph: bytes, threads: int, cache: Path | None) -> Session:
    with without_telemetry():
        require("openvino", needed_by="the provider 'openvino'", extra="openvino")
    from fer_edge.runtime.openvino_session import OpenVinoSession

    return OpenVinoSession(graph, threads=threads, cache=cache)


def _litert(graph: bytes, threads: int, cache: Path | None) -> Session:
    require("ai_edge_litert", needed_by="the provider 'litert'", extra="litert")
    from fer_edge.runtime.litert_session import LiteRtSession, find_litert

    return LiteRtSession(
        find_litert(cache or default_engine_folder(), graph_sha256=sha256_bytes(graph)), threads=threads
    )


PROVIDERS: Final[Mapping[str, Callable[[bytes, int, Path | None], Session]]] = {
    "cpu": _cpu,
    "cuda": _ort_gpu("cuda"),
    "ort-tensorrt": _ort_gpu("ort-tensorrt"),
    "openvino": _openvino,
    "litert": _litert,
}
"""Providers that load an ONNX graph; LiteRT loads the file that was made from it."""

ENGINE_PROVIDERS: Final[Mapping[str, Package]] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""Providers that load an engine built from the graph (`fer-edge export BUNDLE --target TARGET`)."""


def default_engine_folder() -> Path:
    """Return the folder of engines where none is named: ``engines`` in the user's cache (``FER_EDGE_CACHE``)."""
    return default_cache_folder() / ENGINE_FOLDER


def check_provider(name: str) -> None:
    """Refuse anything but a provider's name.

    Raises:
        InputError: an unknown provider, or another type.
    """
    check_type("provider", name, str, "a provider's name")
    known = (*PROVIDERS, *ENGINE_PROVIDERS)
    if name not in known:
        raise InputError(f"provider: got {name!r}, expected one of {', '.join(known)}")


def open_session(
    graph: bytes, *, provider: str = "cpu", threads: int = 1, engines: str | os.PathLike[str] | None = None
) -> Session:
    """Load a graph into an engine; another engine is never used in its place.

    Args:
        graph: an ONNX file's bytes, weights included.
        provider: one of `PROVIDERS` or `ENGINE_PROVIDERS`.
        threads: threads that one run may use.
        engines: for `ENGINE_PROVIDERS` an engine's file or a folder of engines; `default_engine_folder` by default. For
            OpenVINO and ONNX Runtime's TensorRT provider the folder in which they keep compiled programs, so that the
            next start is quicker; without it they write nothing.

    Raises:
        InputError: an unknown provider, fewer than one thread, or an argument of another type.
        SessionError: the graph is truncated or holds NaN weights, or the engine refuses it or is not available here.
        MissingPackageError: the engine's package is not installed.
        OutputError: `engines` cannot be written.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import open_session
        >>> from fer_edge.runtime.providers import IDENTITY_GRAPH
        >>> with open_session(IDENTITY_GRAPH, provider="cpu") as session:
        ...     float(session.run({"x": np.array([3.0], np.float32)})["y"][0])
        3.0
    """
    check_type("graph", graph, bytes, "an ONNX file's bytes")
    check_provider(provider)
    threads = whole_number("threads", threads, least=1, most=1024)
    folder = None
    if engines is not None:
        check_type("engines", engines, (str, os.PathLike), "a folder, an engine's file or None")
        folder = Path(engines)
    if faults := graph_faults(graph):
        raise SessionError(f"the graph cannot be used: {'; '.join(faults)}; export it again")
    if provider in PROVIDERS:
        return PROVIDERS[provider](graph, threads, folder)
    from fer_edge.runtime.tensorrt_session import open_engine_session

    return open_engine_session(
        folder or default_engine_folder(),
        graph_sha256=sha256_bytes(graph),
        package=ENGINE_PROVIDERS[provider],
        build="fer-edge export BUNDLE --target TARGET --out FOLDER, or run with --rebuild",
    )
