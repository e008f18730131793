"""Engine files with JSON sidecars; the plan file itself stays as TensorRT wrote it, so NVIDIA's tools open it.

Engines are a cache: `<graph sha>-<gpu>-<flavour version>-<precision>.engine`, with a sidecar of the same name plus
``.json``. The sidecar is compared with the graph, the GPU and the installed TensorRT before the engine is deserialised,
because a foreign plan may crash the process that loads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge.core.disk import read_json, sha256_bytes
from fer_edge.core.errors import InputError, SessionError
from fer_edge.core.json import decode, expect
from fer_edge.core.tensorrt_flavours import runs_engines_of
from fer_edge.runtime.cuda_device import DeviceInfo
from fer_edge.runtime.session import TensorSpec
from fer_edge.runtime.tensorrt_library import TensorRtLibrary

__all__ = [
    "ENGINE_ENDING",
    "EngineFile",
    "EngineLayer",
    "EngineSidecar",
    "EngineTensor",
    "find_engine",
    "fitting_engines",
    "read_engine",
    "sidecar_path",
]

ENGINE_ENDING: Final = ".engine"
_SCHEMA: Final = 1
_AMPERE: Final = 80


@dataclass(frozen=True, kw_only=True)
class EngineTensor:
    """One input or output of the graph, with the range that the engine was built for.

    Attributes:
        name: name in the graph.
        dtype: the graph's type; the engine's own may be narrower (int32 for int64 before TensorRT 10).
        min: smallest shape.
        opt: the shape that the engine was tuned for.
        max: largest shape.
    """

    name: str
    dtype: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        ordered = len(self.min) == len(self.opt) == len(self.max) and all(
            1 <= least <= tuned <= most for least, tuned, most in zip(self.min, self.opt, self.max, strict=True)
        )
        expect(ordered, "min", (self.min, self.opt, self.max), "1 <= min <= opt <= max in every dimension")
        known = ("uint8", "int32", "int64", "float16", "float32")
        expect(self.dtype in known, "dtype", self.dtype, f"one of {', '.join(known)}")

    def spec(self) -> TensorSpec:
        """Return the `TensorSpec` of a session."""
        pairs = tuple(zip(self.min, self.max, strict=True))
        shape = tuple(least if least == most else None for least, most in pairs)
        return TensorSpec(name=self.name, dtype=np.dtype(self.dtype), shape=shape, limits=pairs)


@dataclass(frozen=True, kw_only=True)
class EngineLayer:
    """One layer of the finished engine: its name and, where TensorRT reports them, its kind and its outputs' format."""

    name: str
    kind: str = ""
    format: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineSidecar:
    """Description of an engine.

    Attributes:
        engine_sha256: hash of the plan.
        engine_bytes: size of the plan.
        graph_sha256: hash of the bundle's graph.
        built_from_sha256: hash of the graph that the parser read, after the target's passes.
        part: ``"encoder"``, ``"head"``, ``"crowd"`` or ``"clip"``.
        package: ``"tensorrt"`` or ``"tensorrt_rtx"``.
        version: full version of that package.
        gpu: the GPU that it was built on; None for an engine built ahead of time.
        compute_capabilities: compute capabilities of its GPUs (``87`` is 8.7).
        hardware_level: ``"AMPERE_PLUS"``, ``"SAME_COMPUTE_CAPABILITY"``, or empty for one GPU model.
        version_compatible: later versions of TensorRT load it too (`runs_engines_of`).
        precision: precision of its computation.
        inputs: inputs with their ranges.
        outputs: names of the outputs.
        workspace_bytes: limit for the tactics' memory; None for the builder's choice.
        timing_cache_sha256: hash of the timing cache after the build; None without one.
        layers: layers of the finished engine; None where no GPU could load it.
        check: result of a run after the build, or why it was not run.
        warnings: warnings of the parser and the builder.
        built: time, machine and duration of the build.
        schema: version of this format.
    """

    engine_sha256: str
    engine_bytes: int
    graph_sha256: str
    built_from_sha256: str
    part: str
    package: str
    version: str
    gpu: str | None
    compute_capabilities: tuple[int, ...]
    hardware_level: str
    version_compatible: bool
    precision: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[str, ...]
    workspace_bytes: int | None
    timing_cache_sha256: str | None
    layers: tuple[EngineLayer, ...] | None
    check: str
    warnings: tuple[str, ...]
    built: Mapping[str, Any]
    schema: int = _SCHEMA

    def __post_init__(self) -> None:
        expect(self.schema == _SCHEMA, "schema", self.schema, f"{_SCHEMA}: build the engine again")
        expect(bool(self.compute_capabilities), "compute_capabilities", self.compute_capabilities, "at least one")

    def fault(self, library: TensorRtLibrary, device: DeviceInfo, *, graph_sha256: str | None) -> str | None:
        """Return why this engine does not fit this graph, TensorRT or GPU; None where it fits."""
        if graph_sha256 is not None and graph_sha256 != self.graph_sha256:
            return f"it was built from the graph {self.graph_sha256[:16]}, not from {graph_sha256[:16]}"
        if self.package != library.package:
            return f"it is for {self.package}, not for {library.package}"
        if not self._loads_in(library.version):
            return f"it was built with {self.package} {self.version}, and {library.version} is installed"
        return self._gpu_fault(device)

    def _loads_in(self, version: str) -> bool:
        if not self.version_compatible:
            return version == self.version
        return runs_engines_of(_numbers(version), _numbers(self.version))

    def _gpu_fault(self, device: DeviceInfo) -> str | None:
        capability = device.compute_capability
        here = f"{device.name} (SM{capability}) is here"
        if self.hardware_level == "AMPERE_PLUS":
            return None if capability >= _AMPERE else f"it is for Ampere GPUs and later, and {here}"
        if capability not in self.compute_capabilities:
            listed = ", ".join(f"SM{each}" for each in self.compute_capabilities)
            return f"it is for {listed}, and {here}"
        bound = self.gpu is not None and self.hardware_level == "" and self.package == "tensorrt"
        return f"it was built on {self.gpu}, and {here}" if bound and self.gpu != device.name else None


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """An engine on disk with its sidecar."""

    path: Path
    sidecar: EngineSidecar

    def read(self) -> bytes:
        """Read the plan and compare its hash with the sidecar.

        Raises:
            SessionError: it cannot be read, or has another hash.
        """
        try:
            plan = self.path.read_bytes()
        except OSError as error:
            raise SessionError(f"cannot read {self.path}: {error.strerror or error}") from error
        if sha256_bytes(plan) != self.sidecar.engine_sha256:
            raise SessionError(f"{self.path} is not the engine that its sidecar describes; build it again")
        return plan


