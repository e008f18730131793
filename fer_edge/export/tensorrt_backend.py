"""TensorRT and TensorRT-RTX engines: built, described by a sidecar, and run once where their GPU is present."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from fer_edge import __version__
from fer_edge.core.bundle import Bundle, timestamp
from fer_edge.core.errors import FerEdgeError, InputError, MissingPackageError, SessionError
from fer_edge.core.files import default_cache_folder, sha256_bytes, write_atomic, writing
from fer_edge.core.machine import GpuReport, MachineReport, machine_report
from fer_edge.core.types import Progress
from fer_edge.export.backend import Backend
from fer_edge.export.job import Part, PlannedFile, Run, TargetJob, target_job
from fer_edge.export.recipe import TargetRecipe, load_target
from fer_edge.export.selection import target_names
from fer_edge.export.tensorrt_builder import BuildOptions, BuiltPlan, build_plan, check_options
from fer_edge.runtime.device_session import DeviceSession, open_device
from fer_edge.runtime.engine_files import (
    EngineFile,
    EngineSidecar,
    EngineTensor,
    engine_name,
    fitting_engines,
    gpu_slug,
    write_engine,
    write_sidecar,
)
from fer_edge.runtime.inference import choose_variant
from fer_edge.runtime.providers import ENGINE_PROVIDERS
from fer_edge.runtime.tensorrt_library import TensorRtLibrary, load_tensorrt
from fer_edge.runtime.tensorrt_session import TensorRtEngine, open_engine

__all__ = ["TensorRtBackend", "build_engines", "rebuild_engines"]

_GRAPH_DTYPES: Final = {"frames": "uint8", "features": "float32", "length": "int64"}
_TIMING_CACHE: Final = "timing.cache"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The TensorRT that builds, and the GPUs that it builds for.

    Attributes:
        library: the TensorRT.
        machine: this machine.
        gpu: this machine's GPU; None where engines are built ahead of time.
        compute_capabilities: of the GPUs.
        not_run: why this machine cannot run the engines; empty where it can.
    """

    library: TensorRtLibrary
    machine: MachineReport
    gpu: GpuReport | None
    compute_capabilities: tuple[int, ...]
    not_run: str

    @property
    def slug(self) -> str:
        """The GPUs, for file names."""
        return gpu_slug(self.gpu.name if self.gpu else None, self.compute_capabilities)


def _place(recipe: TargetRecipe) -> _Place:
    """Find TensorRT and the GPU.

    Raises:
        MissingPackageError: TensorRT is not installed.
        SessionError: another TensorRT is installed than the recipe names, or there is no GPU.
    """
    row = recipe.tensorrt
    assert row is not None
    library = load_tensorrt(row.package)
    if library.flavour.name != row.name:
        raise SessionError(
            f"the target is made for {row.title} ({row.found_in}), and {library.title} is installed; take another "
            f"target, or this one with flavour = {library.flavour.name!r}"
        )
    machine = machine_report()
    gpu = machine.gpus[0] if machine.gpus else None
    if recipe.compute_capabilities:
        wanted = recipe.compute_capabilities
        here = gpu is not None and gpu.sm in wanted
        missing = "no CUDA GPU here" if gpu is None else f"{gpu.name} (SM{gpu.sm}) is none of these"
        return _Place(
            library=library,
            machine=machine,
            gpu=None,
            compute_capabilities=wanted,
            not_run=_driver_missing() if here else missing,
        )
    if gpu is None:
        ahead = "; or name compute_capabilities to build ahead of time" if row.just_in_time else ""
        raise SessionError(f"{library.title} builds on the GPU that will run the engine, and there is none here{ahead}")
    return _Place(library=library, machine=machine, gpu=gpu, compute_capabilities=(gpu.sm,), not_run=_driver_missing())


def _driver_missing() -> str:
    if importlib.util.find_spec("cuda") or importlib.util.find_spec("pycuda"):
        return ""
    return "neither cuda-python nor pycuda is installed"


def _options(job: TargetJob, part: Part, place: _Place, *, timing_cache: bytes = b"") -> BuildOptions:
    recipe = job.recipe
    ahead = place.library.flavour.just_in_time
    return BuildOptions(
        shapes=job.shapes[part],
        float16=job.float16,
        quantized=job.quantized,
        keep_float32=job.keep_float32.get(part, ()),
        workspace_bytes=None if recipe.workspace_mib is None else recipe.workspace_mib << 20,
        compute_capabilities=place.compute_capabilities if ahead else (),
        dla_core=recipe.dla_core,
        gpu_fallback=recipe.gpu_fallback,
        optimization_level=recipe.optimization_level,
        sparse_weights=job.sparse(part),
        version_compatible=recipe.version_compatible,
        hardware_level="AMPERE_PLUS" if recipe.hardware_compatible else "",
        timing_cache=timing_cache,
    )


