"""Target files for ONNX Runtime and for OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from fer_edge.core.errors import SessionError, require
from fer_edge.core.telemetry import without_telemetry
from fer_edge.core.types import Array, Progress
from fer_edge.export.backend import Backend, engine_refuses
from fer_edge.export.job import InputShapes, Part, PlannedFile, Run
from fer_edge.runtime.providers import open_session

__all__ = ["OpenVinoBackend", "OrtBackend"]

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OrtBackend(Backend):
    """ONNX graphs with ONNX Runtime's own optimisations, except those that bind a file to one processor."""

    def planned(self) -> tuple[PlannedFile, ...]:
        return self._one_per_part(".onnx")

    def check(self) -> None:
        self._onnxruntime()

    def write(self, folder: Path, progress: Progress) -> str:
        onnxruntime = self._onnxruntime()
        for number, (part, graph) in enumerate(self.job.graphs.items()):
            progress(f"optimising {part}", number, len(self.job.graphs))
            path = folder / f"{part}.onnx"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(path)
            options.log_severity_level = 3
            try:
                onnxruntime.InferenceSession(graph, options, providers=[_PROVIDERS[self.job.recipe.provider]])
            except Exception as error:  # ONNX Runtime's exceptions have no base of their own
                raise engine_refuses("ONNX Runtime", part, error, path=path, graph=graph) from error
        return f"onnxruntime {onnxruntime.__version__}"

    @contextmanager
    def open(self, folder: Path, part: Part) -> Iterator[Run]:
        graph = (folder / f"{part}.onnx").read_bytes()
        with open_session(graph, provider=self.job.recipe.provider) as session:
            yield session.run

    def _onnxruntime(self) -> ModuleType:
        provider = self.job.recipe.provider
        onnxruntime = require("onnxruntime", needed_by=f"the target {self.job.name!r}", extra=provider)
        if _PROVIDERS[provider] not in onnxruntime.get_available_providers():
            raise SessionError(
                f"the target {self.job.name!r} needs {_PROVIDERS[provider]}, which this onnxruntime "
                f"{onnxruntime.__version__} lacks; install it with: pip install 'fer-edge[{provider}]'"
            )
        return onnxruntime


class OpenVinoBackend(Backend):
    """OpenVINO's intermediate representation: a graph in XML, its weights beside it."""

    def planned(self) -> tuple[PlannedFile, ...]:
        return self._one_per_part(".xml", ".bin")

    def check(self) -> None:
        self._openvino()

    def write(self, folder: Path, progress: Progress) -> str:
        openvino, job = self._openvino(), self.job
        from fer_edge.runtime.openvino_session import openvino_core

        for number, (part, graph) in enumerate(job.graphs.items()):
            progress(f"converting {part}", number, len(job.graphs))
            path = folder / f"{part}.xml"
            with without_telemetry():
                model = openvino_core().read_model(graph)
                if not job.recipe.shapes.dynamic:
                    model.reshape({name: _partial_shape(shapes) for name, shapes in job.shapes[part].items()})
                try:
                    openvino.save_model(model, path, compress_to_fp16=False)
                except RuntimeError as error:
                    raise engine_refuses("OpenVINO", part, error, path=path, graph=graph) from error
        return f"openvino {openvino.get_version().partition('-')[0]}"

    @contextmanager
    def open(self, folder: Path, part: Part) -> Iterator[Run]:
        from fer_edge.runtime.openvino_session import openvino_core

        compiled = openvino_core().compile_model(folder / f"{part}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            found = compiled(dict(feeds))
            return {output.any_name: np.array(found[output]) for output in compiled.outputs}

        yield run

    def _openvino(self) -> ModuleType:
        with without_telemetry():
            return require("openvino", needed_by=f"the target {self.job.name!r}", extra="openvino")


def _partial_shape(shapes: InputShapes) -> list[int | tuple[int, int]]:
    """Give a size, or a range of sizes, for each dimension."""
    return [low if low == high else (low, high) for low, high in zip(shapes.min, shapes.max, strict=True)]
