"""ONNX Runtime on an NVIDIA GPU as a session: the CUDA provider and the TensorRT provider, with bound device memory."""

from __future__ import annotations

import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import onnxruntime

from fer_edge.core.errors import SessionError
from fer_edge.core.files import writing
from fer_edge.core.types import Array
from fer_edge.runtime.ort_session import OrtSettings, ort_options, ort_specs, require_ort_provider
from fer_edge.runtime.session import TensorSpec, check_feeds, one_line

__all__ = ["GPU_PROVIDERS", "OrtGpuSession", "stray_nodes"]


@dataclass(frozen=True, kw_only=True)
class GpuProvider:
    """One of ONNX Runtime's providers for NVIDIA GPUs: its own name, and where its tensors lie."""

    name: str
    device: str = "cuda"


GPU_PROVIDERS: Final[dict[str, GpuProvider]] = {
    "cuda": GpuProvider(name="CUDAExecutionProvider"),
    "ort-tensorrt": GpuProvider(name="TensorrtExecutionProvider"),
}
"""Our name of the provider -> ONNX Runtime's."""

_BINDINGS: Final = 8  # shapes whose buffers stay on the GPU; the one that was longest unused goes
_FLOATS: Final = ("float", "float16", "double", "bfloat16")
_NAMED: Final = 5  # nodes that a message names


class OrtGpuSession:
    """A graph in ONNX Runtime's CUDA or TensorRT provider.

    Inputs and outputs are bound to buffers on the GPU that are made at the first run of a shape and keep their
    addresses while the shape stays, for the last eight shapes. `run` may be called from several threads: the calls
    wait for one another.

    ONNX Runtime gives a node that a provider cannot take to the next one, down to the CPU, and says so only in its log.
    Here the graph is run once when it is opened, under ONNX Runtime's profiler, and refused where a node that computes
    floats ran anywhere else than asked for. (What computes shapes from shapes belongs on the CPU.)

    No GPU has run this yet; it is tested on ONNX Runtime's CPU provider in the GPU's place.

    Args:
        graph: an ONNX file's bytes.
        provider: ``"cuda"`` or ``"ort-tensorrt"``.
        threads: intra-op threads of what stays on the CPU.
        cache: a folder in which the TensorRT provider keeps its engines, so that only the first start builds them; None
            writes nothing.

    Raises:
        SessionError: the provider is not to be had, refuses the graph, or would leave part of it to another.
        OutputError: the cache's folder cannot be written.
    """

    def __init__(self, graph: bytes, *, provider: str, threads: int, cache: Path | None = None) -> None:
        self._kind = GPU_PROVIDERS[provider]
        require_ort_provider(self._kind.name, extra="cuda")
        self._provider = provider
        self._threads = threads
        self._lock = threading.Lock()
        self._bindings: OrderedDict[tuple[tuple[int, ...], ...], _Binding] = OrderedDict()
        with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
            options = ort_options(threads, OrtSettings())
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "opening")
            self._session: Any = self._load(graph, options, _provider_options(provider, graph, cache))
            self._inputs = ort_specs(self._session.get_inputs())
            self._outputs = ort_specs(self._session.get_outputs())
            self.run(_blank_feeds(self._inputs))
            events = json.loads(Path(self._session.end_profiling()).read_text("utf-8"))
        self._refuse_strays(stray_nodes(events, wanted=self._kind.name))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def provider_version(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def threads(self) -> int:
        return self._threads

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_feeds(self._inputs, feeds)
        key = tuple(feeds[spec.name].shape for spec in self._inputs)
        with self._lock:
            if self._session is None:
                raise SessionError("this session is closed")
            try:
                if key not in self._bindings:
                    names = [spec.name for spec in self._outputs]
                    self._bindings[key] = _Binding(self._session, feeds, names, self._kind.device)
                self._bindings.move_to_end(key)
                if len(self._bindings) > _BINDINGS:
                    self._bindings.popitem(last=False)
                return self._bindings[key].run(self._session, feeds)
            except Exception as error:  # ONNX Runtime's exceptions have no base of their own
                raise SessionError(f"ONNX Runtime failed while running: {one_line(error)}") from error

    def close(self) -> None:
        with self._lock:
            self._bindings.clear()
            self._session = None

    def __enter__(self) -> OrtGpuSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, graph: bytes, options: Any, provider_options: Mapping[str, str]) -> Any:
        wanted = self._kind.name
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=[(wanted, dict(provider_options))])
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise SessionError(f"ONNX Runtime refuses the graph: {one_line(error)}") from error
        running = session.get_providers()
        if not running or running[0] != wanted:
            raise SessionError(
                f"asked for {wanted}, but {', '.join(running)} would run; check the driver and the CUDA libraries that "
                f"onnxruntime {onnxruntime.__version__} needs"
            )
        session.disable_fallback()
        return session

    def _refuse_strays(self, strays: tuple[str, ...]) -> None:
        if strays:
            self.close()
            more = f" and {len(strays) - _NAMED} more" if len(strays) > _NAMED else ""
            raise SessionError(
                f"asked for {self._kind.name}, but it leaves part of the graph to others: "
                f"{', '.join(strays[:_NAMED])}{more}. Take the provider 'cuda' or 'cpu', or another variant"
            )


