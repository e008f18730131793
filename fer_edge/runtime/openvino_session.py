"""OpenVINO on the CPU as a session."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.disk import writing
from fer_edge.core.errors import SessionError
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Array
from fer_edge.runtime.session import Session, SessionInfo, TensorSpec, one_line

with without_telemetry():
    import openvino

__all__ = ["OpenVinoSession", "openvino_core"]

_DEVICE: Final = "CPU"
_ROW_BY_ROW: Final = 8  # batches up to this size run row by row
_PROGRAMS: Final = 8  # compiled shapes kept; the least recently used one is dropped
_SETTINGS: Final[Mapping[str, Any]] = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",  # also on processors with bfloat16, so that results do not depend on the machine
    "ENABLE_CPU_PINNING": False,
}


@functools.cache
def openvino_core() -> openvino.Core:
    """Return the process's one OpenVINO core, which is never freed.

    OpenVINO 2026.4 on a processor with AMX: after several cores were freed in the order of creation, the next Ctrl-C
    was a segmentation fault.
    """
    return openvino.Core()


class OpenVinoSession(Session):
    """A graph in OpenVINO's CPU plug-in, configured for latency. Runs wait for each other.

    Every shape gets its own compiled program, never one for open shapes: those are slower, and OpenVINO 2026.4
    miscomputes the INT8 encoder in them (three times as many labels change; bench/results). Batches of up to eight rows
    run row by row in the program for one row, so a second face costs no compilation; a larger batch is compiled once,
    which takes some tenths of a second.

    Args:
        graph: an ONNX file's bytes. Sizes that it leaves open may be 1; the first dimension of all inputs and outputs
            is the batch where all of them leave it open.
        threads: inference threads.
        cache: folder in which OpenVINO keeps compiled programs, so that the next start is quicker; None writes
            nothing. It belongs to one version of OpenVINO on one kind of processor.
        settings: properties of the CPU plug-in that replace the defaults.

    Raises:
        SessionError: the graph is refused, or another device than the CPU would run.
        OutputError: the cache's folder cannot be written.
    """

    def __init__(
        self, graph: bytes, *, threads: int, cache: Path | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        self._settings = {**_SETTINGS, "INFERENCE_NUM_THREADS": threads, **(settings or {})}
        if cache is not None:
            with writing(cache):
                cache.mkdir(parents=True, exist_ok=True)
            self._settings["CACHE_DIR"] = str(cache)
        self._programs: OrderedDict[tuple[tuple[int, ...], ...], _Program] = OrderedDict()
        try:
            self._model: Any = openvino_core().read_model(graph)
        except Exception as error:  # RuntimeError mostly, TypeError for bytes that it cannot read
            raise SessionError(f"OpenVINO refuses the graph: {one_line(error)}") from error
        super().__init__(
            SessionInfo(
                inputs=tuple(map(_spec, self._model.inputs)),
                outputs=tuple(map(_spec, self._model.outputs)),
                provider="openvino",
                provider_version=f"openvino {openvino.get_version().partition('-')[0]}",
                threads=threads,
            )
        )
        self._batched = all(spec.shape and spec.shape[0] is None for spec in (*self.inputs, *self.outputs))
        self._program(tuple(tuple(size or 1 for size in spec.shape) for spec in self.inputs))

    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        arrays = [feeds[spec.name] for spec in self.inputs]
        rows = len(arrays[0]) if self._batched else 1
        if not (1 < rows <= _ROW_BY_ROW and all(len(array) == rows for array in arrays)):
            return self._program(tuple(array.shape for array in arrays)).run(arrays)
        program = self._program(tuple((1, *array.shape[1:]) for array in arrays))
        parts = [program.run([array[row : row + 1] for array in arrays]) for row in range(rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _release(self) -> None:
        self._programs.clear()
        self._model = None

    def _program(self, shapes: tuple[tuple[int, ...], ...]) -> _Program:
        if shapes in self._programs:
            self._programs.move_to_end(shapes)
            return self._programs[shapes]
        model = self._model.clone()
        try:
            model.reshape({spec.name: list(shape) for spec, shape in zip(self.inputs, shapes, strict=True)})
            compiled = openvino_core().compile_model(model, _DEVICE, self._settings)
            program = _Program(compiled, self.inputs, self.outputs)
        except Exception as error:  # RuntimeError mostly
            raise SessionError(f"OpenVINO refuses the graph: {one_line(error)}") from error
        devices = list(compiled.get_property("EXECUTION_DEVICES"))
        if devices != [_DEVICE]:
            raise SessionError(f"asked for OpenVINO on {_DEVICE}, but it would run on {', '.join(devices)}")
        self._programs[shapes] = program
        if len(self._programs) > _PROGRAMS:
            self._programs.popitem(last=False)
        return program


class _Program:
    """One compiled shape with its infer request; inputs and outputs are bound once to arrays that stay."""

    def __init__(self, compiled: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [np.zeros(tuple(port.shape), s.dtype) for port, s in zip(compiled.inputs, inputs, strict=True)]
        self._outputs = {
            spec.name: np.zeros(tuple(port.shape), spec.dtype)
            for port, spec in zip(compiled.outputs, outputs, strict=True)
        }
        for index, array in enumerate(self._inputs):
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        for index, array in enumerate(self._outputs.values()):
            self._request.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))

    def run(self, arrays: list[Array]) -> dict[str, Array]:
        for bound, array in zip(self._inputs, arrays, strict=True):
            np.copyto(bound, array)
        self._request.infer()
        return {name: array.copy() for name, array in self._outputs.items()}


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=np.dtype(port.get_element_type().to_dtype()), shape=shape)
