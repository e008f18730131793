"""ONNX Runtime on an NVIDIA GPU as a session: the CUDA provider and the TensorRT provider, with bound device memory."""

from __future__ import annotations

import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from fer_edge.core.disk import writing
from fer_edge.core.errors import SessionError
from fer_edge.core.types import Array
from fer_edge.runtime.ort_session import load_ort, ort_info, ort_options
from fer_edge.runtime.session import Session, TensorSpec

__all__ = ["GPU_PROVIDERS", "OrtGpuSession", "stray_nodes"]


@dataclass(frozen=True, kw_only=True)
class GpuProvider:
    """One of ONNX Runtime's providers for NVIDIA GPUs: its name there, and the device of its tensors."""

    name: str
    device: str = "cuda"


GPU_PROVIDERS: Final[dict[str, GpuProvider]] = {
    "cuda": GpuProvider(name="CUDAExecutionProvider"),
    "ort-tensorrt": GpuProvider(name="TensorrtExecutionProvider"),
}
"""fer-edge's name of the provider -> ONNX Runtime's."""

_BINDINGS: Final = 8  # shapes whose buffers stay on the GPU; the least recently used one is dropped
_FLOATS: Final = ("float", "float16", "double", "bfloat16")
_NAMED: Final = 5  # nodes that a message names


class OrtGpuSession(Session):
    """A graph in ONNX Runtime's CUDA or TensorRT provider; not yet run on a GPU, tested on the CPU provider instead.

    Inputs and outputs are bound to GPU buffers that keep their addresses, for the last eight shapes. Runs wait for each
    other. ONNX Runtime gives a node that a provider cannot compute to the next provider and only logs it, so opening
    runs the graph once under its profiler and refuses it where another provider computed floats. (Shapes computed from
    shapes belong on the CPU.)

    Args:
        graph: an ONNX file's bytes.
        provider: ``"cuda"`` or ``"ort-tensorrt"``.
        threads: intra-op threads of the nodes on the CPU.
        cache: folder in which the TensorRT provider keeps its engines, so that only the first start builds them; None
            writes nothing.

    Raises:
        SessionError: the provider is not available, refuses the graph, or would leave part of it to another.
        OutputError: the cache's folder cannot be written.
    """

    def __init__(self, graph: bytes, *, provider: str, threads: int, cache: Path | None = None) -> None:
        self._kind = GPU_PROVIDERS[provider]
        self._bindings: OrderedDict[tuple[tuple[int, ...], ...], _Binding] = OrderedDict()
        settings = _provider_options(provider, graph, cache)
        with tempfile.TemporaryDirectory() as folder:
            options = ort_options(threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "open")
            session = load_ort(graph, options, self._kind.name, settings, extra="cuda")
            super().__init__(ort_info(session, provider=provider, threads=threads))
            self._session: Any | None = session
            self.run(_blank_feeds(self.inputs))
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        if strays := stray_nodes(events, wanted=self._kind.name):
            self.close()
            more = f" and {len(strays) - _NAMED} more" if len(strays) > _NAMED else ""
            raise SessionError(
                f"asked for {self._kind.name}, but it leaves part of the graph to others: "
                f"{', '.join(strays[:_NAMED])}{more}; use the provider 'cuda' or 'cpu', or another variant"
            )

    def _compute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        key = tuple(feeds[spec.name].shape for spec in self.inputs)
        if key not in self._bindings:
            names = [spec.name for spec in self.outputs]
            self._bindings[key] = _Binding(self._session, feeds, names, self._kind.device)
        self._bindings.move_to_end(key)
        if len(self._bindings) > _BINDINGS:
            self._bindings.popitem(last=False)
        return self._bindings[key].run(self._session, feeds)

    def _release(self) -> None:
        self._bindings.clear()
        self._session = None


class _Binding:
    """The buffers of one shape on the GPU."""

    def __init__(self, session: Any, feeds: Mapping[str, Array], outputs: list[str], device: str) -> None:
        self._io = session.io_binding()
        self._inputs = {}
        for name, array in feeds.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
            self._io.bind_ortvalue_input(name, value)
            self._inputs[name] = value
        # ONNX Runtime allocates the outputs in this first run, which alone knows every size; the buffers are kept.
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
    """List nodes that computed floats on another provider, each as ``Conv '/cnn/Conv' on CPUExecutionProvider``.

    Args:
        events: ONNX Runtime's profile.
        wanted: the provider that should compute everything.
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
    """Build the smallest feeds; integers are 1, which is a valid window length."""
    return {
        spec.name: np.full(tuple(size or 1 for size in spec.shape), 1 if spec.dtype.kind in "iu" else 0, spec.dtype)
        for spec in inputs
    }


def _provider_options(provider: str, graph: bytes, cache: Path | None) -> dict[str, str]:
    if provider == "cuda":
        # TensorFloat-32 keeps ten fraction bits, so it is off for FP32. Releases before 1.18 have no such switch.
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
