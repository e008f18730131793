"""Export of a bundle to the files that one engine runs on one kind of machine; torch is not involved."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import FerEdgeError, OutputError, SessionError, require
from fer_edge.core.files import output_folder, sha256_file, write_json, writing
from fer_edge.core.json import encode
from fer_edge.core.types import Progress, no_progress
from fer_edge.export.backend import Backend
from fer_edge.export.graph_passes import bundle_graphs
from fer_edge.export.job import Part, PlannedFile, Run, TargetJob, target_job
from fer_edge.export.parity.outputs import Parity, require_parity
from fer_edge.export.parity.samples import Sample, compare_parts, reference_samples
from fer_edge.export.preflight import Verdict, job_findings, require_accepted
from fer_edge.export.recipe import Precision
from fer_edge.runtime.providers import open_session
from fer_edge.runtime.session import one_line

__all__ = ["BACKENDS", "TargetFile", "TargetPlan", "TargetReport", "export_target"]

TARGET_FILE: Final = "target.json"
_GRAPH_TOLERANCES: Final = (1e-3, 0.02, 0.1)
"""Largest difference of an output after a recipe's passes: as it is; where FP16 or the edge of an INT8 step decides;
where FP16 moves a value over such an edge."""
_FILE_TOLERANCES: Final[Mapping[Precision, float]] = {
    "variant": 1e-3,
    "fp32": 0.01,  # TensorRT's products may be TF32
    "fp16": 0.05,
    "int8": 0.25,  # a value on the edge of two INT8 steps is rounded either way
    "int8-fp16": 0.25,
}
"""Largest difference of an output between the written files and the bundle's graphs."""


BACKENDS: Final[Mapping[str, tuple[str, str]]] = {
    "ort": ("cpu_backends", "OrtBackend"),
    "openvino": ("cpu_backends", "OpenVinoBackend"),
    "tensorrt": ("tensorrt_backend", "TensorRtBackend"),
    "script": ("trtexec_script", "ScriptBackend"),
    "triton": ("triton_repository", "TritonBackend"),
    "litert": ("litert_backend", "LiteRtBackend"),
}
"""Module and class of the backend by a recipe's kind; imported on use, since each needs its engine's package."""


