"""OpenVINO on CPU as a session."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

import numpy as np

from fer_edge.errors import SessionError
from fer_edge.runtime.session import Array, TensorSpec, check_feeds
from fer_edge.telemetry import without_telemetry

with without_telemetry():
    import openvino

__all__ = ["OpenVinoSession", "openvino_core"]

_DEVICE: Final = "CPU"


@functools.cache
def openvino_core() -> openvino.Core:
    """The process's one OpenVINO core, kept to its end.

    Seen with OpenVINO 2026.4 on a processor with AMX: after several cores have gone, in the order they came, the next
    Ctrl-C is a segmentation fault. OpenVINO sets an alternate signal stack; that a core puts back one that an earlier
    core has freed fits what was seen, but was not read in its source.
    """
    return openvino.Core()


class OpenVinoSession:
    """A graph in OpenVINO's CPU plug-in, set for latency.

    `run` may be called from several threads: there is one infer request, so the calls wait for one another. Arithmetic
    is float32 where the graph is float, also on processors with bfloat16, so that results do not depend on the
    machine's generation.

    Args:
        graph: an ONNX file's bytes; read in memory, nothing is written.
        threads: inference threads, left to the system's scheduler instead of being pinned to cores.

    Raises:
        SessionError: the graph is refused, or another device than the CPU would run.
    """

    def __init__(self, graph: bytes, *, threads: int) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino_core()
            compiled = core.compile_model(core.read_model(graph), _DEVICE, settings)
            request = compiled.create_infer_request()
        except Exception as error:  # RuntimeError mostly, TypeError for what it cannot read
            raise SessionError(f"OpenVINO refuses the graph: {_one_line(error)}") from error
        devices = list(compiled.get_property("EXECUTION_DEVICES"))
        if devices != [_DEVICE]:
            raise SessionError(f"asked for OpenVINO on {_DEVICE}, but it would run on {', '.join(devices)}")
        self._request: Any = request
        self._lock = threading.Lock()
        self._threads = threads
        self._inputs = tuple(map(_spec, compiled.inputs))
        self._outputs = tuple(map(_spec, compiled.outputs))

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
        # The request reads the arrays in place, so they must lie in one piece.
        whole = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        with self._lock:
            if self._request is None:
                raise SessionError("this session is closed")
            try:
                self._request.infer(whole, share_inputs=True)
                return {
                    spec.name: self._request.get_output_tensor(index).data.copy()
                    for index, spec in enumerate(self._outputs)
                }
            except Exception as error:  # RuntimeError mostly, TypeError for what it cannot take
                raise SessionError(f"OpenVINO failed while running: {_one_line(error)}") from error

    def close(self) -> None:
        with self._lock:
            self._request = None

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=np.dtype(port.get_element_type().to_dtype()), shape=shape)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
