"""A session on a CUDA device, whatever computes there: its buffers, streams, CUDA graphs and threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from fer_edge.core.errors import FerEdgeError, InputError, SessionError
from fer_edge.core.types import Array
from fer_edge.runtime.cuda_device import CapturedGraph, Device, TensorBuffer
from fer_edge.runtime.session import TensorSpec, check_feeds

__all__ = ["DeviceEngine", "DeviceProgram", "DeviceSession", "Shape"]

Shape = tuple[int, ...]


class DeviceProgram(Protocol):
    """What one thread at a time runs: an execution context of an engine. The device's context is current in each call.

    Every method raises `SessionError` where the engine refuses.
    """

    def prepare(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Take the inputs' shapes for the next runs; gives the outputs' shapes."""

    def bind(self, name: str, pointer: int) -> None:
        """Where an input or output lies on the device."""

    def enqueue(self, stream: int) -> None:
        """Put one run on the stream."""

    def capture_fault(self, stream: int) -> str | None:
        """Why no CUDA graph can be captured from this program, where that is known beforehand."""

    def close(self) -> None:
        """Give the context back."""


class DeviceEngine(Protocol):
    """What is loaded once and run by several programs."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a run takes, with limits for every open dimension."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What a run gives."""

    @property
    def device_dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """The type of each tensor on the device, which may be narrower than the graph's (int32 for int64)."""

    @property
    def provider(self) -> str:
        """Our name of it."""

    @property
    def provider_version(self) -> str:
        """Package and version."""

    def create_program(self) -> DeviceProgram:
        """A further execution context."""

    def close(self) -> None:
        """Unload it; all its programs are closed."""


class DeviceSession:
    """An engine on a CUDA device, as `fer_edge.runtime.session.Session`.

    `run` may be called from several threads at once: each call takes an execution context of its own with its stream
    and buffers, made when it is first needed, up to `contexts` of them; further callers wait. The second run of a
    shape captures a CUDA graph of copies and kernels, and later ones launch it; where that cannot be had, `cuda_graph`
    says why and every run is enqueued. Another shape than the last one begins anew, so a caller who wants the graph
    keeps to one shape a thread.

    Args:
        device: opened for this session, which closes it.
        engine: loaded for this session, which closes it.
        contexts: execution contexts at most.
        cuda_graphs: whether to capture at all.
        mapped: let host and device share the tensors' memory; by default where the device is integrated.
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
        if contexts < 1:
            raise InputError(f"contexts: got {contexts}, expected 1 or more")
        self.device, self.engine = device, engine
        self.mapped = device.info.integrated if mapped is None else mapped
        self.cuda_graph = "not captured yet" if cuda_graphs else "off: as asked"
        self._graphs_wanted = cuda_graphs
        self._contexts = contexts
        self._state = threading.Condition()
        self._making = threading.Lock()  # engines make their execution contexts one at a time
        self._idle: list[_Lane] = []
        self._lanes = 0
        self._closed = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.engine.outputs

    @property
    def provider(self) -> str:
        return self.engine.provider

    @property
    def provider_version(self) -> str:
        return f"{self.engine.provider_version}, {self.device.info.package}"

    @property
    def threads(self) -> int:
        return 1

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(self.inputs, feeds)
        lane = self._take()
        try:
            with self.device.current():
                outputs = lane.run(feeds)
        except BaseException:
            self._drop(lane)  # its stream or its context may be broken
            raise
        with self._state:
            self._idle.append(lane)
            self._state.notify_all()
        return outputs

    def close(self) -> None:
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.wait_for(lambda: len(self._idle) == self._lanes)
        try:
            with self.device.current():
                for lane in self._idle:
                    lane.close()
                self._idle.clear()
                self._lanes = 0
                self.engine.close()
        finally:
            self.device.close()

    def __enter__(self) -> DeviceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def captures(self) -> bool:
        """Whether CUDA graphs are wanted and nothing has spoken against them yet."""
        return self._graphs_wanted

    def captured(self) -> None:
        """A lane has captured a graph."""
        self.cuda_graph = "captured"

    def cannot_capture(self, reason: str) -> None:
        """A lane could not; none tries again."""
        self._graphs_wanted = False
        self.cuda_graph = f"off: {reason}"

    def _take(self) -> _Lane:
        with self._state:
            self._state.wait_for(lambda: self._closed or self._idle or self._lanes < self._contexts)
            if self._closed:
                raise SessionError("this session is closed")
            if self._idle:
                return self._idle.pop()
            self._lanes += 1
        try:
            with self._making, self.device.current():
                return _Lane(self)
        except BaseException:
            with self._state:
                self._lanes -= 1
                self._state.notify_all()
            raise

    def _drop(self, lane: _Lane) -> None:
        try:
            with self.device.current():
                lane.close()
        except FerEdgeError:
            pass  # the error that led here is the one to tell
        finally:
            with self._state:
                self._lanes -= 1
                self._state.notify_all()


class _Lane:
    """One execution context with its stream, its buffers and its graph; used by one thread at a time."""

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
            spec.name: self._view(spec.name).astype(spec.dtype, copy=True)  # the view changes with the next run
            for spec in self._engine.outputs
        }

    def close(self) -> None:
        self._forget_graph()
        self._program.close()
        for buffer in self._buffers.values():
            buffer.free(self._device)
        self._buffers.clear()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._device.destroy_stream(stream)

    def _allocate(self) -> None:
        """Buffers of the largest shapes, so that addresses never change."""
        largest = {spec.name: spec.largest for spec in self._engine.inputs}
        for name, shape in {**largest, **self._program.prepare(largest)}.items():
            size_bytes = math.prod(shape) * self._engine.device_dtypes[name].itemsize
            self._buffers[name] = TensorBuffer(self._device, size_bytes=size_bytes, mapped=self._session.mapped)
            self._program.bind(name, self._buffers[name].pointer)

    def _prepare(self, inputs: Mapping[str, Shape]) -> None:
        self._forget_graph()
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
                raise InputError(f"input {spec.name!r}: got a value beyond {dtype}, which this engine computes in")
        self._view(spec.name)[...] = array

    def _start(self, stream: int) -> None:
        if not self._warm:  # the engine finishes what it put off until the shapes were known; nothing of it is captured
            self._enqueue()
            self._warm = True
            return
        if self._graph is None and self._session.captures():
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
                self._session.captured()
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

    def _forget_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            graph.close()
