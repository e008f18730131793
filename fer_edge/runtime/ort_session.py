"""ONNX Runtime as a session, on CPU or CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

import numpy as np
import onnxruntime

from fer_edge.errors import SessionError
from fer_edge.runtime.session import Array, TensorSpec, check_feeds

__all__ = ["OrtSession"]

_ORT_NAMES: Final[Mapping[str, str]] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FATAL_ONLY: Final = 4  # what goes wrong reaches the caller as an exception, so the log need not repeat it
_DTYPES: Final[Mapping[str, str]] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}

onnxruntime.disable_telemetry_events()


class OrtSession:
    """A graph in ONNX Runtime.

    `run` may be called from several threads at once; with one intra-op thread each call then works in its caller's
    own thread. ONNX Runtime folds Cast and Mul of constants when it loads a graph, so LSTM weights that are stored as
    int8 that way take their full float32 size in memory; a DequantizeLinear it computes anew at every run.

    Args:
        graph: an ONNX file's bytes.
        provider: ``"cpu"`` or ``"cuda"``; without CUDA at hand ``"cuda"`` raises.
        threads: intra-op threads. They sleep between runs instead of spinning, which would burn a core of the vehicle's
            computer for microseconds gained.

    Raises:
        SessionError: the graph is refused, or the provider is not the one that would run.
    """

    def __init__(self, graph: bytes, *, provider: str, threads: int) -> None:
        wanted = _ORT_NAMES[provider]
        available = onnxruntime.get_available_providers()
        if wanted not in available:
            cure = " Install it with: pip install 'fer-edge[cuda]'" if provider == "cuda" else ""
            raise SessionError(
                f"this ONNX Runtime {onnxruntime.__version__} has no {wanted}, only {', '.join(available)}.{cure}"
            )
        try:
            session = onnxruntime.InferenceSession(graph, _options(threads), providers=[wanted])
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise SessionError(f"ONNX Runtime refuses the graph: {_one_line(error)}") from error
        running = session.get_providers()
        if not running or running[0] != wanted:
            raise SessionError(
                f"asked for {wanted}, but {', '.join(running)} would run; check the driver and the CUDA libraries that "
                f"onnxruntime {onnxruntime.__version__} needs"
            )
        session.disable_fallback()
        self._session: onnxruntime.InferenceSession | None = session
        self._provider = provider
        self._threads = threads
        self._inputs = tuple(map(_spec, session.get_inputs()))
        self._outputs = tuple(map(_spec, session.get_outputs()))
        self._names = [spec.name for spec in self._outputs]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def provider_version(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def threads(self) -> int:
        return self._threads

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._session is None:
            raise SessionError("this session is closed")
        check_feeds(self._inputs, feeds)
        try:
            values = self._session.run(self._names, dict(feeds))
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise SessionError(f"ONNX Runtime failed while running: {_one_line(error)}") from error
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Weights outside the arena: it then holds activations alone and does not grow by doubling around them.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise SessionError(f"{node.name!r} is of type {node.type}, expected one of {', '.join(_DTYPES)}")
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, dtype=np.dtype(_DTYPES[node.type]), shape=shape)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
