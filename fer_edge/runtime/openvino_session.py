"""OpenVINO on CPU as a session."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np

from fer_edge.core.errors import SessionError
from fer_edge.core.files import writing
from fer_edge.core.json import expect
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Array
from fer_edge.runtime.session import TensorSpec, check_feeds, one_line

with without_telemetry():
    import openvino

__all__ = ["OpenVinoSession", "OpenVinoSettings", "openvino_core"]

_DEVICE: Final = "CPU"
_ROW_BY_ROW: Final = 8  # rows of a batch up to which no program is made for it
_PROGRAMS: Final = 8  # programs kept; the one that was longest unused goes


@functools.cache
def openvino_core() -> openvino.Core:
    """The process's one OpenVINO core, kept to its end.

    Seen with OpenVINO 2026.4 on a processor with AMX: after several cores have gone, in the order they came, the next
    Ctrl-C is a segmentation fault. OpenVINO sets an alternate signal stack; that a core puts back one that an earlier
    core has freed fits what was seen, but was not read in its source.
    """
    return openvino.Core()


@dataclass(frozen=True, kw_only=True)
class OpenVinoSettings:
    """How OpenVINO runs one small graph on few cores.

    Attributes:
        precision: what float parts compute in. ``"f32"`` also on processors with bfloat16, so that results do not
            depend on the machine's generation.
        pinning: threads are bound to cores instead of left to the system's scheduler.
        cache: a folder in which OpenVINO keeps what it compiled, so that the next start is quicker; None writes
            nothing. The folder belongs to one version of OpenVINO on one kind of processor.
    """

    precision: Literal["f32", "bf16"] = "f32"
    pinning: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        expect(self.precision in ("f32", "bf16"), "precision", self.precision, "f32 or bf16")


class OpenVinoSession:
    """A graph in OpenVINO's CPU plug-in, set for latency.

    Every shape gets a program compiled for it, never one that takes any shape: OpenVINO's programs for open shapes are
    slower, and in them OpenVINO 2026.4 computes the INT8 encoder, whose residual connections and LSTM stand in one
    graph, so coarsely that over three times as many labels change (``bench/engine_settings.py --data``; bench/results).
    Batches of up to eight rows run row by row in the program for one row, so that a second face in the picture costs
    no compilation; a larger batch gets a program of its own, which costs some tenths of a second once.

    `run` may be called from several threads: there is one infer request a program, so the calls wait for one another.

    Args:
        graph: an ONNX file's bytes; read in memory. Sizes that it leaves open may be 1; the first dimension of every
            input and output, where all of them leave it open, is the batch.
        threads: inference threads.
        settings: how it runs.

    Raises:
        SessionError: the graph is refused, or another device than the CPU would run.
        OutputError: the cache's folder cannot be written.
    """

    def __init__(self, graph: bytes, *, threads: int, settings: OpenVinoSettings | None = None) -> None:
        self._settings = _plugin_settings(threads, settings or OpenVinoSettings())
        self._threads = threads
        self._lock = threading.Lock()
        self._programs: OrderedDict[tuple[tuple[int, ...], ...], _Program] = OrderedDict()
        try:
            self._model: Any = openvino_core().read_model(graph)
        except Exception as error:  # RuntimeError mostly, TypeError for what it cannot read
            raise SessionError(f"OpenVINO refuses the graph: {one_line(error)}") from error
        self._inputs = tuple(map(_spec, self._model.inputs))
        self._outputs = tuple(map(_spec, self._model.outputs))
        ports = (*self._inputs, *self._outputs)
        self._batched = all(spec.shape and spec.shape[0] is None for spec in ports)
        self._program(tuple(tuple(size or 1 for size in spec.shape) for spec in self._inputs))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def provider(self) -> str:
        return "openvino"

    @property
    def provider_version(self) -> str:
        return f"openvino {openvino.get_version().partition('-')[0]}"

    @property
    def threads(self) -> int:
        return self._threads

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(self._inputs, feeds)
        arrays = [feeds[spec.name] for spec in self._inputs]
        rows = len(arrays[0]) if self._batched else 1
        split = 1 < rows <= _ROW_BY_ROW and all(len(array) == rows for array in arrays)
        with self._lock:
            if self._model is None:
                raise SessionError("this session is closed")
            if not split:
                return self._program(tuple(array.shape for array in arrays)).run(arrays)
            program = self._program(tuple((1, *array.shape[1:]) for array in arrays))
            parts = [program.run([array[row : row + 1] for array in arrays]) for row in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        with self._lock:
            self._programs.clear()
            self._model = None

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _program(self, shapes: tuple[tuple[int, ...], ...]) -> _Program:
        if shapes in self._programs:
            self._programs.move_to_end(shapes)
            return self._programs[shapes]
        model = self._model.clone()
        names = [spec.name for spec in self._inputs]
        try:
            model.reshape({name: list(shape) for name, shape in zip(names, shapes, strict=True)})
            compiled = openvino_core().compile_model(model, _DEVICE, self._settings)
            program = _Program(compiled, self._inputs, self._outputs)
        except Exception as error:  # RuntimeError mostly, TypeError for what it cannot read
            raise SessionError(f"OpenVINO refuses the graph: {one_line(error)}") from error
        devices = list(compiled.get_property("EXECUTION_DEVICES"))
        if devices != [_DEVICE]:
            raise SessionError(f"asked for OpenVINO on {_DEVICE}, but it would run on {', '.join(devices)}")
        self._programs[shapes] = program
        if len(self._programs) > _PROGRAMS:
            self._programs.popitem(last=False)
        return program


class _Program:
    """One compiled shape with its infer request; inputs and outputs are bound once, to arrays that stay."""

    def __init__(self, compiled: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [_array(port, spec) for port, spec in zip(compiled.inputs, inputs, strict=True)]
        self._outputs = {spec.name: _array(port, spec) for port, spec in zip(compiled.outputs, outputs, strict=True)}
        for index, array in enumerate(self._inputs):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        for index, array in enumerate(self._outputs.values()):
            self._request.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))

    def run(self, arrays: list[Array]) -> dict[str, Array]:
        for bound, array in zip(self._inputs, arrays, strict=True):
            np.copyto(bound, array)
        try:
            self._request.infer()
        except Exception as error:  # RuntimeError mostly
            raise SessionError(f"OpenVINO failed while running: {one_line(error)}") from error
        return {name: array.copy() for name, array in self._outputs.items()}


def _plugin_settings(threads: int, settings: OpenVinoSettings) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": settings.precision,
        "ENABLE_CPU_PINNING": settings.pinning,
    }
    if settings.cache is not None:
        with writing(settings.cache):
            settings.cache.mkdir(parents=True, exist_ok=True)
        chosen["CACHE_DIR"] = str(settings.cache)
    return chosen


def _array(port: Any, spec: TensorSpec) -> Array:
    return np.zeros(tuple(port.shape), spec.dtype)


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=np.dtype(port.get_element_type().to_dtype()), shape=shape)