@dataclass(frozen=True, kw_only=True)
class TargetFile:
    """One file of a target folder, its name relative to the folder."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """The files written for a target, their source, and their agreement with it; stored as `TARGET_FILE`.

    Attributes:
        target: the target's name.
        bundle: the bundle's name.
        bundle_sha256: of its manifest.
        variant: the variant used.
        precision: of the files' computation.
        passes: the graph passes applied before writing.
        provider: the engine that runs the files, with its version.
        machine: the processor architecture on which the files were made.
        files: what was written.
        graphs: the graphs after the passes, compared with the bundle's own; None where there were no passes.
        parity: the written files compared with the bundle's own graphs; None where this machine cannot run them.
        not_run: why `parity` is None.
    """

    target: str
    bundle: str
    bundle_sha256: str
    variant: str
    precision: str
    passes: tuple[str, ...]
    provider: str
    machine: str
    files: tuple[TargetFile, ...]
    graphs: Parity | None
    parity: Parity | None
    not_run: str


@contextmanager
def _engine_errors(job: TargetJob) -> Iterator[None]:
    """Turn the errors of engines, which have no common base, into a `SessionError`."""
    try:
        yield
    except (FerEdgeError, OSError):
        raise
    except Exception as error:
        raise SessionError(
            f"the target {job.name!r}: the engine cannot take the graphs of {job.variant}: {one_line(error)}; "
            f"fer-edge verify {job.bundle.path} checks them"
        ) from error


class TargetPlan:
    """A job with every check that is possible before its files are written.

    Attributes:
        job: graphs, recipe and shapes.
        files: the files that would be written.
        preflight: findings in the graphs for the target's engine.
        graphs: the graphs after the passes, compared with the bundle's own; None where there were none or it failed.
        errors: why nothing would be written; empty where all checks pass.
    """

    def __init__(self, job: TargetJob) -> None:
        self.job = job
        module, name = BACKENDS[job.recipe.kind]
        if job.recipe.kind == "litert":
            require("ai_edge_litert", needed_by=f"the target {job.name!r}", extra="litert")
        self.backend: Backend = getattr(importlib.import_module(f"fer_edge.export.{module}"), name)(job)
        self.files: tuple[PlannedFile, ...] = self.backend.planned()
        self.preflight: Verdict = job_findings(job)
        self.graphs: Parity | None = None
        self.errors: list[FerEdgeError] = []
        for check in (partial(require_accepted, job, self.preflight), self._check_graphs, self.backend.check):
            try:
                with _engine_errors(job):
                    check()
            except FerEdgeError as error:
                self.errors.append(error)

    @property
    def refusals(self) -> tuple[str, ...]:
        """The messages of `errors`."""
        return tuple(map(str, self.errors))

    @cached_property
    def samples(self) -> Mapping[Part, tuple[Sample, ...]]:
        """Drawn faces through the bundle's own graphs: in the target's engine where that runs here, else on the CPU."""
        job = self.job
        own = bundle_graphs(job.bundle, job.variant, clip="clip" in job.graphs, crowd="crowd" in job.graphs)
        provider = job.recipe.provider if job.recipe.kind in ("ort", "openvino") else "cpu"
        return reference_samples(job.bundle, own, job.shapes, provider=provider)

    def _check_graphs(self) -> None:
        job = self.job
        if not job.passes:
            return

        @contextmanager
        def opened(part: Part) -> Iterator[Run]:
            with open_session(job.graphs[part], provider="cpu") as session:
                yield session.run

        parity = compare_parts(opened, self.samples)
        tolerance = _GRAPH_TOLERANCES[job.float16 + job.quantized]
        require_parity(parity, tolerance=tolerance, what=f"the graphs of {job.variant} after {', '.join(job.passes)}")
        self.graphs = parity

    def write(self, folder: Path, progress: Progress) -> TargetReport:
        """Write the files into an empty folder and compare them with the bundle's own graphs.

        Raises:
            FerEdgeError: the first of `errors`, or as `export_target`.
        """
        if self.errors:
            raise self.errors[0]
        job, backend = self.job, self.backend
        with _engine_errors(job):
            engine = backend.write(folder, progress)
            parity = backend.parity
            if parity is None and not backend.not_run:
                parity = compare_parts(lambda part: backend.open(folder, part), self.samples)
        if parity is not None and backend.parity is None:
            what = f"the target {job.name!r} against {job.variant}"
            precision: Precision = "int8" if job.recipe.kind == "litert" and job.quantized else job.precision
            require_parity(parity, tolerance=_FILE_TOLERANCES[precision], what=what)
        return TargetReport(
            target=job.name,
            bundle=job.bundle.manifest.name,
            bundle_sha256=job.bundle.sha256,
            variant=job.variant,
            precision=job.computes_in,
            passes=job.passes,
            provider=engine,
            machine=platform.machine(),
            files=tuple(_described(folder)),
            graphs=self.graphs,
            parity=parity,
            not_run=backend.not_run,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan by name."""
        job = self.job
        return {
            "target": job.name,
            "summary": job.recipe.summary,
            "bundle": job.bundle.manifest.name,
            "bundle_sha256": job.bundle.sha256,
            "variant": job.variant,
            "precision": job.computes_in,
            "passes": list(job.passes),
            "shapes": encode(job.shapes),
            "compute_capabilities": list(job.recipe.compute_capabilities),
            "files": encode(self.files),
            "findings": encode(self.preflight.findings),
            "refusals": list(self.refusals),
            "refused": bool(self.errors),
        }


def export_target(
    bundle: Bundle,
    *,
    target: str = "auto",
    out: Path,
    variant: str | None = None,
    settings: Iterable[str] = (),
    clip: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TargetReport:
    """Write a variant's graphs in the form that the target's engine runs.

    Args:
        target: a shipped target's name, a recipe's path, or ``"auto"``.
        out: folder for the files and `target.json`.
        settings: ``"key=value"`` changes to the recipe.
        clip: also write the fused graph from a whole clip to its logits (needs the package onnx).
        overwrite: replace the target folder at `out`.

    Raises:
        RecipeError: no such target, or a bad setting.
        BundleError: no such variant, or a damaged bundle.
        SessionError: the engine refuses a graph.
        GateError: pre-flight finds that the engine would refuse a graph or compute something else, or the written files
            differ from the bundle's graphs; nothing is written.
        OutputError: the folder cannot be written, or holds something other than a target.
    """
    say = progress or no_progress
    _expect_target_folder(out)
    say("preparing graphs", 0, 1)
    plan = TargetPlan(target_job(bundle, target=target, variant=variant, settings=settings, clip=clip))
    if plan.errors:
        raise plan.errors[0]
    with output_folder(out, overwrite=overwrite) as folder:
        report = plan.write(folder, say)
        write_json(folder / TARGET_FILE, encode(report))
    return report


def _described(folder: Path) -> Iterator[TargetFile]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        yield TargetFile(name=name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


def _expect_target_folder(out: Path) -> None:
    """Refuse a folder in which `overwrite` would destroy something else, such as a bundle."""
    with writing(out):
        other = out.is_dir() and any(out.iterdir()) and not (out / TARGET_FILE).exists()
    if other:
        raise OutputError(f"{out}: got files and no {TARGET_FILE}, expected a target's folder; choose another one")