class TensorRtBackend(Backend):
    """TensorRT or TensorRT-RTX engines with sidecars and the timing cache, run once where their GPU is present."""

    def __init__(self, job: TargetJob) -> None:
        super().__init__(job)
        self._engines: dict[Part, EngineFile] = {}

    @cached_property
    def _place(self) -> _Place:
        place = _place(self.job.recipe)
        self.not_run = place.not_run
        return place

    def planned(self) -> tuple[PlannedFile, ...]:
        job = self.job
        try:
            place = self._place
        except (MissingPackageError, SessionError):
            names = {part: f"{_graph_sha256(job, part)}-*.engine" for part in job.graphs}
            remark = ""
        else:
            names = {part: _engine_name(job, part, place) for part in job.graphs}
            remark = ", ".join(f"SM{each}" for each in place.compute_capabilities)
        return tuple(
            PlannedFile(name=name, part=part, precision=job.precision, remark=remark) for part, name in names.items()
        )

    def check(self) -> None:
        place = self._place
        faults = (
            fault for part in self.job.graphs for fault in check_options(place.library, _options(self.job, part, place))
        )
        if unique := tuple(dict.fromkeys(faults)):
            raise InputError("; ".join(unique))

    def write(self, folder: Path, progress: Progress) -> str:
        place = self._place
        self._engines = {part: _build(self.job, part, place, folder, progress) for part in self.job.graphs}
        return place.library.title

    @contextlib.contextmanager
    def open(self, folder: Path, part: Part) -> Iterator[Run]:
        with _session(self._place, self._engines[part]) as session:
            yield session.run


def build_engines(job: TargetJob, folder: Path, *, progress: Progress) -> tuple[EngineFile, ...]:
    """Build a job's missing engines in a shared folder.

    An engine that runs on this machine is kept, whatever its shapes or precision.

    Args:
        job: the prepared graphs.
        folder: of engines, created if missing.
        progress: called with (what, done, total).

    Raises:
        MissingPackageError, InputError, SessionError: as `TensorRtBackend`.
        OutputError: the folder cannot be written.
    """
    place = _place(job.recipe)
    return tuple(_kept(job, part, place, folder) or _build(job, part, place, folder, progress) for part in job.graphs)


def rebuild_engines(
    bundle: Bundle, folder: Path, *, variant: str, provider: str, progress: Progress
) -> tuple[EngineFile, ...]:
    """Build, for this machine's GPU, the missing and stale engines of one variant.

    Uses the target of the installed TensorRT; of several, the one with the smallest workspace.

    Args:
        bundle: an open bundle.
        folder: of engines.
        variant: a variant's name, or ``"auto"``.
        provider: ``"tensorrt"`` or ``"rtx"``.
        progress: called with (what, done, total).

    Raises:
        InputError: the provider runs no built engines, or no target fits the installed TensorRT.
        BundleError, MissingPackageError, SessionError, OutputError: as `build_engines`.
    """
    if provider not in ENGINE_PROVIDERS:
        raise InputError(f"--rebuild builds engines for {' or '.join(ENGINE_PROVIDERS)}, not for {provider!r}")
    library = load_tensorrt(ENGINE_PROVIDERS[provider])
    settings = ["compute_capabilities=[]"] if library.flavour.just_in_time else []
    recipes = {name: load_target(name) for name in target_names()}
    made = [
        name for name, recipe in recipes.items() if recipe.kind == "tensorrt" and recipe.flavour == library.flavour.name
    ]
    if not made:
        raise InputError(f"no target is made for {library.title}; export one with --target and --set flavour=...")
    target = min(made, key=lambda name: recipes[name].workspace_mib or 0)
    chosen = choose_variant(bundle.manifest, variant=variant, provider=provider)
    job = target_job(bundle, target=target, variant=chosen, settings=settings)
    return build_engines(job, folder, progress=progress)


def _kept(job: TargetJob, part: Part, place: _Place, folder: Path) -> EngineFile | None:
    """Return the folder's engine for a part, None where none runs here; a damaged one is removed."""
    if place.not_run:
        return None
    device = open_device()
    try:
        fitting, _ = fitting_engines(
            folder, graph_sha256=_graph_sha256(job, part), library=place.library, device=device.info
        )
    finally:
        device.close()
    for engine in fitting:
        try:
            engine.read()
        except SessionError:
            with writing(engine.path):
                engine.path.unlink(missing_ok=True)
                engine.sidecar_path.unlink(missing_ok=True)
        else:
            return engine
    return None