def read_engine(path: Path) -> EngineFile:
    """Open an engine by its path and read its sidecar; the plan is read by `EngineFile.read`.

    Raises:
        SessionError: no such engine, no sidecar, or an invalid one.
    """
    place = sidecar_path(path)
    if not path.is_file():
        raise SessionError(f"{path}: got no file, expected an engine; build it first")
    if not place.is_file():
        raise SessionError(f"{path} has no sidecar {place.name}; build the engine again")
    try:
        return EngineFile(path=path, sidecar=decode(EngineSidecar, read_json(place)))
    except InputError as error:
        raise SessionError(f"{place}: {error}; build the engine again") from error


def fitting_engines(
    folder: Path, *, graph_sha256: str, library: TensorRtLibrary, device: DeviceInfo
) -> tuple[list[EngineFile], list[str]]:
    """List a folder's engines for a graph that fit this TensorRT and GPU, and the faults of the others.

    Args:
        folder: folder of engines.
        graph_sha256: hash of the bundle's graph.
        library: the installed TensorRT.
        device: the GPU.
    """
    fitting, faults = [], []
    for path in sorted(folder.glob(f"{graph_sha256}-*{ENGINE_ENDING}")):
        try:
            engine = read_engine(path)
        except SessionError as error:
            faults.append(str(error))
            continue
        fault = engine.sidecar.fault(library, device, graph_sha256=graph_sha256)
        if fault is None:
            fitting.append(engine)
        else:
            faults.append(f"{path.name} is stale or foreign: {fault}")
    return fitting, faults


def find_engine(
    where: Path, *, graph_sha256: str, library: TensorRtLibrary, device: DeviceInfo, build: str = ""
) -> EngineFile:
    """Find the engine for a graph on this machine: the named file, or the one that fits in a folder.

    Args:
        where: an engine's file, or a folder of engines.
        graph_sha256: hash of the bundle's graph.
        library: the installed TensorRT.
        device: the GPU.
        build: the command that builds a missing engine, for the message.

    Raises:
        SessionError: none fits (the message lists each one's fault), or several do.
    """
    cure = f". Build it with: {build}" if build else ""
    if where.is_file():
        found = read_engine(where)
        if fault := found.sidecar.fault(library, device, graph_sha256=graph_sha256):
            raise SessionError(f"{where} is stale or foreign: {fault}{cure}")
        return found
    fitting, faults = fitting_engines(where, graph_sha256=graph_sha256, library=library, device=device)
    if len(fitting) > 1:
        names = ", ".join(engine.path.name for engine in fitting)
        raise SessionError(f"{where} holds several engines for this graph and GPU: {names}; name the one to run")
    if not fitting:
        listed = "; ".join(faults) or f"there is none for the graph {graph_sha256[:16]}"
        raise SessionError(f"no engine for {library.title} on {device.name} in {where}: {listed}{cure}")
    return fitting[0]


def sidecar_path(path: Path) -> Path:
    """Return the path of an engine's sidecar."""
    return path.with_name(f"{path.name}.json")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
