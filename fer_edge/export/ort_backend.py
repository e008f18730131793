"""Files for ONNX Runtime and for OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from fer_edge.core.errors import MissingPackageError, SessionError, require
from fer_edge.core.files import write_atomic
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Array, Progress
from fer_edge.export.backend import (
    InputShapes,
    Part,
    PlannedFile,
    Run,
    TargetJob,
    TargetWriter,
    WriterPlan,
    WrittenTarget,
)
from fer_edge.runtime.providers import open_session

__all__ = ["OPENVINO", "ORT"]

_EXTRA: Final[Mapping[str, str]] = {"cpu": "cpu", "cuda": "cuda"}


def _plan_ort(job: TargetJob) -> WriterPlan:
    files = tuple(PlannedFile(name=f"{part}.onnx", part=part, precision=job.computes_in) for part in job.graphs)
    refusals = _missing("onnxruntime", _EXTRA[job.recipe.provider])
    if not refusals:
        try:
            _onnxruntime(job)
        except SessionError as error:
            refusals = (str(error),)
    return WriterPlan(files=files, refusals=refusals)


def _onnxruntime(job: TargetJob) -> tuple[ModuleType, str]:
    """ONNX Runtime, and its own name of the provider that the target needs.

    Raises:
        MissingPackageError: it is not installed.
        SessionError: the one that is installed lacks the provider.
    """
    provider = job.recipe.provider
    onnxruntime = require("onnxruntime", needed_by=f"the target {job.name!r}", extra=_EXTRA[provider])
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[provider]
    if wanted not in onnxruntime.get_available_providers():
        raise SessionError(
            f"the target {job.name!r} needs {wanted}, which this onnxruntime {onnxruntime.__version__} lacks; "
            f"install it with: pip install 'fer-edge[{_EXTRA[provider]}]'"
        )
    return onnxruntime, wanted


def _write_ort(job: TargetJob, folder: Path, progress: Progress) -> WrittenTarget:
    """ONNX Runtime's own optimisations, short of those that bind the file to one processor, done ahead of time."""
    onnxruntime, wanted = _onnxruntime(job)
    provider = job.recipe.provider
    paths = []
    for number, (part, graph) in enumerate(job.graphs.items()):
        progress(f"optimising {part}", number, len(job.graphs))
        path = folder / f"{part}.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(graph, options, providers=[wanted])
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            _require_space(path, graph)
            raise SessionError(f"ONNX Runtime refuses {part}: {' '.join(str(error).split())}") from error
        paths.append(path)

    @contextmanager
    def opened(part: Part) -> Iterator[Run]:
        with open_session((folder / f"{part}.onnx").read_bytes(), provider=provider) as session:
            yield session.run

    return WrittenTarget(files=tuple(paths), engine=f"onnxruntime {onnxruntime.__version__}", open=opened)


def _plan_openvino(job: TargetJob) -> WriterPlan:
    files = tuple(
        PlannedFile(name=f"{part}{ending}", part=part, precision=job.computes_in)
        for part in job.graphs
        for ending in (".xml", ".bin")
    )
    return WriterPlan(files=files, refusals=_missing("openvino", "openvino"))


def _write_openvino(job: TargetJob, folder: Path, progress: Progress) -> WrittenTarget:
    """OpenVINO's intermediate representation: a graph in XML and its weights beside it."""
    with without_telemetry():
        openvino = require("openvino", needed_by=f"the target {job.name!r}", extra="openvino")
        from fer_edge.runtime.openvino_session import openvino_core

        paths = []
        for number, (part, graph) in enumerate(job.graphs.items()):
            progress(f"converting {part}", number, len(job.graphs))
            path = folder / f"{part}.xml"
            model = openvino_core().read_model(graph)
            if not job.recipe.shapes.dynamic:
                model.reshape({name: _openvino_shape(shape) for name, shape in job.shapes[part].items()})
            try:
                openvino.save_model(model, path, compress_to_fp16=False)
            except RuntimeError as error:
                _require_space(path, graph)
                raise SessionError(f"OpenVINO refuses {part}: {' '.join(str(error).split())}") from error
            paths += [path, path.with_suffix(".bin")]

    @contextmanager
    def opened(part: Part) -> Iterator[Run]:
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino_core().compile_model(folder / f"{part}.xml", "CPU", settings)

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            found = compiled(dict(feeds))
            return {output.any_name: np.array(found[output]) for output in compiled.outputs}

        yield run

    version = openvino.get_version().partition("-")[0]
    return WrittenTarget(files=tuple(paths), engine=f"openvino {version}", open=opened)


def _require_space(path: Path, graph: bytes) -> None:
    """Was it the disk? The engines write their files themselves, and say of a full disk that the graph was wrong.

    Raises:
        OutputError: the graph's own bytes cannot be written either.
    """
    write_atomic(path, graph)
    path.unlink()


def _openvino_shape(shape: InputShapes) -> list[int | tuple[int, int]]:
    """A size, or a range of sizes, for each dimension."""
    return [low if low == high else (low, high) for low, high in zip(shape.min, shape.max, strict=True)]


def _missing(package: str, extra: str) -> tuple[str, ...]:
    try:
        with without_telemetry():
            require(package, needed_by="this target", extra=extra)
    except MissingPackageError as error:
        return (str(error),)
    return ()


ORT: Final = TargetWriter(plan=_plan_ort, write=_write_ort)
OPENVINO: Final = TargetWriter(plan=_plan_openvino, write=_write_openvino)