def _build(job: TargetJob, part: Part, place: _Place, folder: Path, progress: Progress) -> EngineFile:
    kept = _timing_cache_path(place)
    given = b""
    with contextlib.suppress(OSError):
        given = kept.read_bytes()
    options = _options(job, part, place, timing_cache=given)
    built = build_plan(place.library, job.graphs[part], options, progress=progress, name=part)
    if built.timing_cache is not None:
        write_atomic(folder / _TIMING_CACHE, built.timing_cache)
        with contextlib.suppress(FerEdgeError):  # without it the next build only takes longer
            write_atomic(kept, built.timing_cache)
    engine = write_engine(folder, built.plan, _sidecar(job, part, place, options, built))
    return engine if place.not_run else _checked(place, engine)


def _checked(place: _Place, engine: EngineFile) -> EngineFile:
    """Deserialise an engine, run it, and record the result and the layers.

    Raises:
        SessionError: it cannot be loaded or run, or computes NaN.
    """
    with _session(place, engine) as session:
        loaded = session.engine
        assert isinstance(loaded, TensorRtEngine)
        with session.device.current():
            layers = loaded.layers()
        feeds = {tensor.name: np.ones(tensor.opt, tensor.dtype) for tensor in engine.sidecar.inputs}
        for _ in range(3):  # direct, captured, launched
            outputs = session.run(feeds)
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise SessionError(f"{engine.path} computes NaN or infinity in {name!r}")
        check = f"ran on {session.device.info.name}; CUDA graph {session.cuda_graph}"
    checked = replace(engine.sidecar, layers=layers, check=check)
    return write_sidecar(engine.path, checked)


def _session(place: _Place, engine: EngineFile) -> DeviceSession:
    return open_engine(engine, place.library, open_device())


def _sidecar(job: TargetJob, part: Part, place: _Place, options: BuildOptions, built: BuiltPlan) -> EngineSidecar:
    inputs = tuple(
        EngineTensor(name=name, dtype=_graph_dtype(place, name, kind), min=each.min, opt=each.opt, max=each.max)
        for name, kind in built.dtypes.items()
        for each in (job.shapes[part][name],)
    )
    machine = place.machine
    about: dict[str, Any] = {
        "at": timestamp(),
        "seconds": built.seconds,
        "fer_edge": __version__,
        "target": job.name,
        "variant": job.variant,
        "machine": machine.os,
        "driver": machine.driver,
        "optimization_level": options.optimization_level,
        "sparse_weights": options.sparse_weights,
        "dla_core": options.dla_core,
    }
    cache = built.timing_cache
    return EngineSidecar(
        engine_sha256=sha256_bytes(built.plan),
        engine_bytes=len(built.plan),
        graph_sha256=_graph_sha256(job, part),
        built_from_sha256=sha256_bytes(job.graphs[part]),
        part=part,
        package=place.library.package,
        version=place.library.version,
        gpu=place.gpu.name if place.gpu else None,
        compute_capabilities=place.compute_capabilities,
        hardware_level=options.hardware_level,
        version_compatible=options.version_compatible,
        precision=job.precision,
        inputs=inputs,
        outputs=built.outputs,
        workspace_bytes=options.workspace_bytes,
        timing_cache_sha256=None if cache is None else sha256_bytes(cache),
        layers=None,
        check=f"not run: {place.not_run}" if place.not_run else "not run yet",
        warnings=built.warnings,
        built=about,
    )


def _graph_dtype(place: _Place, name: str, kind: str) -> str:
    """Return the graph's type of an input; TensorRT before 10 silently narrows int64 to int32."""
    stated = _GRAPH_DTYPES.get(name)
    read = {"UINT8": "uint8", "FLOAT": "float32", "INT64": "int64", "INT32": "int32"}.get(kind)
    narrowed = stated == "int64" and read == "int32" and not place.library.flavour.int64
    if stated is None or (read != stated and not narrowed):
        raise SessionError(f"{place.library.title} reads the input {name!r} as {kind}, expected {stated}")
    return stated


def _engine_name(job: TargetJob, part: Part, place: _Place) -> str:
    return engine_name(
        graph_sha256=_graph_sha256(job, part),
        gpu=place.slug,
        package=place.library.package,
        version=place.library.version,
        precision=job.precision,
    )


def _graph_sha256(job: TargetJob, part: Part) -> str:
    """Return the hash of a part's graph in the bundle; the fused graph has only its own."""
    if part == "clip":
        return sha256_bytes(job.graphs[part])
    variant = job.bundle.variant(job.variant)
    return (variant.encoder if part == "encoder" else variant.head).sha256


def _timing_cache_path(place: _Place) -> Path:
    library = place.library
    return default_cache_folder() / "tensorrt" / f"{place.slug}-{library.package}-{library.version}.timing"
