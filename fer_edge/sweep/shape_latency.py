"""The latency of a shape before any training: its graphs with random weights, timed beside the reference CNN."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from fer_edge.bench import BenchOptions, run_bench
from fer_edge.bench.report import Timing
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.core.bundle import Bundle
from fer_edge.core.files import sha256_bytes
from fer_edge.core.manifest import Manifest, SequenceSpec, Variant, timestamp
from fer_edge.core.preprocess import prepare_stills
from fer_edge.data import Dataset
from fer_edge.data.sampling import draw_sample
from fer_edge.graph.cost import graph_file
from fer_edge.graph.graph import Graph
from fer_edge.model.config import ModelConfig
from fer_edge.sweep.recipe import FLOAT
from fer_edge.train.recipe import TrainRecipe

__all__ = ["ShapeLatency", "shape_bundle"]


@dataclass(frozen=True, kw_only=True)
class ShapeLatency:
    """Measures the x of shapes, each once.

    Attributes:
        dataset: its training faces calibrate an INT8 graph.
        precision: ``"fp32"`` or ``"int8"``.
        provider: the runtime provider.
        threads: of both sessions, the shape's and the reference CNN's.
        timing: rounds and samples.
        calibration: the INT8 recipe.
    """

    dataset: Dataset
    precision: str
    provider: str
    threads: int
    timing: Timing
    calibration: CalibrationRecipe
    known: dict[ModelConfig, float] = field(default_factory=dict)

    def x(self, recipe: TrainRecipe) -> float:
        """Return encoder + head on one frame over the reference CNN, the median over interleaved rounds.

        Raises:
            InputError: a shape that cannot be quantized.
            SessionError: the provider failed.
        """
        if recipe.model not in self.known:
            with tempfile.TemporaryDirectory(prefix="fer-edge-") as folder:
                bundle = shape_bundle(
                    recipe, self.dataset, Path(folder) / "shape", precision=self.precision, calibration=self.calibration
                )
                report = run_bench(
                    [bundle],
                    options=BenchOptions(
                        providers=(self.provider,),
                        threads=self.threads,
                        timing=replace(self.timing, cold_starts=0, idle_s=None, batch=1),
                    ),
                )
            self.known[recipe.model] = report.variants[0].x
        return self.known[recipe.model]


def shape_bundle(
    recipe: TrainRecipe, dataset: Dataset, out: Path, *, precision: str, calibration: CalibrationRecipe
) -> Bundle:
    """Write a bundle of the recipe's shape with random weights; only its latency means anything.

    Raises:
        InputError: the shape cannot be quantized, or there are fewer training faces than the calibration sample needs.
        OutputError: it cannot be written.
    """
    from fer_edge.export.from_torch.run import untrained_graphs

    graphs = untrained_graphs(recipe)
    if precision != FLOAT:
        graphs = _quantized(graphs, recipe, dataset, calibration)
    window, width = recipe.sequence.window, recipe.model.feature_size
    variant = Variant(
        name=precision,
        precision=precision,
        encoder=graph_file(graphs["encoder"], dimensions={"N": 1}, name="the encoder"),
        head=graph_file(graphs["head"], dimensions={"B": 1, "T": window}, name="the head"),
    )
    manifest = Manifest(
        name="shape",
        created=timestamp(),
        labels=dataset.expressions,
        preprocess=recipe.preprocess,
        sequence=SequenceSpec(window=window, feature_size=width, frame_rate=recipe.sequence.frame_rate),
        variants=(variant,),
        licence="random weights",
        intended_use="measuring the latency of a shape",
    )
    return Bundle.create(out, manifest, {sha256_bytes(graph): graph for graph in graphs.values()})


def _quantized(
    graphs: dict[str, bytes], recipe: TrainRecipe, dataset: Dataset, calibration: CalibrationRecipe
) -> dict[str, bytes]:
    from fer_edge.calibrate.int8_variants import quantized_graphs

    sample = draw_sample(dataset, size=calibration.sample.size, seed=calibration.sample.seed)
    encoder, head = (Graph.read(graphs[part], name=f"the {part}") for part in ("encoder", "head"))
    frames = prepare_stills(sample.stills.images, recipe.preprocess)
    (form,) = quantized_graphs(encoder, head, frames, recipe=replace(calibration, forms=("int8",)))
    return {"encoder": form.encoder, "head": form.head}