class _Binding:
    """The buffers of one shape on the device."""

    def __init__(self, session: Any, feeds: Mapping[str, Array], outputs: list[str], device: str) -> None:
        self._io = session.io_binding()
        self._inputs = {}
        for name, array in feeds.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
            self._io.bind_ortvalue_input(name, value)
            self._inputs[name] = value
        # Where an output's size follows only from the run, ONNX Runtime makes its buffer, and the buffer is kept.
        for name in outputs:
            self._io.bind_output(name, device, 0)
        session.run_with_iobinding(self._io)
        self._outputs = dict(zip(outputs, self._io.get_outputs(), strict=True))
        self._io.clear_binding_outputs()
        for name, value in self._outputs.items():
            self._io.bind_ortvalue_output(name, value)

    def run(self, session: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(feeds[name]))
        session.run_with_iobinding(self._io)
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


def stray_nodes(events: Iterable[Mapping[str, Any]], *, wanted: str) -> tuple[str, ...]:
    """Nodes that computed floats on another provider, each as ``Conv '/cnn/Conv' on CPUExecutionProvider``.

    Args:
        events: of ONNX Runtime's profile.
        wanted: the provider that should have run everything.
    """
    strays: dict[str, None] = {}
    for event in events:
        arguments = event.get("args", {})
        name = str(event.get("name", ""))
        if not name.endswith("_kernel_time") or arguments.get("provider", wanted) == wanted:
            continue
        outputs = arguments.get("output_type_shape")
        floats = outputs is None or any(kind in _FLOATS for output in outputs for kind in output)
        if floats and not str(arguments.get("op_name")).startswith("Memcpy"):
            node = name.removesuffix("_kernel_time")
            strays[f"{arguments.get('op_name')} {node!r} on {arguments['provider']}"] = None
    return tuple(strays)


def _blank_feeds(inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """The smallest feeds; whole numbers are 1, so that a length is a length."""
    return {
        spec.name: np.full(tuple(size or 1 for size in spec.shape), 1 if spec.dtype.kind in "iu" else 0, spec.dtype)
        for spec in inputs
    }


def _provider_options(provider: str, graph: bytes, cache: Path | None) -> dict[str, str]:
    if provider == "cuda":
        # TensorFloat-32 keeps ten bits of a float's fraction: FP32 shall mean FP32. Older releases have no such switch.
        has_switch = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 18)
        return {"use_tf32": "0"} if has_switch else {}
    options = {"trt_int8_enable": "1"} if b"QuantizeLinear" in graph else {}
    if cache is not None:
        with writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
        }
    return options
