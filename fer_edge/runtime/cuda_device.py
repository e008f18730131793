"""Interface to a CUDA device, and the memory of one tensor, independent of the Python package that drives CUDA.

A device retains its *primary* context, which other libraries in the process share. It is current only inside
`with device.current()`, on any thread. Importing this module does nothing on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fer_edge.core.errors import SessionError
from fer_edge.core.types import Array, Uint8

__all__ = ["CapturedGraph", "Device", "DeviceInfo", "HostBuffer", "TensorBuffer"]


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """One CUDA device.

    Attributes:
        name: name in the driver.
        compute_capability: ``87`` for 8.7.
        integrated: shares the computer's memory (a Jetson), so that mapped host memory needs no copy.
        memory_bytes: total memory.
        package: the Python package that drives it, with its version.
    """

    name: str
    compute_capability: int
    integrated: bool
    memory_bytes: int
    package: str


@dataclass(frozen=True, kw_only=True)
class HostBuffer:
    """Page-locked host memory.

    Attributes:
        array: uint8 (bytes,), valid until the buffer is freed.
        device_pointer: address of the same memory on the device, if it is mapped.
        token: handle that the backend frees.
    """

    array: Uint8
    device_pointer: int | None
    token: Any


class CapturedGraph(Protocol):
    """A captured CUDA graph."""

    def launch(self, stream: int) -> None:
        """Start it on a stream; raises `SessionError` where the driver refuses."""

    def close(self) -> None:
        """Free it; a second call does nothing."""


class Device(Protocol):
    """A CUDA device with its primary context retained. Everything but `info` and `close` is called inside `current`.

    Every method raises `SessionError` with the driver's message where the driver refuses.
    """

    @property
    def info(self) -> DeviceInfo:
        """Name, memory and compute capability."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context current on this thread for a block, and restore the previous one."""

    def create_stream(self) -> int:
        """Create a stream; never the default one, which cannot be captured."""

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""

    def allocate(self, size_bytes: int) -> int:
        """Allocate device memory and return its address."""

    def free(self, pointer: int) -> None:
        """Free device memory."""

    def allocate_host(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        """Allocate page-locked memory; mapped memory has an address on the device too."""

    def free_host(self, buffer: HostBuffer) -> None:
        """Free page-locked memory; its array must not be used afterwards."""

    def copy_to_device(self, pointer: int, source: Uint8, stream: int) -> None:
        """Enqueue a copy from page-locked memory."""

    def copy_to_host(self, target: Uint8, pointer: int, stream: int) -> None:
        """Enqueue a copy to page-locked memory."""

    def capture(self, stream: int, work: Callable[[], None]) -> CapturedGraph:
        """Capture what `work` enqueues, without running it; after a `SessionError` the stream is usable as before."""

    def free_memory_bytes(self) -> int:
        """Return the device memory that is free now, for all processes."""

    def close(self) -> None:
        """Release the context; a second call does nothing."""


class TensorBuffer:
    """Memory of one tensor: page-locked on the host plus device memory, or, mapped, one block for both.

    Args:
        device: its context is current.
        size_bytes: size of the largest tensor.
        mapped: zero-copy, for devices that share the host's memory.

    Raises:
        SessionError: out of memory; nothing stays allocated.
    """

    def __init__(self, device: Device, *, size_bytes: int, mapped: bool) -> None:
        self.size_bytes = max(size_bytes, 1)
        self._host = device.allocate_host(self.size_bytes, mapped=mapped)
        self._own: int | None = None
        if self._host.device_pointer is None:
            try:
                self._own = device.allocate(self.size_bytes)
            except SessionError:
                device.free_host(self._host)
                raise

    @property
    def pointer(self) -> int:
        """The address on the device."""
        mapped = self._host.device_pointer
        if mapped is not None:
            return mapped
        assert self._own is not None
        return self._own

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Return the host memory as an array; its values change with the next run."""
        count = int(np.prod(shape, dtype=np.int64))
        return self._host.array[: count * dtype.itemsize].view(dtype).reshape(shape)

    def to_device(self, device: Device, size_bytes: int, stream: int) -> None:
        """Enqueue the copy of the first bytes to the device; does nothing for mapped memory."""
        if self._own is not None:
            device.copy_to_device(self._own, self._host.array[:size_bytes], stream)

    def to_host(self, device: Device, size_bytes: int, stream: int) -> None:
        """Enqueue the copy of the first bytes to the host; does nothing for mapped memory."""
        if self._own is not None:
            device.copy_to_host(self._host.array[:size_bytes], self._own, stream)

    def free(self, device: Device) -> None:
        """Free the memory."""
        if self._own is not None:
            device.free(self._own)
            self._own = None
        device.free_host(self._host)
