"""Engines by name: each is imported when it is asked for, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fer_edge.errors import InputError, SessionError, require
from fer_edge.onnx_wire import graph_faults
from fer_edge.runtime.session import Session
from fer_edge.telemetry import without_telemetry

__all__ = ["PROVIDERS", "open_session"]


def _cpu(graph: bytes, threads: int) -> Session:
    require("onnxruntime", needed_by="the provider 'cpu'", extra="cpu")
    from fer_edge.runtime.ort_session import OrtSession

    return OrtSession(graph, provider="cpu", threads=threads)


def _cuda(graph: bytes, threads: int) -> Session:
    require("onnxruntime", needed_by="the provider 'cuda'", extra="cuda")
    from fer_edge.runtime.ort_session import OrtSession

    return OrtSession(graph, provider="cuda", threads=threads)


def _openvino(graph: bytes, threads: int) -> Session:
    with without_telemetry():
        require("openvino", needed_by="the provider 'openvino'", extra="openvino")
    from fer_edge.runtime.openvino_session import OpenVinoSession

    return OpenVinoSession(graph, threads=threads)


PROVIDERS: Final[Mapping[str, Callable[[bytes, int], Session]]] = {"cpu": _cpu, "cuda": _cuda, "openvino": _openvino}
"""What `open_session` can open: ONNX Runtime on CPU, ONNX Runtime on CUDA, OpenVINO on CPU."""


def open_session(graph: bytes, *, provider: str = "cpu", threads: int = 1) -> Session:
    """Load a graph into an engine.

    Args:
        graph: an ONNX file's bytes, weights included.
        provider: one of `PROVIDERS`; it runs or it raises, there is no falling back.
        threads: threads that one run may use.

    Raises:
        InputError: an unknown provider, or fewer than one thread.
        SessionError: the graph is cut off or holds NaN weights, or the engine refuses it or is not to be had here.
        MissingPackageError: the engine's package is not installed.
    """
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}")
    if threads < 1:
        raise InputError(f"threads: got {threads}, expected 1 or more")
    if faults := graph_faults(graph):
        raise SessionError(f"the graph cannot be used: {'; '.join(faults)}; export it again")
    return PROVIDERS[provider](graph, threads)
