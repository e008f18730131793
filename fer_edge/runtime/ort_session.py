"""ONNX Runtime on the CPU as a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
import onnxruntime

from fer_edge.core.errors import SessionError
from fer_edge.core.json import expect
from fer_edge.core.types import Array
from fer_edge.runtime.session import TensorSpec, check_feeds, one_line

__all__ = ["OrtSession", "OrtSettings", "ort_options", "ort_specs", "require_ort_provider"]

_PROVIDER: Final = "CPUExecutionProvider"
_SHAPES: Final = 32  # shapes of inputs whose buffers are kept; live video needs three
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


@dataclass(frozen=True, kw_only=True)
class OrtSettings:
    """How ONNX Runtime runs one small graph on few cores; the defaults are those that measured best.

    ``bench/engine_settings.py`` measures each of them against the default; results are in ``bench/results``. One
    program for every shape is as fast as one for a single shape.

    Attributes:
        spinning: idle threads spin instead of sleeping: a core of the vehicle's computer burnt for microseconds.
        arena: activations come from an arena instead of the system's allocator.
        memory_pattern: activations are laid out once for each shape.
        weights_in_arena: weights lie in the arena as well, which then grows by doubling around them.
        prepacking: weights are rearranged for the processor when the graph is loaded.
        optimisation: how far the graph is rewritten.
        block_base: how work is split among threads (``session.dynamic_block_base``); 0 splits it evenly.
    """

    spinning: bool = False
    arena: bool = True
    memory_pattern: bool = True
    weights_in_arena: bool = False
    prepacking: bool = True
    optimisation: Literal["basic", "extended", "all"] = "all"
    block_base: int = 0

    def __post_init__(self) -> None:
        known = ("basic", "extended", "all")
        expect(self.optimisation in known, "optimisation", self.optimisation, "one of " + ", ".join(known))
        expect(0 <= self.block_base <= 64, "block_base", self.block_base, "0 to 64")


class OrtSession:
    """A graph in ONNX Runtime's CPU provider.

    `run` may be called from several threads at once; with one intra-op thread each call then works in its caller's
    own thread. Inputs and outputs of shapes that come again lie in buffers bound once, which spares each call some
    microseconds. ONNX Runtime folds Cast and Mul of constants when it loads a graph, so LSTM weights that are stored as
    int8 that way take their full float32 size in memory; a DequantizeLinear it computes anew at every run.

    Args:
        graph: an ONNX file's bytes.
        threads: intra-op threads.
        settings: how it runs.

    Raises:
        SessionError: the graph is refused, or the provider is not the one that would run.
    """

    def __init__(self, graph: bytes, *, threads: int, settings: OrtSettings | None = None) -> None:
        require_ort_provider(_PROVIDER)
        try:
            options = ort_options(threads, settings or OrtSettings())
            session = onnxruntime.InferenceSession(graph, options, providers=[_PROVIDER])
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise SessionError(f"ONNX Runtime refuses the graph: {one_line(error)}") from error
        running = session.get_providers()
        if not running or running[0] != _PROVIDER:
            raise SessionError(f"asked for {_PROVIDER}, but {', '.join(running)} would run")
        session.disable_fallback()
        self._session: onnxruntime.InferenceSession | None = session
        self._threads = threads
        self._inputs, self._outputs = ort_specs(session.get_inputs()), ort_specs(session.get_outputs())
        self._names = [spec.name for spec in self._outputs]
        self._sizes_follow = _sizes_follow(session)
        self._idle: dict[tuple[tuple[int, ...], ...], list[_Buffers]] = {}  # a list's pop and append are one step each

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def provider(self) -> str:
        return "cpu"

    @property
    def provider_version(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def threads(self) -> int:
        return self._threads

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise SessionError("this session is closed")
        check_feeds(self._inputs, feeds)
        shapes = tuple([feeds[spec.name].shape for spec in self._inputs])
        idle = self._idle.get(shapes)
        try:
            buffers = idle.pop() if idle else None
        except IndexError:  # another thread was quicker
            buffers = None
        try:
            if buffers is not None:
                outputs = buffers.run(session, feeds)
            else:
                outputs = dict(zip(self._names, session.run(self._names, dict(feeds)), strict=True))
                if self._sizes_follow and (idle is not None or len(self._idle) < _SHAPES):
                    buffers = _Buffers(session, feeds, outputs)
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise SessionError(f"ONNX Runtime failed while running: {one_line(error)}") from error
        if buffers is not None:
            self._idle.setdefault(shapes, []).append(buffers)
        return outputs

    def close(self) -> None:
        self._session = None
        self._idle.clear()

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Buffers:
    """Inputs and outputs of one shape, bound to arrays that stay; one call at a time."""

    def __init__(
        self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array], like: Mapping[str, Array]
    ) -> None:
        self._binding = session.io_binding()
        self._inputs = {name: np.empty(array.shape, array.dtype) for name, array in feeds.items()}
        self._outputs = {name: np.empty(array.shape, array.dtype) for name, array in like.items()}
        for arrays, bind in ((self._inputs, self._binding.bind_input), (self._outputs, self._binding.bind_output)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name, array in self._inputs.items():
            array[...] = feeds[name]
        session.run_with_iobinding(self._binding)
        return {name: array.copy() for name, array in self._outputs.items()}


def _sizes_follow(session: onnxruntime.InferenceSession) -> bool:
    """Whether the sizes of the outputs follow from those of the inputs, and not from what stands in them."""
    given = {size for node in session.get_inputs() for size in node.shape if isinstance(size, str)}
    return all(isinstance(size, int) or size in given for node in session.get_outputs() for size in node.shape)


def require_ort_provider(name: str, *, extra: str = "cpu") -> None:
    """See that this ONNX Runtime was built with a provider.

    Raises:
        SessionError: it was not.
    """
    available = onnxruntime.get_available_providers()
    if name not in available:
        raise SessionError(
            f"this ONNX Runtime {onnxruntime.__version__} has no {name}, only {', '.join(available)}. "
            f"Install it with: pip install 'fer-edge[{extra}]'"
        )


def ort_options(threads: int, settings: OrtSettings) -> Any:
    """ONNX Runtime's session options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL_ONLY
    options.enable_cpu_mem_arena = settings.arena
    options.enable_mem_pattern = settings.memory_pattern
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC, "extended": levels.ORT_ENABLE_EXTENDED, "all": levels.ORT_ENABLE_ALL,
    }[settings.optimisation]  # fmt: skip
    spinning = str(int(settings.spinning))
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    outside = str(int(not settings.weights_in_arena))
    options.add_session_config_entry("session.use_device_allocator_for_initializers", outside)
    options.add_session_config_entry("session.disable_prepacking", str(int(not settings.prepacking)))
    if settings.block_base:
        options.add_session_config_entry("session.dynamic_block_base", str(settings.block_base))
    return options


def ort_specs(nodes: Any) -> tuple[TensorSpec, ...]:
    """ONNX Runtime's description of inputs or outputs in our words.

    Raises:
        SessionError: a tensor of a type that no session takes.
    """
    return tuple(map(_spec, nodes))


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise SessionError(f"{node.name!r} is of type {node.type}, expected one of {', '.join(_DTYPES)}")
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(name=node.name, dtype=np.dtype(_DTYPES[node.type]), shape=shape)
