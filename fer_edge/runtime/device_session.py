"""A session on a CUDA device: buffers, streams, CUDA graphs and threads, for any engine."""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np

from fer_edge.core.errors import FerEdgeError, InputError, MissingPackageError, SessionError
from fer_edge.core.types import Array
from fer_edge.runtime.arguments import whole_number
from fer_edge.runtime.cuda_device import CapturedGraph, Device, TensorBuffer
from fer_edge.runtime.session import Session, SessionInfo, TensorSpec

__all__ = ["BACKENDS", "DeviceEngine", "DeviceProgram", "DeviceSession", "Shape", "open_device"]

Shape = tuple[int, ...]


class DeviceProgram(Protocol):
    """An execution context of an engine, used by one thread at a time with the device's context current.

    Every method raises `SessionError` where the engine refuses.
    """

    def prepare(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Set the inputs' shapes for the next runs and return the outputs' shapes."""

    def bind(self, name: str, pointer: int) -> None:
        """Set the device address of an input or output."""

    def enqueue(self, stream: int) -> None:
        """Enqueue one run."""

    def capture_fault(self, stream: int) -> str | None:
        """Return why this program cannot be captured as a CUDA graph, where that is known beforehand."""

    def close(self) -> None:
        """Release the execution context."""


class DeviceEngine(Protocol):
    """An engine that is loaded once and run by several programs.

    Attributes:
        inputs: what a run takes, with limits for every open dimension.
        outputs: what a run returns.
        device_dtypes: type of each tensor on the device, which may be narrower than the graph's (int32 for int64).
        provider: fer-edge's name of it.
        provider_version: package and version.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    device_dtypes: Mapping[str, np.dtype[Any]]
    provider: str
    provider_version: str

    def create_program(self) -> DeviceProgram:
        """Create a further execution context."""

    def close(self) -> None:
        """Unload the engine, after all its programs were closed."""


class DeviceSession(Session):
    """An engine on a CUDA device. Runs are concurrent, up to the number of execution contexts.

    Every run takes an execution context with a stream and buffers of its own, created when first needed; further
    callers wait. The second run of a shape captures a CUDA graph of copies and kernels, which later runs launch; where
    capture is impossible, `cuda_graph` holds the reason and every run is enqueued. A change of shape discards the
    graph, so keep to one shape per thread.

    Args:
        device: opened for this session, which closes it.
        engine: loaded for this session, which closes it.
        contexts: maximum number of execution contexts.
        cuda_graphs: capture CUDA graphs.
        mapped: share the tensors' memory between host and device; None for integrated devices only.
    """

    def __init__(
        self,
        device: Device,
        engine: DeviceEngine,
        *,
        contexts: int = 2,
        cuda_graphs: bool = True,
        mapped: bool | None = None,
    ) -> None:
        self._contexts = whole_number("contexts", contexts, least=1)
        info = SessionInfo(
            inputs=engine.inputs,
            outputs=engine.outputs,
            provider=engine.provider,
            provider_version=f"{engine.provider_version}, {device.info.package}",
        )
        super().__init__(info, concurrent=True)
        self.device, self.engine = device, engine
        self.mapped = device.info.integrated if mapped is None else mapped
        self.captures = cuda_graphs
        self.cuda_graph = "not captured yet" if cuda_graphs else "off: as asked"
        self._state = threading.Condition()
        self._creating = threading.Lock()  # engines create their execution contexts one at a time
        self._idle: list[_Context] = []
        self._created = 0

    def cannot_capture(self, reason: str) -> None:
        """Record why a context could not capture a graph; no other one tries."""
        self.captures = False
        self.cuda_graph = f"off: {reason}"

    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        context = self._take()
        try:
            with self.device.current():
                outputs = context.run(feeds)
        except BaseException:
            self._discard(context)  # its stream or its execution context may be broken
            raise
        with self._state:
            self._idle.append(context)
            self._state.notify_all()
        return outputs

    def _release(self) -> None:
        with self._state:
            self._state.notify_all()
            self._state.wait_for(lambda: len(self._idle) == self._created)
        try:
            with self.device.current():
                for context in self._idle:
                    context.close()
                self._idle.clear()
                self._created = 0
                self.engine.close()
        finally:
            self.device.close()

    def _take(self) -> _Context:
        with self._state:
            self._state.wait_for(lambda: self._closed or self._idle or self._created < self._contexts)
            if self._closed:
                raise SessionError("session: got a run after close, expected an open session; open it again")
            if self._idle:
                return self._idle.pop()
            self._created += 1
        try:
            with self._creating, self.device.current():
                return _Context(self)
        except BaseException:
            self._forget()
            raise

    def _discard(self, context: _Context) -> None:
        try:
            with contextlib.suppress(FerEdgeError), self.device.current():  # the first error is the one to report
                context.close()
        finally:
            self._forget()

    def _forget(self) -> None:
        with self._state:
            self._created -= 1
            self._state.notify_all()


class _Context:
    """An execution context with its stream, buffers and CUDA graph; used by one thread at a time."""

    def __init__(self, session: DeviceSession) -> None:
        self._session = session
        self._device, self._engine = session.device, session.engine
        self._buffers: dict[str, TensorBuffer] = {}
        self._graph: CapturedGraph | None = None
        self._shapes: dict[str, Shape] = {}
        self._sizes: dict[str, int] = {}
        self._warm = False
        self._program = self._engine.create_program()
        self._stream: int | None = None
        try:
            self._stream = self._device.create_stream()
            self._allocate()
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert self._stream is not None
        inputs = {spec.name: feeds[spec.name].shape for spec in self._engine.inputs}
        if not self._shapes or any(self._shapes[name] != shape for name, shape in inputs.items()):
            self._prepare(inputs)
        for spec in self._engine.inputs:
            self._fill(spec, feeds[spec.name])
        self._start(self._stream)
        self._device.synchronize(self._stream)
        return {
            spec.name: self._view(spec.name).astype(spec.dtype, copy=True)  # the view's values change with the next run
            for spec in self._engine.outputs
        }

    def close(self) -> None:
        self._drop_graph()
        self._program.close()
        for buffer in self._buffers.values():
            buffer.free(self._device)
        self._buffers.clear()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._device.destroy_stream(stream)

    def _allocate(self) -> None:
        """Allocate buffers of the largest shapes, so that addresses never change."""
        largest = {spec.name: spec.largest for spec in self._engine.inputs}
        for name, shape in {**largest, **self._program.prepare(largest)}.items():
            size_bytes = math.prod(shape) * self._engine.device_dtypes[name].itemsize
            self._buffers[name] = TensorBuffer(self._device, size_bytes=size_bytes, mapped=self._session.mapped)
            self._program.bind(name, self._buffers[name].pointer)

    def _prepare(self, inputs: Mapping[str, Shape]) -> None:
        self._drop_graph()
        self._shapes = {}  # stays empty if the engine refuses
        shapes = {**inputs, **self._program.prepare(inputs)}
        dtypes = self._engine.device_dtypes
        self._sizes = {name: math.prod(shape) * dtypes[name].itemsize for name, shape in shapes.items()}
        self._shapes = shapes
        self._warm = False

    def _fill(self, spec: TensorSpec, array: Array) -> None:
        dtype = self._engine.device_dtypes[spec.name]
        if dtype != array.dtype and dtype.kind in "iu":
            limit = np.iinfo(dtype)
            if array.min() < limit.min or array.max() > limit.max:
                raise InputError(
                    f"input {spec.name!r}: got a value beyond {dtype}, expected one within; the engine uses it"
                )
        self._view(spec.name)[...] = array

    def _start(self, stream: int) -> None:
        if not self._warm:  # the engine initialises lazily at the first run of a shape; that is not captured
            self._enqueue()
            self._warm = True
            return
        if self._graph is None and self._session.captures:
            self._capture(stream)
        if self._graph is not None:
            self._graph.launch(stream)
        else:
            self._enqueue()

    def _capture(self, stream: int) -> None:
        fault = self._program.capture_fault(stream)
        try:
            if fault is None:
                self._graph = self._device.capture(stream, self._enqueue)
                self._session.cuda_graph = "captured"
        except SessionError as error:
            fault = str(error)
        if fault is not None:
            self._session.cannot_capture(fault)

    def _enqueue(self) -> None:
        assert self._stream is not None
        for spec in self._engine.inputs:
            self._buffers[spec.name].to_device(self._device, self._sizes[spec.name], self._stream)
        self._program.enqueue(self._stream)
        for spec in self._engine.outputs:
            self._buffers[spec.name].to_host(self._device, self._sizes[spec.name], self._stream)

    def _view(self, name: str) -> Array:
        return self._buffers[name].view(self._engine.device_dtypes[name], self._shapes[name])

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            graph.close()


def _cuda_python(ordinal: int) -> Device:
    from fer_edge.runtime.cuda_python_device import CudaPythonDevice

    return CudaPythonDevice(ordinal)


def _pycuda(ordinal: int) -> Device:
    from fer_edge.runtime.pycuda_device import PyCudaDevice

    return PyCudaDevice(ordinal)


BACKENDS: Final[Mapping[str, tuple[str, Callable[[int], Device]]]] = {
    "cuda-python": ("cuda", _cuda_python),
    "pycuda": ("pycuda", _pycuda),
}
"""Distribution -> (module, function that opens a device), in the order in which they are tried."""


def open_device(ordinal: int = 0) -> Device:
    """Open a CUDA device through the first installed package; cuda-python can capture CUDA graphs, PyCUDA cannot.

    Args:
        ordinal: index of the device in CUDA's order.

    Raises:
        MissingPackageError: neither package is installed.
        SessionError: no driver, or no such device.
    """
    for module, opener in BACKENDS.values():
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        try:
            return opener(ordinal)
        except ImportError as error:
            raise SessionError(
                f"the package {module!r} is installed but cannot be used ({error}); check the NVIDIA driver"
            ) from error
    raise MissingPackageError(
        f"CUDA memory and streams need {' or '.join(BACKENDS)}, and neither is installed. Install one with: "
        "pip install 'fer-edge[tensorrt]' (cuda-python), or pip install 'fer-edge[pycuda]' (needs nvcc, no CUDA graphs)"
    )
