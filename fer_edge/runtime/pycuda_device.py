"""CUDA memory and streams through PyCUDA (2024.1 and later); never through `pycuda.autoinit`.

Two limits of PyCUDA (read in the source of 2025.1): detaching a primary context on another thread than the one that
retained it releases nothing, so the context is retained once per device until the process ends; and PyCUDA wraps no
stream capture, so its sessions run without CUDA graphs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pycuda
import pycuda.driver

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Uint8
from fer_edge.runtime.cuda_device import CapturedGraph, DeviceInfo, HostBuffer

__all__ = ["PyCudaDevice"]


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except pycuda.driver.Error as error:
        raise SessionError(f"CUDA: {what} failed: {' '.join(str(error).split())}") from error


@functools.cache
def _primary_context(ordinal: int) -> Any:
    return pycuda.driver.Device(ordinal).retain_primary_context()


class PyCudaDevice:
    """A device through PyCUDA (see `Device`).

    Args:
        ordinal: index of the device.

    Raises:
        SessionError: no driver, or no such device.
    """

    def __init__(self, ordinal: int = 0) -> None:
        with _explained("opening the device"):
            pycuda.driver.init()
            count = pycuda.driver.Device.count()
            if not 0 <= ordinal < count:
                raise SessionError(f"CUDA device {ordinal} is not there; this machine has {count}, counted from 0")
            self._info = _describe(pycuda.driver.Device(ordinal))
            self._context: Any | None = _primary_context(ordinal)
        # PyCUDA frees a stream or an allocation with its Python object, so the objects are kept here until then.
        self._streams: dict[int, Any] = {}
        self._allocations: dict[int, Any] = {}

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        if self._context is None:
            raise SessionError("this device is closed")
        with _explained("making the context current"):
            self._context.push()
        try:
            yield
        finally:
            pycuda.driver.Context.pop()

    def create_stream(self) -> int:
        with _explained("creating a stream"):
            stream = pycuda.driver.Stream(1)  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
        handle = int(stream.handle)
        self._streams[handle] = stream
        return handle

    def destroy_stream(self, stream: int) -> None:
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        with _explained("waiting for a stream"):
            self._streams[stream].synchronize()

    def allocate(self, size_bytes: int) -> int:
        with _explained(f"allocating {size_bytes} bytes on the device"):
            allocation = pycuda.driver.mem_alloc(size_bytes)
        pointer = int(allocation)
        self._allocations[pointer] = allocation
        return pointer

    def free(self, pointer: int) -> None:
        with _explained("freeing device memory"):
            self._allocations.pop(pointer).free()

    def allocate_host(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        kinds = pycuda.driver.host_alloc_flags
        flags = kinds.PORTABLE | (kinds.DEVICEMAP if mapped else 0)
        with _explained(f"allocating {size_bytes} page-locked bytes"):
            array = pycuda.driver.pagelocked_empty(size_bytes, np.uint8, mem_flags=flags)
            seen = int(array.base.get_device_pointer()) if mapped else None
        return HostBuffer(array=array, device_pointer=seen, token=array.base)

    def free_host(self, buffer: HostBuffer) -> None:
        with _explained("freeing page-locked memory"):
            buffer.token.free()

    def copy_to_device(self, pointer: int, source: Uint8, stream: int) -> None:
        with _explained("copying to the device"):
            pycuda.driver.memcpy_htod_async(pointer, source, self._streams[stream])

    def copy_to_host(self, target: Uint8, pointer: int, stream: int) -> None:
        with _explained("copying from the device"):
            pycuda.driver.memcpy_dtoh_async(target, pointer, self._streams[stream])

    def capture(self, stream: int, work: Callable[[], None]) -> CapturedGraph:
        raise SessionError("PyCUDA captures no CUDA graphs; install cuda-python for them")

    def free_memory_bytes(self) -> int:
        with _explained("asking for the free memory"):
            return int(pycuda.driver.mem_get_info()[0])

    def close(self) -> None:
        self._context = None


def _describe(device: Any) -> DeviceInfo:
    kinds = pycuda.driver.device_attribute
    major, minor = device.compute_capability()
    shared = device.get_attribute(kinds.INTEGRATED) and device.get_attribute(kinds.CAN_MAP_HOST_MEMORY)
    return DeviceInfo(
        name=device.name(),
        compute_capability=10 * major + minor,
        integrated=bool(shared),
        memory_bytes=int(device.total_memory()),
        package=f"pycuda {pycuda.VERSION_TEXT}",
    )
