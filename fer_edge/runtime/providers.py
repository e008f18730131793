"""Engines by name: each is imported when it is asked for, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_edge.errors import InputError, SessionError, require
from fer_edge.onnx_wire import graph_faults
from fer_edge.runtime.session import Session
from fer_edge.telemetry import without_telemetry

__all__ = ["PROVIDERS", "Opening", "open_session"]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What an engine is told when it opens a graph.

    Attributes:
        threads: threads that one run may use.
        cache: a folder for what the engine compiles, so that the next start is quicker; None writes nothing.
    """

    threads: int = 1
    cache: Path | None = None

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

        return OrtGpuSession(graph, provider=provider, threads=opening.threads, cache=opening.cache)

    return opened


def _openvino(graph: bytes, opening: Opening) -> Session:
    with without_telemetry():
        require("openvino", needed_by="the provider 'openvino'", extra="openvino")
    from fer_edge.runtime.openvino_session import OpenVinoSession, OpenVinoSettings

    return OpenVinoSession(graph, threads=opening.threads, settings=OpenVinoSettings(cache=opening.cache))


PROVIDERS: Final[Mapping[str, Callable[[bytes, Opening], Session]]] = {
    "cpu": _cpu,
    "cuda": _ort_gpu("cuda"),
    "ort-tensorrt": _ort_gpu("ort-tensorrt"),
    "openvino": _openvino,
}
"""What `open_session` can open: ONNX Runtime on the CPU, on CUDA and on TensorRT; OpenVINO on the CPU."""


def open_session(graph: bytes, *, provider: str = "cpu", threads: int = 1, cache: Path | None = None) -> Session:
    """Load a graph into an engine.

    Args:
        graph: an ONNX file's bytes, weights included.
        provider: one of `PROVIDERS`; it runs or it raises, there is no falling back.
        threads: threads that one run may use.
        cache: a folder in which OpenVINO and ONNX Runtime's TensorRT provider keep what they compiled; nothing is
            written without it.

    Raises:
        InputError: an unknown provider, or fewer than one thread.
        SessionError: the graph is cut off or holds NaN weights, or the engine refuses it or is not to be had here.
        MissingPackageError: the engine's package is not installed.
        OutputError: the cache's folder cannot be written.
    """
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}")
    opening = Opening(threads=threads, cache=cache)
    if faults := graph_faults(graph):
        raise SessionError(f"the graph cannot be used: {'; '.join(faults)}; export it again")
    return PROVIDERS[provider](graph, opening)
