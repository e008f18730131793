"""ONNX Runtime on the CPU as a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnxruntime

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Array
from fer_edge.runtime.session import Session, SessionInfo, TensorSpec, one_line

__all__ = ["OrtSession", "load_ort", "ort_info", "ort_options"]

_PROVIDER: Final = "CPUExecutionProvider"
_SHAPES: Final = 32  # input shapes whose buffers are kept; live video needs three
_FATAL_ONLY: Final = 4  # errors reach the caller as exceptions
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

_ENTRIES: Final[Mapping[str, str]] = {
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
    "session.use_device_allocator_for_initializers": "1",
}

onnxruntime.disable_telemetry_events()


class OrtSession(Session):
    """A graph in ONNX Runtime's CPU provider.

    Runs are concurrent; with one intra-op thread each run computes in its caller's thread. Buffers of repeated shapes
    are bound once, which saves microseconds per run. ONNX Runtime folds Cast and Mul of constants at load, so LSTM
    weights stored as int8 take their full float32 size in memory; it computes a DequantizeLinear at every run.

    Args:
        graph: an ONNX file's bytes.
        threads: intra-op threads.
        options: ONNX Runtime's SessionOptions, `ort_options` where None.

    Raises:
        SessionError: the graph is refused, or another provider would run.
    """

    def __init__(self, graph: bytes, *, threads: int, options: Any | None = None) -> None:
        options = ort_options(threads) if options is None else options
        session = load_ort(graph, options, _PROVIDER, {}, extra="cpu")
        super().__init__(ort_info(session, provider="cpu", threads=threads), concurrent=True)
        self._session: Any | None = session
        self._names = [spec.name for spec in self.outputs]
        self._sizes_follow = _sizes_follow(session)
        self._idle: dict[tuple[tuple[int, ...], ...], list[_Buffers]] = {}  # a list's pop and append are atomic

    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session: Any = self._session
        shapes = tuple([feeds[spec.name].shape for spec in self.inputs])
        idle = self._idle.get(shapes)
        try:
            buffers = idle.pop() if idle else None
        except IndexError:  # another thread took the last one
            buffers = None
        if buffers is not None:
            outputs = buffers.run(session, feeds)
        else:
            outputs = dict(zip(self._names, session.run(self._names, dict(feeds)), strict=True))
            if self._sizes_follow and (idle is not None or len(self._idle) < _SHAPES):
                buffers = _Buffers(session, feeds, outputs)
        if buffers is not None:
            self._idle.setdefault(shapes, []).append(buffers)
        return outputs

    def _release(self) -> None:
        self._session = None
        self._idle.clear()


class _Buffers:
    """Inputs and outputs of one shape, bound to arrays that keep their addresses; one run at a time."""

    def __init__(self, session: Any, feeds: Mapping[str, Array], like: Mapping[str, Array]) -> None:
        self._binding = session.io_binding()
        self._inputs = {name: np.empty(array.shape, array.dtype) for name, array in feeds.items()}
        self._outputs = {name: np.empty(array.shape, array.dtype) for name, array in like.items()}
        for arrays, bind in ((self._inputs, self._binding.bind_input), (self._outputs, self._binding.bind_output)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self, session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name, array in self._inputs.items():
            array[...] = feeds[name]
        session.run_with_iobinding(self._binding)
        return {name: array.copy() for name, array in self._outputs.items()}


def _sizes_follow(session: Any) -> bool:
    """Return whether the outputs' sizes depend on the inputs' sizes only, not on their values."""
    given = {size for node in session.get_inputs() for size in node.shape if isinstance(size, str)}
    return all(isinstance(size, int) or size in given for node in session.get_outputs() for size in node.shape)


def ort_options(threads: int, *, entries: Mapping[str, str] | None = None) -> Any:
    """Build ONNX Runtime's session options, the ones measured best for one small graph on few cores.

    Idle threads sleep, because spinning costs a core for microseconds; weights are outside the arena, which would grow
    by doubling around them. ``bench/engine_settings.py`` measures each setting.

    Args:
        threads: intra-op threads.
        entries: session configuration entries that replace the defaults.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    for name, value in {**_ENTRIES, **(entries or {})}.items():
        options.add_session_config_entry(name, value)
    return options


def load_ort(graph: bytes, options: Any, provider: str, settings: Mapping[str, str], *, extra: str) -> Any:
    """Load a graph into one of ONNX Runtime's providers.

    Raises:
        SessionError: this ONNX Runtime lacks the provider, refuses the graph, or would run another provider.
    """
    title = f"onnxruntime {onnxruntime.__version__}"
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise SessionError(
            f"this {title} has no {provider}, only {', '.join(available)}. "
            f"Install it with: pip install 'fer-edge[{extra}]'"
        )
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[(provider, dict(settings))])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise SessionError(f"ONNX Runtime refuses the graph: {one_line(error)}") from error
    running = session.get_providers()
    if not running or running[0] != provider:
        raise SessionError(
            f"asked for {provider}, but {', '.join(running)} would run; check the driver and libraries for {title}"
        )
    session.disable_fallback()
    return session


def ort_info(session: Any, *, provider: str, threads: int) -> SessionInfo:
    """Describe a loaded ONNX Runtime session.

    Raises:
        SessionError: a tensor of a type that no session takes.
    """
    return SessionInfo(
        inputs=tuple(map(_spec, session.get_inputs())),
        outputs=tuple(map(_spec, session.get_outputs())),
        provider=provider,
        provider_version=f"onnxruntime {onnxruntime.__version__}",
        threads=threads,
    )


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise SessionError(f"{node.name!r}: got type {node.type}, expected one of {', '.join(_DTYPES)}")
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, dtype=np.dtype(_DTYPES[node.type]), shape=shape)
