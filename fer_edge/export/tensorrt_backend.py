"""TensorRT and TensorRT-RTX engines: built, described by a sidecar, and run once where their GPU is present."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from fer_edge import __version__
from fer_edge.core.bundle import Bundle, timestamp
from fer_edge.core.errors import FerEdgeError, InputError, MissingPackageError, SessionError
from fer_edge.core.files import default_cache_folder, sha256_bytes, write_atomic, writing
from fer_edge.core.machine import machine_report
from fer_edge.core.types import Progress
from fer_edge.export.backend import Backend
from fer_edge.export.engine_writer import engine_name, gpu_slug, read_layers, write_engine, write_sidecar
from fer_edge.export.job import Part, PlannedFile, Run, TargetJob, target_job
from fer_edge.export.plan_process import build_plan_apart
from fer_edge.export.recipe import load_target
from fer_edge.export.selection import target_names
from fer_edge.export.tensorrt_builder import BuildOptions, BuiltPlan, check_options
from fer_edge.runtime.device_session import open_device
from fer_edge.runtime.engine_files import EngineFile, EngineSidecar, EngineTensor, fitting_engines, sidecar_path
from fer_edge.runtime.inference import choose_variant
from fer_edge.runtime.providers import ENGINE_PROVIDERS
from fer_edge.runtime.tensorrt_library import TensorRtLibrary, load_tensorrt
from fer_edge.runtime.tensorrt_session import TensorRtEngine, open_engine

__all__ = ["TensorRtBackend", "rebuild_engines"]

_GRAPH_DTYPES: Final = {"frames": "uint8", "features": "float32", "length": "int64"}
_READ_DTYPES: Final = {"UINT8": "uint8", "FLOAT": "float32", "INT64": "int64", "INT32": "int32"}
_TIMING_CACHE: Final = "timing.cache"
_WITH_DLA: Final = (72, 87)  # Xavier and Orin; Thor has none


class TensorRtBackend(Backend):
    """TensorRT or TensorRT-RTX engines with sidecars and the timing cache, run once where their GPU is present."""

    def __init__(self, job: TargetJob) -> None:
        super().__init__(job)
        self._engines: dict[Part, EngineFile] = {}
        self._machine = machine_report()
        self._gpu = self._machine.gpus[0] if self._machine.gpus else None
        self._ahead = job.recipe.compute_capabilities
        if not self._ahead or (self._gpu is not None and self._gpu.sm in self._ahead):
            bindings = importlib.util.find_spec("cuda") or importlib.util.find_spec("pycuda")
            self.not_run = "" if bindings else "neither cuda-python nor pycuda is installed"
        elif self._gpu is None:
            self.not_run = "no CUDA GPU here"
        else:
            self.not_run = f"{self._gpu.name} (SM{self._gpu.sm}) is none of these"

    @cached_property
    def _library(self) -> TensorRtLibrary:
        """The installed TensorRT.

        Raises:
            MissingPackageError: TensorRT is not installed.
            SessionError: another TensorRT is installed than the recipe names, or there is no GPU to build on.
        """
        row = self.job.recipe.tensorrt
        assert row is not None  # a recipe of this kind names one
        library = load_tensorrt(row.package)
        if row.name not in (library.flavour.name, *library.flavour.serves):
            raise SessionError(
                f"the target is made for {row.title} ({row.found_in}), and {library.title} is installed; take another "
                f"target, or this one with flavour = {library.flavour.name!r}"
            )
        if self._gpu is None and not self._ahead:
            ahead = "; or name compute_capabilities to build ahead of time" if row.just_in_time else ""
            raise SessionError(
                f"{library.title} builds on the GPU that will run the engine, and there is none here{ahead}"
            )
        return library

    @property
    def _compute_capabilities(self) -> tuple[int, ...]:
        """The GPUs that the engines are for."""
        return self._ahead or ((self._gpu.sm,) if self._gpu else ())

    @property
    def _gpu_name(self) -> str | None:
        """This machine's GPU; None where engines are built ahead of time."""
        return None if self._ahead or self._gpu is None else self._gpu.name

    @property
    def _slug(self) -> str:
        return gpu_slug(self._gpu_name, self._compute_capabilities)

    def planned(self) -> tuple[PlannedFile, ...]:
        remark = ", ".join(f"SM{each}" for each in self._compute_capabilities)
        names = {}
        for part in self.job.graphs:
            try:
                library = f"{self._library.package}-{self._library.version}"
                names[part] = engine_name(self._graph_sha256(part), self._slug, library, self.job.precision)
            except (MissingPackageError, SessionError):
                names[part] = f"{self._graph_sha256(part)}-*.engine"
        return tuple(
            PlannedFile(name=name, part=part, precision=self.job.precision, remark=remark)
            for part, name in names.items()
        )

    def check(self) -> None:
        faults = [fault for part in self.job.graphs for fault in check_options(self._library, self._options(part))]
        if self.job.recipe.dla_core is not None and self._gpu is not None and self._gpu.sm not in _WITH_DLA:
            faults.append(f"{self._gpu.name} has no deep learning accelerator; leave dla_core out")
        if unique := tuple(dict.fromkeys(faults)):
            raise InputError("; ".join(unique))

    def write(self, folder: Path, progress: Progress) -> str:
        for part in self.job.graphs:
            self._engines[part] = self._build(part, folder, progress)
        return self._library.title

    @contextlib.contextmanager
    def open(self, folder: Path, part: Part) -> Iterator[Run]:
        with open_engine(self._engines[part], self._library, open_device()) as session:
            yield session.run

    def build_missing(self, folder: Path, progress: Progress) -> tuple[EngineFile, ...]:
        """Build the engines that a shared folder lacks; one that runs here is kept, whatever its shapes or precision.

        Raises:
            MissingPackageError, InputError, SessionError: as `write`.
            OutputError: the folder cannot be written.
        """
        return tuple(self._kept(part, folder) or self._build(part, folder, progress) for part in self.job.graphs)

    def _kept(self, part: Part, folder: Path) -> EngineFile | None:
        """Return the folder's engine for a part, None where none runs here; a damaged one is removed."""
        library = self._library
        if self.not_run:
            return None
        device = open_device()
        try:
            fitting, _ = fitting_engines(
                folder, graph_sha256=self._graph_sha256(part), library=library, device=device.info
            )
        finally:
            device.close()
        for engine in fitting:
            try:
                engine.read()
            except SessionError:
                with writing(engine.path):
                    engine.path.unlink(missing_ok=True)
                    sidecar_path(engine.path).unlink(missing_ok=True)
            else:
                return engine
        return None

    def _options(self, part: Part, *, timing_cache: bytes = b"") -> BuildOptions:
        job, recipe = self.job, self.job.recipe
        return BuildOptions(
            shapes=job.shapes[part],
            float16=job.float16,
            quantized=job.quantized,
            keep_float32=job.keep_float32.get(part, ()),
            workspace_bytes=None if recipe.workspace_mib is None else recipe.workspace_mib << 20,
            compute_capabilities=self._compute_capabilities if self._library.flavour.just_in_time else (),
            dla_core=recipe.dla_core,
            timing_cache=timing_cache,
        )

    def _build(self, part: Part, folder: Path, progress: Progress) -> EngineFile:
        library = self._library
        kept = default_cache_folder() / "tensorrt" / f"{self._slug}-{library.package}-{library.version}.timing"
        given = b""
        with contextlib.suppress(OSError):
            given = kept.read_bytes()
        options = self._options(part, timing_cache=given)
        built = build_plan_apart(library, self.job.graphs[part], options, progress=progress, name=part)
        if built.timing_cache is not None:
            write_atomic(folder / _TIMING_CACHE, built.timing_cache)
            with contextlib.suppress(FerEdgeError):  # without it the next build only takes longer
                write_atomic(kept, built.timing_cache)
        engine = write_engine(folder, built.plan, self._sidecar(part, options, built))
        return engine if self.not_run else self._checked(engine)

    def _checked(self, engine: EngineFile) -> EngineFile:
        """Deserialise an engine, run it, and record the result and the layers.

        Raises:
            SessionError: it cannot be loaded or run, or computes NaN.
        """
        with open_engine(engine, self._library, open_device()) as session:
            loaded = session.engine
            assert isinstance(loaded, TensorRtEngine)
            with session.device.current():
                layers = read_layers(loaded.inspect())
            feeds = {tensor.name: np.ones(tensor.opt, tensor.dtype) for tensor in engine.sidecar.inputs}
            for _ in range(3):  # direct, captured, launched
                outputs = session.run(feeds)
            for name, values in outputs.items():
                if not np.isfinite(values).all():
                    raise SessionError(f"{engine.path} computes NaN or infinity in {name!r}")
            check = f"ran on {session.device.info.name}; CUDA graph {session.cuda_graph}"
        return write_sidecar(engine.path, replace(engine.sidecar, layers=layers, check=check))

    def _sidecar(self, part: Part, options: BuildOptions, built: BuiltPlan) -> EngineSidecar:
        job, library, machine = self.job, self._library, self._machine
        inputs = tuple(
            EngineTensor(name=name, dtype=self._graph_dtype(name, kind), min=each.min, opt=each.opt, max=each.max)
            for name, kind in built.dtypes.items()
            for each in (job.shapes[part][name],)
        )
        cache = built.timing_cache
        return EngineSidecar(
            engine_sha256=sha256_bytes(built.plan),
            engine_bytes=len(built.plan),
            graph_sha256=self._graph_sha256(part),
            built_from_sha256=sha256_bytes(job.graphs[part]),
            part=part,
            package=library.package,
            version=library.version,
            gpu=self._gpu_name,
            compute_capabilities=self._compute_capabilities,
            hardware_level="",
            version_compatible=False,
            precision=job.precision,
            inputs=inputs,
            outputs=built.outputs,
            workspace_bytes=options.workspace_bytes,
            timing_cache_sha256=None if cache is None else sha256_bytes(cache),
            layers=None,
            check=f"not run: {self.not_run}" if self.not_run else "not run yet",
            warnings=built.warnings,
            built={
                "at": timestamp(),
                "seconds": built.seconds,
                "fer_edge": __version__,
                "target": job.name,
                "variant": job.variant,
                "machine": machine.os,
                "driver": machine.driver,
                "dla_core": options.dla_core,
            },
        )

    def _graph_dtype(self, name: str, kind: str) -> str:
        """Return the graph's type of an input; TensorRT before 10 silently narrows int64 to int32."""
        stated, read = _GRAPH_DTYPES.get(name), _READ_DTYPES.get(kind)
        narrowed = stated == "int64" and read == "int32" and not self._library.flavour.int64
        if stated is None or (read != stated and not narrowed):
            raise SessionError(f"{self._library.title}: got the input {name!r} as {kind}, expected {stated}")
        return stated

    def _graph_sha256(self, part: Part) -> str:
        """Return the hash of a part's graph in the bundle; the fused graph has only its own."""
        if part == "clip":
            return sha256_bytes(self.job.graphs[part])
        return self.job.bundle.variant(self.job.variant).parts[part].sha256


