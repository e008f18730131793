"""A small CUDA kernel in an engine's place: what a GPU without a TensorRT for it can still prove of the session.

The kernel computes ``2 x + 1``; NVRTC compiles it for the device at hand. Buffers, streams, graph capture, threads and
closing are those of every session on a device (`DeviceSession`).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import MissingPackageError, SessionError
from fer_edge.runtime.cuda_python_device import CudaPythonDevice, call, driver_api
from fer_edge.runtime.device_session import DeviceSession, Shape
from fer_edge.runtime.session import TensorSpec

__all__ = ["KernelEngine", "compile_kernel", "open_kernel_session"]

_SOURCE: Final = b"""
extern "C" __global__ void affine(const float* x, float* y, unsigned int count)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = 2.0f * x[i] + 1.0f;
}
"""
_THREADS_A_BLOCK: Final = 256
_WIDTH: Final = 1024
_BATCH_LIMIT: Final = 64


class KernelEngine:
    """The kernel, loaded: x float32 (N, 1024), 1 <= N <= 64, to y of the same shape.

    Args:
        compute_capability: ``87`` is 8.7; the device's context is current.

    Raises:
        MissingPackageError: NVRTC's library is not installed.
        SessionError: it does not compile or load.
    """

    def __init__(self, compute_capability: int) -> None:
        spec = TensorSpec(
            name="x", dtype=np.dtype(np.float32), shape=(None, _WIDTH), limits=((1, _BATCH_LIMIT), (_WIDTH, _WIDTH))
        )
        self.inputs: tuple[TensorSpec, ...] = (spec,)
        self.outputs = (TensorSpec(name="y", dtype=spec.dtype, shape=spec.shape),)
        self.device_dtypes: Mapping[str, np.dtype[Any]] = {"x": spec.dtype, "y": spec.dtype}
        self.provider = "kernel"
        self._api = driver_api()
        image, self.provider_version = compile_kernel(compute_capability)
        self._module: Any | None = call(self._api, "cuModuleLoadData", image)
        self._function = call(self._api, "cuModuleGetFunction", self._module, b"affine")

    def create_program(self) -> _KernelProgram:
        return _KernelProgram(self._api, self._function)

    def close(self) -> None:
        if self._module is not None:
            module, self._module = self._module, None
            call(self._api, "cuModuleUnload", module)


class _KernelProgram:
    def __init__(self, api: Any, function: Any) -> None:
        self._api, self._function = api, function
        self._pointers: dict[str, int] = {}
        self._count = 0

    def prepare(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        self._count = shapes["x"][0] * _WIDTH
        return {"y": shapes["x"]}

    def bind(self, name: str, pointer: int) -> None:
        self._pointers[name] = pointer

    def enqueue(self, stream: int) -> None:
        blocks = -(-self._count // _THREADS_A_BLOCK)
        values = (self._pointers["x"], self._pointers["y"], self._count)
        types = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
        call(
            self._api,
            "cuLaunchKernel",
            self._function,
            *(blocks, 1, 1),
            *(_THREADS_A_BLOCK, 1, 1),
            0,
            stream,
            (values, types),
            0,
        )

    def capture_fault(self, stream: int) -> str | None:
        return None

    def close(self) -> None:
        self._pointers.clear()


def open_kernel_session(ordinal: int = 0, *, contexts: int = 2, mapped: bool | None = None) -> DeviceSession:
    """The kernel as a session on a CUDA device.

    Raises:
        MissingPackageError: cuda-python or NVRTC's library is not installed.
        SessionError: no driver, no such device, or the driver refuses the kernel.
    """
    try:
        device = CudaPythonDevice(ordinal)
    except ImportError as error:
        raise MissingPackageError(
            f"the kernel session needs cuda-python ({error}). Install it with: pip install 'fer-edge[rtx]'"
        ) from error
    try:
        with device.current():
            engine = KernelEngine(device.info.compute_capability)
    except BaseException:
        device.close()
        raise
    return DeviceSession(device, engine, contexts=contexts, mapped=mapped)


def compile_kernel(compute_capability: int) -> tuple[bytes, str]:
    """Compile for a GPU, which need not be there: its machine code, and NVRTC's version for the record.

    Not PTX, which a driver older than NVRTC refuses.

    Raises:
        MissingPackageError: NVRTC is not installed.
        SessionError: it does not compile; NVRTC's log is in the message.
    """
    try:
        nvrtc = _nvrtc_api()
        version = call(nvrtc, "nvrtcVersion")
    except (ImportError, SessionError) as error:
        raise MissingPackageError(
            f"compiling the kernel needs NVRTC ({error}). Install it with: pip install nvidia-cuda-nvrtc, of the "
            "major version that cuda-python has"
        ) from error
    program = call(nvrtc, "nvrtcCreateProgram", _SOURCE, b"affine.cu", 0, [], [])
    try:
        call(nvrtc, "nvrtcCompileProgram", program, 1, [b"--gpu-architecture=sm_%d" % compute_capability])
        image = b" " * call(nvrtc, "nvrtcGetCUBINSize", program)
        call(nvrtc, "nvrtcGetCUBIN", program, image)
    except SessionError as error:
        raise SessionError(
            f"the kernel does not compile for SM{compute_capability}: {error}{_log(nvrtc, program)}"
        ) from error
    finally:
        call(nvrtc, "nvrtcDestroyProgram", program)
    return image, f"nvrtc {version[0]}.{version[1]}"


def _nvrtc_api() -> Any:
    try:
        return importlib.import_module("cuda.bindings.nvrtc")
    except ImportError:
        return importlib.import_module("cuda.nvrtc")  # before 12.8


def _log(nvrtc: Any, program: Any) -> str:
    with contextlib.suppress(SessionError):
        text = b" " * call(nvrtc, "nvrtcGetProgramLogSize", program)
        call(nvrtc, "nvrtcGetProgramLog", program, text)
        if said := text.decode(errors="replace").strip(" \n\0"):
            return f" ({said})"
    return ""
