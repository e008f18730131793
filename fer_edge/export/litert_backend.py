"""LiteRT files of a bundle: written without TensorFlow, then compared with the bundle's graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import ai_edge_litert

from fer_edge.core.errors import InputError
from fer_edge.core.files import write_atomic
from fer_edge.core.graph_card import graph_card
from fer_edge.core.json import encode
from fer_edge.core.types import Array, Progress
from fer_edge.export.backend import Backend
from fer_edge.export.graph_passes import InputShapes, Shaped, bundle_graphs, part_shapes, prepare_graphs
from fer_edge.export.job import Part, PlannedFile, Run, TargetJob
from fer_edge.export.litert_file import LiteRtFile
from fer_edge.export.litert_operators import add_signature
from fer_edge.export.parity.outputs import require_parity
from fer_edge.export.parity.samples import compare_parts, reference_samples
from fer_edge.export.recipe import ShapeRange, load_target
from fer_edge.graph.graph import Graph
from fer_edge.runtime.litert_session import LITERT_ENDING, LiteRtSession

__all__ = ["LiteRtBackend", "litert_run"]

_TOLERANCE: Final = 1e-3  # heads are float in every variant


class LiteRtBackend(Backend):
    """One `.tflite` file a graph: the encoder's signature is `encode`, a head's are `window` and `frame` (T = 1).

    Raises:
        InputError: a fused clip graph, or shapes that are not fixed.
    """

    def __init__(self, job: TargetJob) -> None:
        super().__init__(job)
        if "clip" in job.graphs:
            raise InputError("clip: got a fused clip graph, expected none; LiteRT runs the encoder and a head")
        for part, shapes in job.shapes.items():
            for name, shape in shapes.items():
                if job.recipe.shapes.dynamic or not shape.fixed or shape.max[0] != 1:
                    raise InputError(f"shapes: got {shape} for {name!r} of the {part}, expected one row of fixed sizes")

    def planned(self) -> tuple[PlannedFile, ...]:
        return self._one_per_part(LITERT_ENDING)

    def check(self) -> None:
        for part in self.job.graphs:
            self._file(part)

    def write(self, folder: Path, progress: Progress) -> str:
        job = self.job
        for number, part in enumerate(job.graphs):
            progress(f"converting {part}", number, len(job.graphs))
            write_atomic(folder / f"{part}{LITERT_ENDING}", self._file(part))
        if self._frames:
            self._check_frames(folder)
        return f"ai-edge-litert {ai_edge_litert.__version__}"

    @contextmanager
    def open(self, folder: Path, part: Part) -> Iterator[Run]:
        with LiteRtSession((folder / f"{part}{LITERT_ENDING}").read_bytes(), threads=1) as session:
            yield session.run

    @cached_property
    def _frame_shapes(self) -> Shaped:
        """The shapes of the signature `frame`."""
        return part_shapes(self.job.bundle.manifest, replace(self.job.recipe.shapes, time=ShapeRange()))

    @cached_property
    def _frames(self) -> Mapping[Part, bytes]:
        """The heads at T = 1 after the recipe's passes; none where the window is one frame long."""
        job, shapes = self.job, self._frame_shapes
        own: dict[Part, bytes] = {part: graph for part, graph in _own(job).items() if part != "encoder"}
        if job.shapes["head"]["features"].max[1] == 1:
            return {}
        return prepare_graphs(own, job.recipe, shapes, float16=False).graphs

    def _file(self, part: Part) -> bytes:
        job = self.job
        variant = job.bundle.variant(job.variant)
        crowd = variant.crowd if part == "crowd" else None
        head = variant if crowd is None else crowd
        facts = graph_card(job.bundle.manifest, variant, part)  # type: ignore[arg-type]
        if part != "encoder":
            facts |= {"temperature": head.temperature, "unknown_threshold": head.unknown_threshold}
        if crowd is not None:
            facts |= {"not_judgeable_threshold": crowd.not_judgeable_threshold}
        facts["graph_sha256"] = variant.parts[part].sha256  # type: ignore[index]
        signatures = {"encode" if part == "encoder" else "window": job.graphs[part]}
        if part in self._frames:
            signatures["frame"] = self._frames[part]
        return _model(signatures, facts)

    def _check_frames(self, folder: Path) -> None:
        """Compare the signature `frame` with the bundle's heads.

        Raises:
            GateError: they differ by more than rounding.
        """
        samples = reference_samples(self.job.bundle, _own(self.job), self._frame_shapes)
        heads = {part: sample for part, sample in samples.items() if part in self._frames}
        parity = compare_parts(lambda part: self.open(folder, part), heads)
        require_parity(parity, tolerance=_TOLERANCE, what=f"the signature 'frame' against {self.job.variant}")


def _own(job: TargetJob) -> dict[Part, bytes]:
    return bundle_graphs(job.bundle, job.variant, clip=False, crowd="crowd" in job.graphs)


@contextmanager
def litert_run(graph: bytes) -> Iterator[Run]:
    """Run any graph of a bundle in LiteRT, converted anew for each shape of its rows; for comparisons."""
    recipe = load_target("litert")
    sessions: dict[tuple[tuple[int, ...], ...], LiteRtSession] = {}

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        shapes = {name: (1, *array.shape[1:]) for name, array in feeds.items()}
        key = tuple(shapes.values())
        if key not in sessions:
            each = {name: InputShapes(min=shape, opt=shape, max=shape) for name, shape in shapes.items()}
            prepared = prepare_graphs({"head": graph}, recipe, {"head": each}, float16=False)
            sessions[key] = LiteRtSession(_model({"run": prepared.graphs["head"]}, {}), threads=1)
        return sessions[key].run(feeds)

    try:
        yield run
    finally:
        for session in sessions.values():
            session.close()


def _model(signatures: Mapping[str, bytes], facts: Mapping[str, Any]) -> bytes:
    file = LiteRtFile(" ".join(str(facts[name]) for name in ("bundle", "variant", "part") if name in facts))
    for name, graph in signatures.items():
        add_signature(file, Graph.read(graph, name=f"the graph of the signature {name!r}"), name=name)
    file.describe(encode(facts))
    return file.write()
