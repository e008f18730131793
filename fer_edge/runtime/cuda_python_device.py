"""CUDA memory and streams through cuda-python (12.6 and later)."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Uint8
from fer_edge.runtime.cuda_device import CapturedGraph, DeviceInfo, HostBuffer

__all__ = ["CudaPythonDevice", "call", "driver_api"]

_NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_PORTABLE, _DEVICEMAP = 1, 2  # CU_MEMHOSTALLOC_*


def driver_api() -> Any:
    """Import the driver's binding from where this release of cuda-python has it.

    Raises:
        ImportError: cuda-python is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return importlib.import_module("cuda.cuda")  # before 12.8


def call(api: Any, name: str, *arguments: Any) -> Any:
    """Call a driver function and return its results without the status: None, a value, or a tuple.

    Raises:
        SessionError: any status but success, or no driver.
    """
    try:
        status, *values = getattr(api, name)(*arguments)
    except RuntimeError as error:  # cuda-python's error for a missing driver library
        raise SessionError(f"CUDA: {name} cannot be called ({error}); check the NVIDIA driver") from error
    if int(status) != 0:
        named = getattr(status, "name", None) or f"status {int(status)}"
        raise SessionError(f"CUDA: {name} failed with {named}")
    return values[0] if len(values) == 1 else tuple(values) if values else None


class _Graph:
    def __init__(self, api: Any, executable: Any) -> None:
        self._api = api
        self._executable: Any | None = executable

    def launch(self, stream: int) -> None:
        call(self._api, "cuGraphLaunch", self._executable, stream)

    def close(self) -> None:
        if self._executable is not None:
            executable, self._executable = self._executable, None
            call(self._api, "cuGraphExecDestroy", executable)


class CudaPythonDevice:
    """A device through cuda-python (see `Device`).

    Args:
        ordinal: index of the device.

    Raises:
        SessionError: no driver, or no such device.
        ImportError: cuda-python is not installed.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._api = driver_api()
        self._call("cuInit", 0)
        count = self._call("cuDeviceGetCount")
        if not 0 <= ordinal < count:
            raise SessionError(f"CUDA device {ordinal} is not there; this machine has {count}, counted from 0")
        self._device = self._call("cuDeviceGet", ordinal)
        self._info = self._describe()
        self._context: Any | None = self._call("cuDevicePrimaryCtxRetain", self._device)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        if self._context is None:
            raise SessionError("this device is closed")
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def create_stream(self) -> int:
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def allocate(self, size_bytes: int) -> int:
        return int(self._call("cuMemAlloc", size_bytes))

    def free(self, pointer: int) -> None:
        self._call("cuMemFree", pointer)

    def allocate_host(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        address = int(self._call("cuMemHostAlloc", size_bytes, _PORTABLE | (_DEVICEMAP if mapped else 0)))
        try:
            seen = int(self._call("cuMemHostGetDevicePointer", address, 0)) if mapped else None
        except SessionError:
            self._call("cuMemFreeHost", address)
            raise
        memory = (ctypes.c_uint8 * size_bytes).from_address(address)
        return HostBuffer(array=np.ctypeslib.as_array(memory), device_pointer=seen, token=address)

    def free_host(self, buffer: HostBuffer) -> None:
        self._call("cuMemFreeHost", buffer.token)

    def copy_to_device(self, pointer: int, source: Uint8, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", pointer, source.ctypes.data, source.nbytes, stream)

    def copy_to_host(self, target: Uint8, pointer: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, pointer, target.nbytes, stream)

    def capture(self, stream: int, work: Callable[[], None]) -> CapturedGraph:
        # Thread-local, so that other threads' calls do not break this capture.
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            # Only ending the capture leaves capture mode; its graph is unusable.
            with contextlib.suppress(SessionError):
                self._discard(self._call("cuStreamEndCapture", stream))
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return _Graph(self._api, self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._discard(graph)

    def free_memory_bytes(self) -> int:
        free, _ = self._call("cuMemGetInfo")
        return int(free)

    def close(self) -> None:
        if self._context is not None:
            self._context = None
            self._call("cuDevicePrimaryCtxRelease", self._device)

    def _discard(self, graph: Any) -> None:
        if graph is not None and int(graph):
            self._call("cuGraphDestroy", graph)

    def _describe(self) -> DeviceInfo:
        kinds = self._api.CUdevice_attribute

        def attribute(name: str) -> int:
            return int(self._call("cuDeviceGetAttribute", getattr(kinds, f"CU_DEVICE_ATTRIBUTE_{name}"), self._device))

        name = self._call("cuDeviceGetName", 256, self._device)
        major, minor = attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR")
        return DeviceInfo(
            name=name.split(b"\0")[0].decode(errors="replace"),
            compute_capability=10 * major + minor,
            integrated=bool(attribute("INTEGRATED")) and bool(attribute("CAN_MAP_HOST_MEMORY")),
            memory_bytes=int(self._call("cuDeviceTotalMem", self._device)),
            package=f"cuda-python {_version()}",
        )

    def _call(self, name: str, *arguments: Any) -> Any:
        return call(self._api, name, *arguments)


def _version() -> str:
    for distribution in ("cuda-bindings", "cuda-python"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return "of unknown version"
