"""TensorRT and TensorRT-RTX engines as sessions on a CUDA device."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fer_edge.core.disk import writing
from fer_edge.core.errors import OutputError, SessionError
from fer_edge.core.tensorrt_flavours import Package
from fer_edge.runtime.cuda_device import Device
from fer_edge.runtime.device_session import DeviceSession, Shape, open_device
from fer_edge.runtime.engine_files import EngineFile, find_engine
from fer_edge.runtime.session import TensorSpec
from fer_edge.runtime.tensorrt_library import TensorRtLibrary, load_tensorrt, numpy_dtype

if TYPE_CHECKING:
    import tensorrt

__all__ = ["TensorRtEngine", "open_engine", "open_engine_session"]

_PROVIDERS: Final[Mapping[Package, str]] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
_RUNTIME_CACHE: Final = ".runtime-cache"
_log = logging.getLogger(__name__)


class TensorRtEngine:
    """A loaded engine (`DeviceEngine`); the device's context must be current.

    TensorRT-RTX compiles kernels at the first run of a shape. They are kept beside the engine, in a file that ends in
    ``.runtime-cache``, for the next process; a cache that cannot be read or written costs time only.

    Args:
        library: the installed TensorRT.
        file: the engine with its sidecar, already checked for this machine (`find_engine`).

    Raises:
        SessionError: the plan does not match the sidecar, or TensorRT refuses it.
    """

    def __init__(self, library: TensorRtLibrary, file: EngineFile) -> None:
        self._library, self._file = library, file
        plan = file.read()
        with library.log.listen() as messages:
            runtime: tensorrt.Runtime = library.module.Runtime(library.logger)
            if file.sidecar.version_compatible:
                runtime.engine_host_code_allowed = True  # such a plan contains its version's runtime
            if library.flavour.just_in_time:
                _check_validity(library, runtime, plan, file.path)
            engine: tensorrt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise SessionError(f"{library.title} refuses {file.path}: {messages.reason()}")
        self._runtime: tensorrt.Runtime | None = runtime
        self._engine: tensorrt.ICudaEngine | None = engine
        self._cache: Any | None = None
        self._config: Any | None = self._runtime_config(engine) if library.flavour.just_in_time else None
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.device_dtypes: Mapping[str, np.dtype[Any]] = {
            name: numpy_dtype(engine.get_tensor_dtype(name)) for name in names
        }
        self.inputs, self.outputs = self._specs(engine, names)
        self.provider = _PROVIDERS[library.package]
        self.provider_version = library.title

    def create_program(self) -> _Program:
        assert self._engine is not None
        with self._library.log.listen() as messages:
            if self._config is not None:
                context = self._engine.create_execution_context(self._config)
            else:
                context = self._engine.create_execution_context()
        if context is None:
            raise SessionError(f"{self._library.title} has no execution context left to give: {messages.reason()}")
        return _Program(self._library, context, self.inputs, self.outputs)

    def inspect(self) -> str:
        """Return the engine inspector's JSON, which lists the engine's layers."""
        assert self._engine is not None
        inspector: tensorrt.EngineInspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._library.module.LayerInformationFormat.JSON))

    def close(self) -> None:
        self._save_cache()
        # In this order: TensorRT's objects hold no references to the objects that created them.
        self._config = self._cache = None
        self._engine = None
        self._runtime = None

    def _specs(
        self, engine: tensorrt.ICudaEngine, names: list[str]
    ) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        mode = self._library.module.TensorIOMode
        stated = {tensor.name: tensor.spec() for tensor in self._file.sidecar.inputs}
        inputs, outputs = [], []
        for name in names:
            if engine.get_tensor_mode(name) == mode.INPUT:
                if name not in stated:
                    raise SessionError(f"{self._file.path} takes {name!r}, which its sidecar does not name")
                inputs.append(stated[name])
            else:
                shape = tuple(None if size < 0 else size for size in _sizes(engine.get_tensor_shape(name)))
                outputs.append(TensorSpec(name=name, dtype=self.device_dtypes[name], shape=shape))
        return tuple(inputs), tuple(outputs)

    def _runtime_config(self, engine: Any) -> Any:
        """Compile a shape's kernels at its first run, so that a captured graph never holds fallback kernels."""
        trt = self._library.module
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED  # the session captures copies and kernels as one
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = config.create_runtime_cache()
        place = self._cache_path()
        with contextlib.suppress(OSError):
            if not self._cache.deserialize(place.read_bytes()):
                _log.info("%s is of another driver or version and is replaced", place)
        config.set_runtime_cache(self._cache)
        return config

    def _save_cache(self) -> None:
        if self._cache is None:
            return
        place = self._cache_path()
        scratch = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            with writing(place):
                scratch.write_bytes(bytes(self._cache.serialize()))
                os.replace(scratch, place)
        except OutputError as error:
            _log.info("the runtime cache was not kept: %s", error)

    def _cache_path(self) -> Path:
        return self._file.path.with_name(f"{self._file.path.name}{_RUNTIME_CACHE}")


