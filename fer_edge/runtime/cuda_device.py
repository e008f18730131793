"""CUDA devices as the runtime sees them: one small interface, whichever Python package for CUDA is installed.

The device's *primary* context is retained, so that other libraries in the process share it, and is current only inside
`with device.current()`, on whatever thread that is. Nothing is done at import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from fer_edge.core.errors import FerEdgeError, MissingPackageError, SessionError
from fer_edge.core.types import Array, Uint8

__all__ = ["BACKENDS", "CapturedGraph", "Device", "DeviceInfo", "HostBuffer", "TensorBuffer", "open_device"]

Bytes = Uint8


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """One CUDA device.

    Attributes:
        name: as the driver names it.
        compute_capability: ``87`` is 8.7.
        integrated: it shares the computer's memory (a Jetson), so that mapped host memory needs no copy.
        memory_bytes: all of it, used or not.
        package: the Python package that drives it, with its version.
    """

    name: str
    compute_capability: int
    integrated: bool
    memory_bytes: int
    package: str


@dataclass(frozen=True, kw_only=True)
class HostBuffer:
    """Page-locked memory of the computer.

    Attributes:
        array: uint8 (bytes,), valid until the buffer is freed.
        device_pointer: where the device sees the same memory, if it was mapped.
        token: what the backend frees.
    """

    array: Bytes
    device_pointer: int | None
    token: Any


class CapturedGraph(Protocol):
    """Work that was captured once and is launched as a whole."""

    def launch(self, stream: int) -> None:
        """Start it on a stream.

        Raises:
            SessionError: the driver refuses.
        """

    def close(self) -> None:
        """Free it; a second call does nothing."""


class Device(Protocol):
    """A CUDA device with its primary context retained. Everything but `info` and `close` happens inside `current`.

    Every method raises `SessionError` with the driver's own words where the driver refuses.
    """

    @property
    def info(self) -> DeviceInfo:
        """What it is."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context this thread's current one for a block, and put back what was there before."""

    def create_stream(self) -> int:
        """A stream's handle; never the default stream, on which nothing can be captured."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""

    def synchronize(self, stream: int) -> None:
        """Wait until all that was put on the stream is done."""

    def allocate(self, size_bytes: int) -> int:
        """Device memory: its address."""

    def free(self, pointer: int) -> None:
        """Give device memory back."""

    def allocate_host(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        """Page-locked memory, seen by the device under an address of its own if `mapped`."""

    def free_host(self, buffer: HostBuffer) -> None:
        """Give page-locked memory back; its array must not be touched again."""

    def copy_to_device(self, pointer: int, source: Bytes, stream: int) -> None:
        """Put a copy from page-locked memory on the stream."""

    def copy_to_host(self, target: Bytes, pointer: int, stream: int) -> None:
        """Put a copy to page-locked memory on the stream."""

    def capture(self, stream: int, work: Callable[[], None]) -> CapturedGraph:
        """Capture what `work` puts on the stream, without running it.

        Raises:
            SessionError: it cannot be captured; the stream can be used as before.
        """

    def free_memory_bytes(self) -> int:
        """Device memory that is free now, for all processes."""

    def close(self) -> None:
        """Give the context back; a second call does nothing."""


class TensorBuffer:
    """One tensor's memory: page-locked on the host and on the device, or, mapped, one piece seen by both.

    Args:
        device: whose context is current.
        size_bytes: of the largest tensor that it must hold.
        mapped: zero-copy; sensible where host and device share their memory.

    Raises:
        SessionError: there is no memory left; nothing is held then.
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
        """The host's side as an array; it stays in place and changes with the next run."""
        count = int(np.prod(shape, dtype=np.int64))
        return self._host.array[: count * dtype.itemsize].view(dtype).reshape(shape)

    def to_device(self, device: Device, size_bytes: int, stream: int) -> None:
        """Put the copy of the first bytes to the device on the stream; nothing where the memory is shared."""
        if self._own is not None:
            device.copy_to_device(self._own, self._host.array[:size_bytes], stream)

    def to_host(self, device: Device, size_bytes: int, stream: int) -> None:
        """Put the copy of the first bytes back on the stream; nothing where the memory is shared."""
        if self._own is not None:
            device.copy_to_host(self._host.array[:size_bytes], self._own, stream)

    def free(self, device: Device) -> None:
        """Give both back."""
        if self._own is not None:
            device.free(self._own)
            self._own = None
        device.free_host(self._host)


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
"""Distribution -> (module, how a device is opened through it), in the order in which they are tried."""


def open_device(ordinal: int = 0, *, backend: str | None = None) -> Device:
    """Open a CUDA device through the first package that is installed.

    Args:
        ordinal: which device, as CUDA counts them.
        backend: one of `BACKENDS`; the first that is installed by default (cuda-python can capture CUDA graphs).

    Raises:
        MissingPackageError: neither package is installed.
        SessionError: there is no driver or no such device.
    """
    wanted = BACKENDS if backend is None else {backend: BACKENDS[backend]}
    for module, opener in wanted.values():
        if _importable(module):
            try:
                return opener(ordinal)
            except FerEdgeError:
                raise
            except ImportError as error:
                raise SessionError(
                    f"the package {module!r} is installed but cannot be used ({error}); check the NVIDIA driver"
                ) from error
    raise MissingPackageError(
        f"CUDA memory and streams need {' or '.join(wanted)}, and neither is installed. Install one with: "
        "pip install 'fer-edge[rtx]' (cuda-python), or pip install 'fer-edge[tensorrt]' (pycuda, needs nvcc)"
        if backend is None
        else f"the package {backend!r} is not installed. Install it with: pip install {backend}"
    )


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
