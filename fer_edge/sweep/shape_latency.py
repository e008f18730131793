"""The latency of a shape before any training: its graphs with random weights, timed beside the reference CNN."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field, replace

import numpy as np

from fer_edge.bench.latency import Probe, measure_interleaved, ratio_over_rounds
from fer_edge.bench.reference_cnn import reference_graph, reference_input
from fer_edge.bench.workload import camera_face
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Array
from fer_edge.data import Dataset
from fer_edge.data.sampling import draw_sample
from fer_edge.graph.graph import Graph
from fer_edge.model.config import ModelConfig
from fer_edge.runtime.providers import open_session
from fer_edge.sweep.build import calibration_recipe
from fer_edge.sweep.recipe import FLOAT, SweepRecipe
from fer_edge.train.recipe import TrainRecipe

__all__ = ["ShapeLatency"]


@dataclass(frozen=True, kw_only=True)
class ShapeLatency:
    """Measures the x of shapes, each once, in the search's precision on the sweep's first provider.

    Attributes:
        dataset: its training faces calibrate an INT8 graph.
    """

    recipe: SweepRecipe
    dataset: Dataset
    _known: dict[ModelConfig, float] = field(default_factory=dict, init=False)

    def x(self, recipe: TrainRecipe) -> float:
        """Return encoder + head on one frame over the reference CNN, the median over interleaved rounds.

        Raises:
            InputError: a shape that cannot be quantized, or too few training faces for the calibration sample.
            SessionError: the provider failed.
        """
        if recipe.model not in self._known:
            self._known[recipe.model] = self._measure(recipe)
        return self._known[recipe.model]

    def _measure(self, recipe: TrainRecipe) -> float:
        graphs, timing, width = self._graphs(recipe), self.recipe.timing, recipe.model.feature_size
        feeds: dict[str, dict[str, Array]] = {
            "encoder": {"frames": camera_face(recipe.preprocess)[None]},
            "head": {
                "features": np.zeros((1, 1, width), np.float32),
                "length": np.ones(1, np.int64),
            },
            "reference": {"faces": reference_input()},
        }
        with contextlib.ExitStack() as stack:
            sessions = {
                name: stack.enter_context(
                    open_session(graph, provider=self.recipe.providers[0], threads=self.recipe.threads)
                )
                for name, graph in {**graphs, "reference": reference_graph()}.items()
            }
            stages = {name: functools.partial(session.run, feeds[name]) for name, session in sessions.items()}
            probes = [
                Probe(name="shape", stages={name: stages[name] for name in graphs}, per_round=timing.per_round),
                Probe(name="reference", stages={"reference": stages["reference"]}, per_round=timing.per_round),
            ]
            times = measure_interleaved(probes, rounds=timing.rounds, warm_up=timing.warm_up)
        return ratio_over_rounds(times["shape"].total(), times["reference"].total()).median

    def _graphs(self, recipe: TrainRecipe) -> dict[str, bytes]:
        """Return encoder and head with random weights, quantized where the search asks for it."""
        from fer_edge.export.from_torch.run import untrained_graphs

        graphs = untrained_graphs(recipe)
        assert self.recipe.search is not None
        if self.recipe.search.precision == FLOAT:
            return graphs
        from fer_edge.calibrate.int8_variants import quantized_graphs

        calibration = calibration_recipe(self.recipe)
        sample = draw_sample(self.dataset, size=calibration.sample.size, seed=calibration.sample.seed)
        encoder, head = (Graph.read(graphs[part], name=f"the {part}") for part in ("encoder", "head"))
        frames = prepare_stills(sample.stills.images, recipe.preprocess)
        (form,) = quantized_graphs(encoder, head, frames, recipe=replace(calibration, forms=("int8",)))
        return {"encoder": form.encoder, "head": form.head}
