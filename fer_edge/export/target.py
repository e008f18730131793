"""A bundle to the files that one engine on one kind of machine runs; torch is not involved."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import OutputError
from fer_edge.core.files import output_folder, sha256_file, write_json, writing
from fer_edge.core.types import Progress
from fer_edge.export.backend import Part, Run, TargetJob, TargetWriter
from fer_edge.export.graph_passes import (
    Sample,
    bundle_graphs,
    compare_parts,
    reference_samples,
    running,
)
from fer_edge.export.job import target_job
from fer_edge.export.parity.outputs import Parity, require_parity
from fer_edge.export.preflight import require_preflight
from fer_edge.export.recipe import Precision
from fer_edge.runtime.providers import open_session

__all__ = [
    "WRITERS",
    "TargetFile",
    "TargetReport",
    "check_job",
    "export_target",
    "job_samples",
]

TARGET_FILE: Final = "target.json"
_TOLERANCE: Final = 1e-3
_COARSE_TOLERANCE: Final = 0.02
_STEP_TOLERANCE: Final = 0.1
_ENGINE_TOLERANCE: Final[Mapping[Precision, float]] = {
    "variant": _TOLERANCE,
    "fp32": 0.01,  # TensorRT's products may be TF32
    "fp16": 0.05,
    "int8": 0.25,  # a value on the edge of two INT8 steps may fall on either side
    "int8-fp16": 0.25,
}
"""Largest difference of an output between an engine and the bundle's graph."""


def _ort() -> TargetWriter:
    from fer_edge.export.ort_backend import ORT

    return ORT


def _openvino() -> TargetWriter:
    from fer_edge.export.ort_backend import OPENVINO

    return OPENVINO


def _tensorrt() -> TargetWriter:
    from fer_edge.export.tensorrt_backend import TENSORRT

    return TENSORRT


def _script() -> TargetWriter:
    from fer_edge.export.trtexec_script import SCRIPT

    return SCRIPT


def _triton() -> TargetWriter:
    from fer_edge.export.triton_repository import TRITON

    return TRITON


WRITERS: Final[Mapping[str, Callable[[], TargetWriter]]] = {
    "ort": _ort,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
    "script": _script,
    "triton": _triton,
}
"""A recipe's kind -> what imports and gives its writer."""


@dataclass(frozen=True, kw_only=True)
class TargetFile:
    """One file of a target folder, its name relative to the folder."""

    name: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path, folder: Path) -> TargetFile:
        """The entry of a file that stands on disk."""
        name = path.relative_to(folder).as_posix()
        return cls(name=name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """What was written for a target, from what, and how well it agrees; `TARGET_FILE` beside the files.

    Attributes:
        target: the target's name.
        bundle: the bundle's name.
        bundle_sha256: of its manifest.
        variant: the variant that was taken.
        precision: what the files compute in.
        provider: the engine that runs the files, with its version.
        machine: the processor's architecture the files were made on.
        passes: what was done to the bundle's graphs before they were written.
        files: what was written.
        graphs: the graphs after those passes against the bundle's own; None where there were none.
        parity: the written files against the bundle's own graphs; None where this machine cannot run them.
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

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {
            **asdict(self),
            "files": [asdict(file) for file in self.files],
            "graphs": None if self.graphs is None else self.graphs.to_json(),
            "parity": None if self.parity is None else self.parity.to_json(),
        }


def job_samples(job: TargetJob) -> dict[Part, tuple[Sample, ...]]:
    """Generated faces through the bundle's own graphs: in the target's engine where that runs here, else on the CPU."""
    own = bundle_graphs(job.bundle, job.variant, clip="clip" in job.graphs)
    provider = job.recipe.provider if job.recipe.kind in ("ort", "openvino") else "cpu"
    return reference_samples(job.bundle, own, job.shapes, provider=provider)


def check_job(job: TargetJob, samples: Mapping[Part, tuple[Sample, ...]]) -> Parity | None:
    """Hold the graphs against the bundle's own after the recipe's passes; None where there were none.

    Raises:
        GateError: they do not compute the same: within 1e-3, 0.02 where FP16 or the edge of an INT8 step may decide,
            0.1 where FP16 may carry a value over such an edge.
        MissingPackageError: onnxruntime is not installed.
    """
    if not job.passes:
        return None

    def opened(part: Part) -> AbstractContextManager[Run]:
        return running(open_session(job.graphs[part], provider="cpu"))

    parity = compare_parts(opened, samples)
    tolerance = (_TOLERANCE, _COARSE_TOLERANCE, _STEP_TOLERANCE)[job.float16 + job.quantized]
    require_parity(parity, tolerance=tolerance, what=f"the graphs of {job.variant} after {', '.join(job.passes)}")
    return parity


def export_target(
    bundle: Bundle,
    *,
    target: str = "auto",
    out: Path,
    variant: str | None = None,
    settings: Iterable[str] = (),
    clip: bool = False,
    tolerance: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TargetReport:
    """Write a variant's graphs in the form that the target's engine runs.

    Args:
        bundle: an open bundle.
        target: a shipped target's name, a recipe's path, or ``"auto"``.
        out: folder for the files and `target.json`.
        variant: a variant's name; the recipe's choice by default.
        settings: ``"key=value"`` changes to the recipe.
        clip: also write the fused graph from a whole clip to its logits (needs the package onnx).
        tolerance: largest difference of any output, on generated faces, between the written files and the bundle's own
            graphs; by the precision when left out.
        overwrite: replace what stands in `out`, if that is a target's folder.
        progress: told what is going on.

    Raises:
        InputError: no such target.
        BundleError: no such variant, or a damaged bundle.
        SessionError: the engine refuses a graph.
        GateError: pre-flight finds that the engine would refuse a graph or compute something else, or the written files
            do not compute what the bundle's graphs compute; nothing is left behind.
        OutputError: the folder cannot be written, or holds something else than a target.
    """
    _expect_target_folder(out)
    say = progress or (lambda _text, _done, _total: None)
    say("preparing graphs", 0, 1)
    job = target_job(bundle, target=target, variant=variant, settings=settings, clip=clip)
    require_preflight(job)
    samples = job_samples(job) if job.passes else {}
    prepared = check_job(job, samples)
    with output_folder(out, overwrite=overwrite) as folder:
        written = WRITERS[job.recipe.kind]().write(job, folder, say)
        parity = written.parity
        if written.open is not None:
            parity = compare_parts(written.open, samples or job_samples(job))
            allowed = _ENGINE_TOLERANCE[job.precision] if tolerance is None else tolerance
            require_parity(parity, tolerance=allowed, what=f"the target {job.name!r} against {job.variant}")
        report = TargetReport(
            target=job.name,
            bundle=bundle.manifest.name,
            bundle_sha256=bundle.sha256,
            variant=job.variant,
            precision=job.computes_in,
            passes=job.passes,
            provider=written.engine,
            machine=platform.machine(),
            files=tuple(TargetFile.of(path, folder) for path in written.files),
            graphs=prepared,
            parity=parity,
            not_run=written.not_run,
        )
        write_json(folder / TARGET_FILE, report.to_json())
    return report


def _expect_target_folder(out: Path) -> None:
    """Refuse a folder in which `overwrite` would destroy something else: a bundle, say, or a collection of models."""
    with writing(out):
        other = out.is_dir() and any(out.iterdir()) and not (out / TARGET_FILE).exists()
    if other:
        raise OutputError(f"{out} holds files and no {TARGET_FILE}, so it is no target's folder; choose another one")
