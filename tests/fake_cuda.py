"""A CUDA driver made of host memory, with the rules of the real one: `cuda.bindings.driver` and `pycuda` on top of it.

Work that is put on a stream runs when the stream is waited for, so that a missing wait shows. What is allocated,
retained or current is counted, so that what is left behind shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


class Status(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CudaError(Exception):
    """A driver function refuses."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass
class _Stream:
    queue: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    broken: bool = False


class FakeCuda:
    """The state of the driver, and its functions without their Python packaging."""

    def __init__(self, *, name: str = "Fake GPU", capability: int = 86, integrated: bool = False) -> None:
        self.name, self.capability, self.integrated = name, capability, integrated
        self.memory_limit_bytes = 1 << 30
        self.retained = 0
        self.host: dict[int, Any] = {}
        self.device: dict[int, Any] = {}
        self.streams: dict[int, _Stream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.modules: set[int] = set()
        self.contexts = 0  # execution contexts of the fake TensorRT
        self.copies = 0
        self.launches = 0
        self.fail_capture = False
        self._handles = iter(range(1000, 1 << 40))
        self._threads = threading.local()

    @property
    def stack(self) -> list[str]:
        """The contexts that are current on this thread, innermost last."""
        if not hasattr(self._threads, "stack"):
            self._threads.stack = []
        stack: list[str] = self._threads.stack
        return stack

    def left_behind(self) -> dict[str, int]:
        """Everything that somebody has not given back."""
        counts = {
            "retained": self.retained, "host": len(self.host), "device": len(self.device), "modules": len(self.modules),
            "streams": len(self.streams), "graphs": len(self.graphs) + len(self.executables), "stack": len(self.stack),
            "contexts": self.contexts,
        }  # fmt: skip
        return {kind: count for kind, count in counts.items() if count}

    def need_context(self) -> None:
        if not self.stack:
            raise CudaError(Status.CUDA_ERROR_INVALID_CONTEXT)

    def handle(self) -> int:
        return next(self._handles)

    def allocate(self, size: int, where: dict[int, Any]) -> int:
        self.need_context()
        for stream in self.streams.values():
            if stream.captured is not None and where is self.device:
                stream.broken = True
                raise CudaError(Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        used = sum(len(block) for block in self.device.values())
        if where is self.device and used + size > self.memory_limit_bytes:
            raise CudaError(Status.CUDA_ERROR_OUT_OF_MEMORY)
        block = (ctypes.c_uint8 * size)(*b"\xab" * min(size, 64))
        where[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, pointer: int, where: dict[int, Any]) -> None:
        self.need_context()
        if pointer not in where:
            raise CudaError(Status.CUDA_ERROR_INVALID_VALUE)
        del where[pointer]

    def check(self, pointer: int, size: int) -> None:
        """The range lies in something that is allocated."""
        for start, block in (*self.host.items(), *self.device.items()):
            if start <= pointer and pointer + size <= start + len(block):
                return
        raise CudaError(Status.CUDA_ERROR_INVALID_VALUE)

    def put(self, stream: int, work: Callable[[], None]) -> None:
        """Put work on a stream, or into the graph that the stream is capturing."""
        self.need_context()
        if stream not in self.streams:
            raise CudaError(Status.CUDA_ERROR_INVALID_HANDLE)
        state = self.streams[stream]
        (state.queue if state.captured is None else state.captured).append(work)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self.check(target, size)
        self.check(source, size)
        self.copies += 1
        self.put(stream, lambda: ctypes.memmove(target, source, size) and None)

    def create_stream(self) -> int:
        self.need_context()
        handle = self.handle()
        self.streams[handle] = _Stream()
        return handle

    def synchronize(self, stream: int) -> None:
        self.need_context()
        state = self.streams[stream]
        if state.captured is not None:
            state.broken = True
            raise CudaError(Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        work, state.queue = state.queue, []
        for each in work:
            each()

    def begin_capture(self, stream: int) -> None:
        self.need_context()
        if stream not in self.streams:  # the default stream among others
            raise CudaError(Status.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        self.streams[stream].captured, self.streams[stream].broken = [], False

    def end_capture(self, stream: int) -> int:
        state = self.streams[stream]
        captured, state.captured = state.captured, None
        if captured is None:
            raise CudaError(Status.CUDA_ERROR_INVALID_VALUE)
        if state.broken or self.fail_capture:
            raise CudaError(Status.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        handle = self.handle()
        self.graphs[handle] = captured
        return handle


def driver_module(cuda: FakeCuda) -> ModuleType:
    """`cuda.bindings.driver` on the fake: every function gives a status and its values."""
    module = ModuleType("cuda.bindings.driver")

    def binding(name: str, work: Callable[..., Any]) -> None:
        def function(*arguments: Any) -> tuple[Any, ...]:
            try:
                value = work(*arguments)
            except CudaError as fault:
                return (fault.status,)
            return (Status.CUDA_SUCCESS, *(value if isinstance(value, tuple) else () if value is None else (value,)))

        setattr(module, name, function)

    attributes = {
        "COMPUTE_CAPABILITY_MAJOR": cuda.capability // 10, "COMPUTE_CAPABILITY_MINOR": cuda.capability % 10,
        "INTEGRATED": int(cuda.integrated), "CAN_MAP_HOST_MEMORY": 1,
    }  # fmt: skip
    prefix = "CU_DEVICE_ATTRIBUTE_"
    module.CUdevice_attribute = SimpleNamespace(**{prefix + name: name for name in attributes})  # type: ignore[attr-defined]
    module.CUstreamCaptureMode = SimpleNamespace(  # type: ignore[attr-defined]
        CU_STREAM_CAPTURE_MODE_GLOBAL=0, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1, CU_STREAM_CAPTURE_MODE_RELAXED=2
    )

    def retain(_device: int) -> str:
        cuda.retained += 1
        return "primary"

    def release(_device: int) -> None:
        if not cuda.retained:
            raise CudaError(Status.CUDA_ERROR_INVALID_CONTEXT)
        cuda.retained -= 1

    def instantiate(graph: int, _flags: int) -> int:
        handle = cuda.handle()
        cuda.executables[handle] = list(cuda.graphs[graph])
        return handle

    def launch(executable: int, stream: int) -> None:
        cuda.launches += 1
        for work in cuda.executables[executable]:
            cuda.put(stream, work)

    def load_module(_image: bytes) -> int:
        cuda.need_context()
        handle = cuda.handle()
        cuda.modules.add(handle)
        return handle

    functions: dict[str, Callable[..., Any]] = {
        "cuInit": lambda _flags: None,
        "cuDeviceGetCount": lambda: 1,
        "cuDeviceGet": lambda ordinal: ordinal,
        "cuDeviceGetName": lambda _length, _device: cuda.name.encode() + b"\0" * 9,
        "cuDeviceGetAttribute": lambda attribute, _device: attributes[attribute],
        "cuDeviceTotalMem": lambda _device: cuda.memory_limit_bytes,
        "cuDevicePrimaryCtxRetain": retain,
        "cuDevicePrimaryCtxRelease": release,
        "cuCtxPushCurrent": lambda context: cuda.stack.append(context),
        "cuCtxPopCurrent": lambda: cuda.stack.pop(),
        "cuStreamCreate": lambda _flags: cuda.create_stream(),
        "cuStreamDestroy": lambda stream: cuda.streams.pop(stream) and None,
        "cuStreamSynchronize": cuda.synchronize,
        "cuStreamBeginCapture": lambda stream, _mode: cuda.begin_capture(stream),
        "cuStreamEndCapture": cuda.end_capture,
        "cuGraphInstantiate": instantiate,
        "cuGraphDestroy": lambda graph: cuda.graphs.pop(graph) and None,
        "cuGraphExecDestroy": lambda executable: cuda.executables.pop(executable) and None,
        "cuGraphLaunch": launch,
        "cuMemAlloc": lambda size: cuda.allocate(size, cuda.device),
        "cuMemFree": lambda pointer: cuda.free(pointer, cuda.device),
        "cuMemHostAlloc": lambda size, _flags: cuda.allocate(size, cuda.host),
        "cuMemHostGetDevicePointer": lambda pointer, _flags: pointer,
        "cuMemFreeHost": lambda pointer: cuda.free(pointer, cuda.host),
        "cuMemcpyHtoDAsync": cuda.copy,
        "cuMemcpyDtoHAsync": cuda.copy,
        "cuMemGetInfo": lambda: (
            cuda.memory_limit_bytes - sum(map(len, cuda.device.values())), cuda.memory_limit_bytes,
        ),
        "cuModuleLoadData": load_module,
        "cuModuleUnload": cuda.modules.remove,
        "cuModuleGetFunction": lambda _module, name: name,
        "cuLaunchKernel": lambda *arguments: _launch_kernel(cuda, *arguments),
    }  # fmt: skip
    for name, work in functions.items():
        binding(name, work)
    return module


def _launch_kernel(cuda: FakeCuda, _function: bytes, *arguments: Any) -> None:
    """The kernel ``y = 2 x + 1`` of `kernel_engine`."""
    (grid, _, _, block, _, _), (_, stream, (values, types), _) = arguments[:6], arguments[6:]
    source, target, count = values
    assert len(types) == 3
    assert grid * block >= count > (grid - 1) * block
    cuda.check(source, 4 * count)
    cuda.check(target, 4 * count)
    floats = ctypes.c_float * count

    def run() -> None:
        floats.from_address(target)[:] = (2 * np.ctypeslib.as_array(floats.from_address(source)) + 1).tolist()

    cuda.put(stream, run)


def nvrtc_module() -> ModuleType:
    """`cuda.bindings.nvrtc` that compiles anything."""
    module = ModuleType("cuda.bindings.nvrtc")
    answers: dict[str, tuple[Any, ...]] = {
        "nvrtcVersion": (12, 9), "nvrtcCreateProgram": ("program",), "nvrtcCompileProgram": (), "nvrtcGetCUBIN": (),
        "nvrtcGetCUBINSize": (3,), "nvrtcDestroyProgram": (),
    }  # fmt: skip
    for name, values in answers.items():
        setattr(module, name, lambda *_arguments, values=values: (Status.CUDA_SUCCESS, *values))
    return module


def pycuda_modules(cuda: FakeCuda) -> dict[str, ModuleType]:
    """`pycuda` and `pycuda.driver` on the fake."""
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    def explained(work: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **options: Any) -> Any:
            try:
                return work(*arguments, **options)
            except CudaError as fault:
                raise Error(fault.status.name) from fault

        return function

    class Context:
        def push(self) -> None:
            cuda.stack.append("primary")

        @staticmethod
        def pop() -> None:
            cuda.stack.pop()

    class Device:
        def __init__(self, _ordinal: int) -> None:
            pass

        @staticmethod
        def count() -> int:
            return 1

        def name(self) -> str:
            return cuda.name

        def compute_capability(self) -> tuple[int, int]:
            return divmod(cuda.capability, 10)

        def total_memory(self) -> int:
            return cuda.memory_limit_bytes

        def get_attribute(self, kind: str) -> int:
            return {"INTEGRATED": int(cuda.integrated), "CAN_MAP_HOST_MEMORY": 1}[kind]

        def retain_primary_context(self) -> Context:
            cuda.retained += 1
            return Context()

    class Stream:
        @explained
        def __init__(self, _flags: int = 0) -> None:
            self.handle = cuda.create_stream()

        def __del__(self) -> None:
            with contextlib.suppress(AttributeError):
                cuda.streams.pop(self.handle, None)

        @explained
        def synchronize(self) -> None:
            cuda.synchronize(self.handle)

    class DeviceAllocation:
        @explained
        def __init__(self, size: int) -> None:
            self.pointer = cuda.allocate(size, cuda.device)

        def __int__(self) -> int:
            return self.pointer

        @explained
        def free(self) -> None:
            cuda.free(self.pointer, cuda.device)

    class HostAllocation:
        def __init__(self, size: int) -> None:
            self.pointer = cuda.allocate(size, cuda.host)
            self.__array_interface__ = {
                "shape": (size,), "typestr": "|u1", "data": (self.pointer, False), "version": 3,
            }  # fmt: skip

        def get_device_pointer(self) -> int:
            return self.pointer

        @explained
        def free(self) -> None:
            cuda.free(self.pointer, cuda.host)

    @explained
    def pagelocked_empty(size: int, dtype: Any, *, mem_flags: int = 0) -> Any:
        assert dtype is np.uint8
        return np.asarray(HostAllocation(size))

    @explained
    def htod(pointer: int, source: Any, stream: Stream) -> None:
        cuda.copy(pointer, source.ctypes.data, source.nbytes, stream.handle)

    @explained
    def dtoh(target: Any, pointer: int, stream: Stream) -> None:
        cuda.copy(target.ctypes.data, pointer, target.nbytes, stream.handle)

    names = {
        "Error": Error, "Context": Context, "Device": Device, "Stream": Stream, "init": lambda: None,
        "mem_alloc": DeviceAllocation, "pagelocked_empty": pagelocked_empty, "memcpy_htod_async": htod,
        "memcpy_dtoh_async": dtoh, "host_alloc_flags": SimpleNamespace(PORTABLE=1, DEVICEMAP=2),
        "device_attribute": SimpleNamespace(INTEGRATED="INTEGRATED", CAN_MAP_HOST_MEMORY="CAN_MAP_HOST_MEMORY"),
        "mem_get_info": lambda: (cuda.memory_limit_bytes, cuda.memory_limit_bytes),
    }  # fmt: skip
    for name, value in names.items():
        setattr(driver, name, value)
    package.driver, package.VERSION_TEXT = driver, "2025.1"  # type: ignore[attr-defined]
    return {"pycuda": package, "pycuda.driver": driver}


def install(patch: pytest.MonkeyPatch, cuda: FakeCuda, *, backend: str = "cuda-python") -> FakeCuda:
    """Make one of the two packages importable and the other one not."""
    import sys

    for name in ("cuda", "cuda.bindings", "cuda.cuda", "cuda.bindings.driver", "cuda.bindings.nvrtc", "pycuda",
                 "pycuda.driver", "fer_edge.runtime.pycuda_device"):  # fmt: skip
        patch.delitem(sys.modules, name, raising=False)
    if backend == "cuda-python":
        package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
        package.__path__ = bindings.__path__ = []  # type: ignore[attr-defined]
        modules = {
            "cuda": package, "cuda.bindings": bindings, "cuda.bindings.driver": driver_module(cuda),
            "cuda.bindings.nvrtc": nvrtc_module(),
        }  # fmt: skip
        patch.setitem(sys.modules, "pycuda", None)
    else:
        modules = pycuda_modules(cuda)
        patch.setitem(sys.modules, "cuda", None)
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
    return cuda
