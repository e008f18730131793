"""One builder for TensorRT 8.5 to 11 and TensorRT-RTX: an ONNX graph to a serialized engine.

Differences between versions come from the library's row in `fer_edge.core.tensorrt_flavours`, never from a version
number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fer_edge.core.errors import InputError, SessionError, require
from fer_edge.core.types import Progress
from fer_edge.export.graph_passes import InputShapes
from fer_edge.runtime.tensorrt_library import TensorRtLibrary

if TYPE_CHECKING:
    import tensorrt

__all__ = ["BuildOptions", "BuiltPlan", "build_plan", "check_options"]


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of an engine build.

    Attributes:
        shapes: the optimisation profile, by input.
        float16: allow FP16 in builders with precision flags; strongly typed graphs hold their own types.
        quantized: the graph holds Q/DQ pairs.
        keep_float32: nodes that stay FP32 in builders with precision flags.
        workspace_bytes: memory for tactics; None for the builder's default.
        compute_capabilities: GPUs to build ahead of time for; empty for the GPU of this machine.
        dla_core: the deep learning accelerator to use, with the GPU for layers that it cannot run.
        timing_cache: of an earlier build; the same cache gives the same choice of kernels.
    """

    shapes: Mapping[str, InputShapes]
    float16: bool = False
    quantized: bool = False
    keep_float32: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    compute_capabilities: tuple[int, ...] = ()
    dla_core: int | None = None
    timing_cache: bytes = b""


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """A serialized engine.

    Attributes:
        plan: its bytes, as returned by TensorRT.
        timing_cache: the updated cache; None where the builder times nothing.
        warnings: of parser and builder.
        outputs: names of the graph's outputs.
        dtypes: the type of each input as TensorRT read it.
        seconds: the build's duration.
    """

    plan: bytes
    timing_cache: bytes | None
    warnings: tuple[str, ...]
    outputs: tuple[str, ...]
    dtypes: Mapping[str, str]
    seconds: float


def check_options(library: TensorRtLibrary, options: BuildOptions) -> tuple[str, ...]:
    """List the reasons why this TensorRT would refuse these options."""
    row, title, faults = library.flavour, library.title, []
    if options.compute_capabilities and not row.just_in_time:
        faults.append(f"{title} builds only for the GPU of this machine; leave compute_capabilities empty")
    for capability in options.compute_capabilities:
        if capability not in row.compute_capabilities:
            listed = ", ".join(f"SM{each}" for each in row.compute_capabilities)
            faults.append(f"{title} does not build for SM{capability}; it builds for {listed}")
        elif capability in row.fp16_only and not options.float16:
            faults.append(f"{title} multiplies no FP32 matrices on SM{capability}; take an FP16 precision")
    if options.dla_core is not None and not row.dla:
        faults.append(f"{title} supports no deep learning accelerator; leave dla_core out")
    return tuple(faults)


def build_plan(
    library: TensorRtLibrary,
    graph: bytes,
    options: BuildOptions,
    *,
    progress: Progress | None = None,
    name: str = "graph",
) -> BuiltPlan:
    """Parse a graph and build its engine.

    Args:
        library: the TensorRT to build with.
        graph: ONNX bytes, prepared for this library.
        options: of the build.
        progress: called with the builder's phases; a Ctrl-C in it ends the build.
        name: the graph's name in messages.

    Raises:
        InputError: the options do not fit the library or the graph's inputs.
        SessionError: the parser refuses a node, which is named, or the builder fails.
    """
    if faults := check_options(library, options):
        raise InputError("; ".join(faults))
    trt = library.module
    started = time.perf_counter()
    monitor = _monitor(library, progress, name) if library.flavour.progress_monitor else None
    with library.log.listen() as said:
        builder: tensorrt.Builder = trt.Builder(library.logger)
        network: tensorrt.INetworkDefinition = builder.create_network(_creation_flags(library))
        parser: tensorrt.OnnxParser = trt.OnnxParser(network, library.logger)
        if not parser.parse(graph):
            raise SessionError(f"{library.title} cannot read {name}: {_parser_errors(library, parser, graph)}")
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        config: tensorrt.IBuilderConfig = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector's kinds and formats
        config.add_optimization_profile(_profile(builder, inputs, options, name))
        _configure(library, config, network, options)
        cache = _timing_cache(config, options) if library.flavour.timing_cache else None
        if monitor is not None:
            config.progress_monitor = monitor
        memory: tensorrt.IHostMemory | None = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.interrupted:
        raise KeyboardInterrupt
    if memory is None:
        raise SessionError(f"{library.title} cannot build {name}: {said.reason()}")
    return BuiltPlan(
        plan=bytes(memory),
        timing_cache=None if cache is None else bytes(cache.serialize()),
        warnings=said.warnings,
        outputs=tuple(network.get_output(index).name for index in range(network.num_outputs)),
        dtypes={each.name: each.dtype.name for each in inputs},
        seconds=round(time.perf_counter() - started, 2),
    )