def rebuild_engines(
    bundle: Bundle, folder: Path, *, variant: str, provider: str, progress: Progress
) -> tuple[EngineFile, ...]:
    """Build, for this machine's GPU, the missing and stale engines of one variant.

    Uses the target of the installed TensorRT; of several, the one with the smallest workspace.

    Args:
        folder: of engines.
        variant: a variant's name, or ``"auto"``.
        provider: ``"tensorrt"`` or ``"rtx"``.

    Raises:
        InputError: the provider runs no built engines, or no target fits the installed TensorRT.
        BundleError, MissingPackageError, SessionError, OutputError: as `TensorRtBackend.build_missing`.
    """
    if provider not in ENGINE_PROVIDERS:
        raise InputError(f"--rebuild builds engines for {' or '.join(ENGINE_PROVIDERS)}, not for {provider!r}")
    library = load_tensorrt(ENGINE_PROVIDERS[provider])
    settings = ["compute_capabilities=[]"] if library.flavour.just_in_time else []
    recipes = {name: load_target(name) for name in target_names()}
    served = (library.flavour.name, *library.flavour.serves)
    made = [name for name, recipe in recipes.items() if recipe.kind == "tensorrt" and recipe.flavour in served]
    if not made:
        raise InputError(f"no target is made for {library.title}; export one with --target and --set flavour=...")
    target = min(made, key=lambda name: recipes[name].workspace_mib or 0)
    chosen = choose_variant(bundle.manifest, variant=variant, provider=provider)
    job = target_job(bundle, target=target, variant=chosen, settings=settings)
    return TensorRtBackend(job).build_missing(folder, progress)