class _Program:
    """An execution context; see `DeviceProgram`."""

    def __init__(
        self,
        library: TensorRtLibrary,
        context: tensorrt.IExecutionContext,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self._library = library
        self._context: tensorrt.IExecutionContext | None = context
        self._inputs, self._outputs = inputs, outputs

    def prepare(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        context = self._open()
        with self._library.log.listen() as messages:
            for spec in self._inputs:
                if not context.set_input_shape(spec.name, shapes[spec.name]):
                    raise SessionError(
                        f"TensorRT refuses the shape {shapes[spec.name]} of {spec.name}: {messages.reason()}"
                    )
            if unset := context.infer_shapes():
                raise SessionError(f"TensorRT cannot tell the outputs' shapes without {', '.join(unset)}")
        return {spec.name: _sizes(context.get_tensor_shape(spec.name)) for spec in self._outputs}

    def bind(self, name: str, pointer: int) -> None:
        if not self._open().set_tensor_address(name, pointer):
            raise SessionError(f"TensorRT refuses the address of {name}")

    def enqueue(self, stream: int) -> None:
        context = self._open()
        with self._library.log.listen() as messages:
            if not context.execute_async_v3(stream):
                raise SessionError(f"{self._library.title} failed while running: {messages.reason()}")

    def capture_fault(self, stream: int) -> str | None:
        if not self._library.flavour.just_in_time:
            return None
        context: Any = self._open()
        return None if context.is_stream_capturable(stream) else "TensorRT-RTX cannot be captured at this shape"

    def close(self) -> None:
        self._context = None

    def _open(self) -> tensorrt.IExecutionContext:
        if self._context is None:
            raise SessionError("this execution context is closed")
        return self._context


def open_engine(file: EngineFile, library: TensorRtLibrary, device: Device, **options: Any) -> DeviceSession:
    """Open an engine found by `find_engine` as a session, which closes the device when it closes.

    Args:
        file: the engine.
        library: the installed TensorRT.
        device: opened for this session.
        options: options of `DeviceSession`.

    Raises:
        SessionError: TensorRT refuses it; the device is then closed.
    """
    try:
        with device.current():
            engine = TensorRtEngine(library, file)
    except BaseException:
        device.close()
        raise
    return DeviceSession(device, engine, **options)


def open_engine_session(
    where: Path, *, graph_sha256: str, package: Package, build: str = "", contexts: int = 2, ordinal: int = 0
) -> DeviceSession:
    """Open the engine of a graph on this machine as a session.

    Args:
        where: the engine's file, or a folder of engines.
        graph_sha256: hash of the bundle's graph.
        package: the TensorRT that runs it.
        build: the command that builds a missing one, for the message.
        contexts: execution contexts, which is the number of concurrent runs.
        ordinal: index of the CUDA device.

    Raises:
        MissingPackageError: TensorRT or the CUDA package is not installed.
        SessionError: no GPU, no fitting engine, or TensorRT refuses it.
    """
    library = load_tensorrt(package)
    device = open_device(ordinal)
    try:
        file = find_engine(where, graph_sha256=graph_sha256, library=library, device=device.info, build=build)
    except BaseException:
        device.close()
        raise
    return open_engine(file, library, device, contexts=contexts)


def _sizes(dims: Any) -> Shape:
    return tuple(int(size) for size in dims)


def _check_validity(library: TensorRtLibrary, runtime: Any, plan: bytes, path: Path) -> None:
    with library.log.listen() as messages:
        validity, diagnostics = runtime.get_engine_validity(plan)
    kinds = library.module.EngineValidity
    if validity == kinds.INVALID:
        raise SessionError(f"{library.title}: {path} is not valid on this GPU ({diagnostics}): {messages.reason()}")
    if validity == kinds.SUBOPTIMAL:
        _log.warning("%s: %s runs on this GPU below its best speed (%s)", library.title, path, diagnostics)