def _creation_flags(library: TensorRtLibrary) -> int:
    kinds, flags = library.module.NetworkDefinitionCreationFlag, 0
    if library.flavour.explicit_batch:
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if library.flavour.strong_typing:
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return flags


def _parser_errors(library: TensorRtLibrary, parser: tensorrt.OnnxParser, graph: bytes) -> str:
    """Join the parser's errors, each with its node's name or, where the parser gives none, its number looked up."""
    names: Callable[[int], str] = _node_namer(graph)
    said = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        number = error.node()
        if number >= 0 and library.flavour.parser_names and error.node_name():
            node = f"node {error.node_name()!r} ({error.node_operator()})"
        else:
            node = names(number)
        said.append(f"{node}: {' '.join(error.desc().split())}")
    return "; ".join(dict.fromkeys(said)) or "without a reason"


def _node_namer(graph: bytes) -> Callable[[int], str]:
    try:
        onnx = require("onnx", needed_by="naming the node", extra="calibrate")
        nodes = onnx.load_from_string(graph).graph.node
    except Exception:  # a broken graph, or no onnx: use the number
        return lambda number: f"node {number}" if number >= 0 else "the graph"
    return lambda number: (
        f"node {nodes[number].name!r} ({nodes[number].op_type})" if 0 <= number < len(nodes) else "the graph"
    )


def _profile(builder: tensorrt.Builder, inputs: list[tensorrt.ITensor], options: BuildOptions, name: str) -> Any:
    profile: Any = builder.create_optimization_profile()
    for tensor in inputs:
        shapes = options.shapes.get(tensor.name)
        if shapes is None:
            raise InputError(f"{name}: no shapes are given for the input {tensor.name!r}")
        profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
    return profile


def _configure(library: TensorRtLibrary, config: Any, network: Any, options: BuildOptions) -> None:
    """Set everything except precision and profile."""
    trt, row = library.module, library.flavour
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, capability in enumerate(options.compute_capabilities):
            if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index):
                raise SessionError(f"{library.title} refuses to build for SM{capability}")
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if row.precision_flags and not row.strong_typing:
        _set_precision(trt, config, network, options)


def _set_precision(trt: Any, config: Any, network: tensorrt.INetworkDefinition, options: BuildOptions) -> None:
    """Set the flags of a builder that chooses precisions itself; strongly typed graphs hold their own."""
    if options.quantized:
        config.set_flag(trt.BuilderFlag.INT8)
    if not options.float16:
        return
    config.set_flag(trt.BuilderFlag.FP16)
    kept = set(options.keep_float32)
    if not kept:
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.name in kept:
            layer.precision = trt.float32
            for output in range(layer.num_outputs):
                layer.set_output_type(output, trt.float32)


def _timing_cache(config: Any, options: BuildOptions) -> tensorrt.ITimingCache:
    cache: tensorrt.ITimingCache = config.create_timing_cache(options.timing_cache)
    if not config.set_timing_cache(cache, False):
        # It belongs to another GPU or version: start with an empty one.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


@dataclass
class _Phases:
    """The running phases, outermost first, each with steps done and total."""

    steps: dict[str, list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _monitor(library: TensorRtLibrary, progress: Progress | None, name: str) -> Any:
    """Build an `IProgressMonitor`; the builder's threads call it, and no exception may pass through them."""
    phases = _Phases()
    base: Any = library.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with phases.lock:
                phases.steps[phase_name] = [0, num_steps]
            self._report()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with phases.lock:
                if phase_name in phases.steps:
                    phases.steps[phase_name][0] = step + 1
            self._report()
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            with phases.lock:
                phases.steps.pop(phase_name, None)
            self._report()

        def _report(self) -> None:
            try:
                with phases.lock:
                    if progress is None or not phases.steps:
                        return
                    done, total = next(iter(phases.steps.values()))
                    text = f"building {name}: {list(phases.steps)[-1].lower()}"
                progress(text, done, total)
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()
