"""`tensorrt` 8.5 to 11 and `tensorrt_rtx`, with what NVIDIA documents each to have and to refuse.

What a version lacks raises AttributeError here as it does there: objects have slots, enums the members of that version.
Engines compute with ONNX Runtime on the memory of a `FakeCuda`.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_cuda import FakeCuda

_ONNX_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}
_NUMPY = {"FLOAT": "f4", "HALF": "f2", "UINT8": "u1", "INT8": "i1", "INT32": "i4", "INT64": "i8", "BOOL": "?"}
_PLAN = b"PLAN"


class HostMemory(bytearray):
    @property
    def nbytes(self) -> int:
        return len(self)


def make(version: str, cuda: FakeCuda, *, package: str = "tensorrt") -> ModuleType:
    """A module that behaves like `package` at `version`."""
    numbers = tuple(int(part) for part in version.split(".")[:2])
    rtx = package == "tensorrt_rtx"
    modern, eleven = rtx or numbers >= (10, 0), rtx or numbers >= (11, 0)
    trt = ModuleType(package)
    trt.__version__ = version  # type: ignore[attr-defined]
    add = lambda **names: [setattr(trt, name, value) for name, value in names.items()]  # noqa: E731
    trt.built, trt.made = [], 0  # type: ignore[attr-defined]  # what the tests look at

    creation = [] if eleven else ["EXPLICIT_BATCH"]
    creation += ["STRONGLY_TYPED"] if modern else []
    flags = ["GPU_FALLBACK", "TF32", "SPARSE_WEIGHTS"]
    flags += [] if eleven else ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    flags += ["VERSION_COMPATIBLE"] if numbers >= (8, 6) or rtx else []
    levels = ["NONE", "AMPERE_PLUS"] + (["SAME_COMPUTE_CAPABILITY"] if numbers >= (10, 9) else [])
    add(
        NetworkDefinitionCreationFlag=_enum("NetworkDefinitionCreationFlag", creation),
        BuilderFlag=_enum("BuilderFlag", flags),
        MemoryPoolType=_enum("MemoryPoolType", ["WORKSPACE"]),
        ProfilingVerbosity=_enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "NONE", "DETAILED"]),
        DeviceType=_enum("DeviceType", ["GPU", "DLA"]),
        TensorIOMode=_enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"]),
        LayerInformationFormat=_enum("LayerInformationFormat", ["ONELINE", "JSON"]),
        DataType=_enum("DataType", list(_NUMPY)),
    )
    add(float32=trt.DataType.FLOAT)
    if numbers >= (8, 6) or rtx:
        add(HardwareCompatibilityLevel=_enum("HardwareCompatibilityLevel", levels))
    if rtx:
        add(
            ComputeCapability=_enum("ComputeCapability", ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121"]),
            EngineValidity=_enum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"]),
            CudaGraphStrategy=_enum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"]),
            DynamicShapesKernelSpecializationStrategy=_enum("Strategy", ["LAZY", "EAGER", "NONE"]),
        )

    class ILogger:
        Severity = _enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

        def log(self, severity: Any, message: str) -> None:
            raise NotImplementedError

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    class IOptimizationProfile:
        def __init__(self) -> None:
            self.shapes: dict[str, Any] = {}

        def set_shape(self, name: str, least: Any, tuned: Any, most: Any) -> None:
            self.shapes[name] = [list(least), list(tuned), list(most)]

    config_slots = ["profiling_verbosity", "DLA_core", "default_device_type", "state"]
    config_slots += ["progress_monitor"] if modern else []
    config_slots += ["builder_optimization_level", "hardware_compatibility_level"] if numbers >= (8, 6) or rtx else []
    config_slots += ["num_compute_capabilities"] if rtx else []

    class IBuilderConfig:
        __slots__ = config_slots

        def __init__(self) -> None:
            self.state = SimpleNamespace(flags=set(), profiles=[], pools={}, cache=None, capabilities={})

        def set_flag(self, flag: Any) -> None:
            self.state.flags.add(trt.BuilderFlag(flag).name)

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self.state.profiles.append(profile.shapes)
            return 0

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self.state.pools[pool.name] = size

        def create_timing_cache(self, blob: bytes) -> Any:
            if rtx:
                warnings.warn("Timing cache operations are no-ops in TensorRT-RTX", DeprecationWarning, stacklevel=2)
            return SimpleNamespace(blob=blob, serialize=lambda: HostMemory(b"timings of " + version.encode()))

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            if cache.blob and cache.blob != b"timings of " + version.encode() and not ignore_mismatch:
                return False
            self.state.cache = cache
            return True

        if rtx:

            def set_compute_capability(self, capability: Any, index: int) -> bool:
                self.state.capabilities[index] = capability.name
                return index < self.num_compute_capabilities

    class Layer:
        __slots__ = ("name", "num_outputs", "outputs", "precision")

        def __init__(self, node: Any) -> None:
            self.name, self.num_outputs, self.outputs = node.name, len(node.output), {}

        def set_output_type(self, index: int, kind: Any) -> None:
            self.outputs[index] = kind

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self.explicit = eleven or modern or bool(flags & 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
            strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
            self.strong = eleven or (strong is not None and bool(flags & 1 << int(strong)))
            self.graph, self.layers = b"", []
            self.num_inputs = self.num_outputs = self.num_layers = 0

        def load(self, model: Any, data: bytes) -> None:
            self.graph, self.model = data, model
            self.layers = [Layer(node) for node in model.graph.node]
            constants = {each.name for each in model.graph.initializer}
            self.given = [each for each in model.graph.input if each.name not in constants]
            self.num_inputs, self.num_outputs = len(self.given), len(model.graph.output)
            self.num_layers = len(self.layers)

        def get_input(self, index: int) -> Any:
            value = self.given[index]
            return SimpleNamespace(name=value.name, dtype=_dtype(trt, value, modern))

        def get_output(self, index: int) -> Any:
            return SimpleNamespace(name=self.model.graph.output[index].name)

        def get_layer(self, index: int) -> Layer:
            return self.layers[index]

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            self.network, self.logger, self.errors = network, logger, []

        @property
        def num_errors(self) -> int:
            return len(self.errors)

        def parse(self, data: bytes) -> bool:
            if not self.network.explicit:
                return self._fail(-1, "", "", "Assertion failed: !mImporterCtx.network()->hasImplicitBatchDimension()")
            try:
                model = onnx.load_from_string(data)
                onnx.checker.check_model(model)
            except Exception:
                if b"NonSense" not in data:
                    return self._fail(-1, "", "", "Failed to parse the ONNX model.")
            for number, node in enumerate(model.graph.node):
                if node.op_type == "NonSense":
                    return self._fail(number, node.name, node.op_type, "Plugin not found")
            if not modern and any(each.type.tensor_type.elem_type == 7 for each in model.graph.input):
                self.logger.log(ILogger.Severity.WARNING, "Your ONNX model has been generated with INT64 weights")
            self.network.load(model, data)
            return True

        def get_error(self, index: int) -> Any:
            return self.errors[index]

        def _fail(self, number: int, name: str, operator: str, why: str) -> bool:
            error = {"node": lambda: number, "desc": lambda: why, "code": lambda: 6, "func": lambda: "parse"}
            if modern:
                error |= {"node_name": lambda: name, "node_operator": lambda: operator}
            self.errors.append(SimpleNamespace(**error))
            return False

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self.logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> HostMemory | None:
            state = config.state
            if network.strong and state.flags & {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}:
                return self._fail("strongly typed networks take no precision flags")
            if not state.profiles:
                return self._fail("Network has dynamic or shape inputs, but no optimization profile has been defined.")
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None and not _report(monitor):
                return None
            trt.built.append(SimpleNamespace(config=config, network=network))
            header = {
                "package": package, "version": version, "profile": state.profiles[0], "modern": modern,
                "gpu": None if state.capabilities else cuda.name, "capabilities": list(state.capabilities.values()),
                "compatible": "VERSION_COMPATIBLE" in state.flags,
            }  # fmt: skip
            return HostMemory(_PLAN + json.dumps(header).encode() + b"\n" + network.graph)

        def _fail(self, why: str) -> None:
            self.logger.log(ILogger.Severity.ERROR, f"IBuilder::buildSerializedNetwork: {why}")

    class Runtime:
        __slots__ = ("engine_host_code_allowed", "logger")

        def __init__(self, logger: ILogger) -> None:
            self.logger, self.engine_host_code_allowed = logger, False

        def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
            cuda.need_context()
            assert plan.startswith(_PLAN), "the real one crashes here"
            header, _, graph = plan[len(_PLAN) :].partition(b"\n")
            about = json.loads(header)
            if about["compatible"] and not self.engine_host_code_allowed:
                return self._fail("Cannot deserialize engine with lean runtime.")
            if about["version"] != version and not about["compatible"]:
                return self._fail("The engine plan file is not compatible with this version of TensorRT")
            return ICudaEngine(about, graph)

        if rtx:

            def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
                about = json.loads(plan[len(_PLAN) :].partition(b"\n")[0])
                here = f"SM{cuda.capability}"
                kinds = trt.EngineValidity
                return (kinds.VALID, 0) if here in about["capabilities"] else (kinds.INVALID, 7)

        def _fail(self, why: str) -> None:
            self.logger.log(ILogger.Severity.ERROR, f"IRuntime::deserializeCudaEngine: {why}")

    class ICudaEngine:
        def __init__(self, about: dict[str, Any], graph: bytes) -> None:
            self.about = about
            self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            model = onnx.load_from_string(graph)
            constants = {each.name for each in model.graph.initializer}
            self.given = {each.name: each for each in model.graph.input if each.name not in constants}
            self.tensors = {**self.given, **{each.name: each for each in model.graph.output}}
            self.num_io_tensors = len(self.tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self.tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.INPUT if name in self.given else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return _dtype(trt, self.tensors[name], self.about["modern"])

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(each.dim_value or -1 for each in self.tensors[name].type.tensor_type.shape.dim)

        def create_execution_context(self, config: Any = None) -> IExecutionContext:
            cuda.need_context()
            return IExecutionContext(self)

        def create_engine_inspector(self) -> Any:
            layers = [
                {"Name": "conv", "LayerType": "CaskConvolution", "Outputs": [
                    {"DataType": "Half", "Format": "Linear"} if eleven else {"Format/Datatype": "Row major linear FP16"}
                ]},
                "copy",
            ]  # fmt: skip
            return SimpleNamespace(get_engine_information=lambda _format: json.dumps({"Layers": layers}))

        if rtx:

            def create_runtime_config(self) -> Any:
                cache = SimpleNamespace(blob=b"")

                def load(blob: bytes) -> bool:
                    cache.blob = blob
                    return blob.startswith(b"kernels")

                cache.deserialize, cache.serialize = load, lambda: HostMemory(b"kernels" + cache.blob[7:] + b"+")
                return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda _cache: True)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self.engine, self.shapes, self.pointers = engine, {}, {}
            cuda.contexts += 1

        def __del__(self) -> None:
            cuda.contexts -= 1

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            least, _, most = self.engine.about["profile"][name]
            if not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
                return False
            self.shapes[name] = tuple(shape)
            return True

        def infer_shapes(self) -> list[str]:
            return [name for name in self.engine.given if name not in self.shapes]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            ones = {
                each: np.ones(self.shapes[each], _graph_type(self.engine.given[each])) for each in self.engine.given
            }
            outputs = [each.name for each in self.engine.session.get_outputs()]
            return tuple(self.engine.session.run([name], ones)[0].shape) if name in outputs else self.shapes[name]

        def set_tensor_address(self, name: str, pointer: int) -> bool:
            self.pointers[name] = pointer
            return True

        def execute_async_v3(self, stream: int) -> bool:
            engine, shapes, pointers = self.engine, dict(self.shapes), dict(self.pointers)
            if set(pointers) != set(engine.tensors):
                return False

            def run() -> None:
                feeds = {name: _read(pointers[name], shapes[name], engine.get_tensor_dtype(name)) for name in shapes}
                feeds = {name: value.astype(_graph_type(engine.given[name])) for name, value in feeds.items()}
                for output, value in zip(engine.session.get_outputs(), engine.session.run(None, feeds), strict=True):
                    cuda.check(pointers[output.name], value.nbytes)
                    ctypes.memmove(pointers[output.name], np.ascontiguousarray(value).ctypes.data, value.nbytes)

            cuda.put(stream, run)
            return True

        if rtx:

            def is_stream_capturable(self, stream: int) -> bool:
                return stream in cuda.streams

    add(ILogger=ILogger, Builder=Builder, OnnxParser=OnnxParser, Runtime=Runtime)
    if modern:
        add(IProgressMonitor=IProgressMonitor)
    return trt


def install(patch: pytest.MonkeyPatch, version: str, cuda: FakeCuda, *, package: str = "tensorrt") -> ModuleType:
    """Make `package` importable at `version`."""
    module = make(version, cuda, package=package)
    patch.setitem(sys.modules, package, module)
    return module


def _enum(name: str, members: list[str]) -> Any:
    return enum.IntEnum(name, {member: index for index, member in enumerate(members)})


def _dtype(trt: Any, value: Any, modern: bool) -> Any:
    name = _ONNX_TYPES[value.type.tensor_type.elem_type]
    return trt.DataType["INT32" if name == "INT64" and not modern else name]


def _graph_type(value: Any) -> np.dtype[Any]:
    return np.dtype(_NUMPY[_ONNX_TYPES[value.type.tensor_type.elem_type]])


def _read(pointer: int, shape: tuple[int, ...], kind: Any) -> Any:
    dtype = np.dtype(_NUMPY[kind.name])
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype).reshape(shape)


def _report(monitor: Any) -> bool:
    monitor.phase_start("Building engine", None, 3)
    for step in range(3):
        monitor.phase_start("Timing tactics", "Building engine", 1)
        monitor.step_complete("Timing tactics", 0)
        monitor.phase_finish("Timing tactics")
        if not monitor.step_complete("Building engine", step):
            return False
    monitor.phase_finish("Building engine")
    return True
