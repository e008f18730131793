"""Points of the pruning curve: accuracy of pruned networks, before and after fine-tuning.

Without fine-tuning a point takes seconds: prune, re-estimate batch normalisation, then measure the network's own head
and a linear probe. With epochs, it is fine-tuned as `fer-edge prune` does, frame stage only.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError
from fer_edge.data import Dataset, leaked_rows
from fer_edge.model.cost import encoder_macs, parameter_count
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceFaces, in_batches
from fer_edge.train.distillation import Teachers
from fer_edge.train.distributed import Processes, autocast
from fer_edge.train.importance import Ranking, measure_ranking, ranking_faces
from fer_edge.train.linear_probe import face_contexts, fit_probe
from fer_edge.train.pretrained import Pretrained, load_network
from fer_edge.train.recipe import Importance, PruneRecipe
from fer_edge.train.run_folder import RunOptions, open_run
from fer_edge.train.structured_pruning import PruneTarget, prune_model
from fer_edge.train.train import Stages

__all__ = ["CurveBudget", "CurvePoint", "PruneCurve", "refit_statistics"]

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class CurveBudget:
    """What a point may cost.

    Attributes:
        refit_rows: training faces that statistics and linear classifier are fitted to.
        epochs: of fine-tuning; 0 for none.
        tuning_rows: training faces an epoch works on.
    """

    refit_rows: int = 2048
    epochs: int = 0
    tuning_rows: int = 28_709

    def __post_init__(self) -> None:
        if min(self.refit_rows, self.tuning_rows) < _BATCH or self.epochs < 0:
            raise InputError(
                f"refit_rows and tuning_rows must be at least {_BATCH}, epochs at least 0; got {self.refit_rows}, "
                f"{self.tuning_rows} and {self.epochs}"
            )


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One network of the curve.

    Attributes:
        importance: what its filters were ranked by; ``"none"`` for the parent.
        target: share of the parent's multiply-accumulates asked for.
        macs: of its frame encoder.
        parameters: of encoder and head.
        top1_head: by its own head, cut down with it; on the split to choose on, without training rows.
        top1_linear: by a linear classifier fitted to its contexts.
        top1_tuned: after fine-tuning, by the classifier trained with it; None without.
        seconds: wall time that the point took; of a ranking's first point with the gradients that it takes.
        cpu_seconds: processor time of the same.
    """

    importance: str
    target: float
    macs: int
    parameters: int
    top1_head: float
    top1_linear: float
    top1_tuned: float | None
    seconds: float
    cpu_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@torch.no_grad()
def refit_statistics(model: AttentionCnnBiLstm, faces: Tensor) -> None:
    """Give every batch normalisation of the encoder the statistics of faces uint8 (N, S, S), in one pass.

    Each averages its batches, every one normalised by itself on the way, as in training.
    """
    norms = [module for module in model.encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    model.eval()
    for norm in norms:
        norm.train()
    for index in in_batches(torch.arange(len(faces)), _BATCH):
        model.encoder(faces[index])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


class PruneCurve:
    """Points of one parent's curve, each measured the same way on the same faces.

    Args:
        origin: a finished run, or a bundle.
        dataset: its ``train`` split ranks and refits, its ``choose`` split judges.
        recipe: rounding, the BiLSTMs' share, the rows of a ranking, the fine-tuning; the importance is the point's.
        budget: what a point may cost.
        peers: the device; one process only.
        options: callbacks.

    Raises:
        InputError: the parent is not finished, or a split is missing.
    """

    def __init__(
        self,
        origin: Pretrained,
        dataset: Dataset,
        *,
        recipe: PruneRecipe,
        budget: CurveBudget,
        peers: Processes,
        options: RunOptions,
    ) -> None:
        self._origin, self._recipe, self._budget, self._peers, self._options = origin, recipe, budget, peers, options
        self._training = origin.recipe
        self._parent = load_network(origin, dataset)
        self._dataset = dataset
        choose = dataset.split("choose")
        self._judged = self._load(choose.subset(~leaked_rows(dataset, choose)))
        train = dataset.split("train")
        rows = np.random.default_rng(recipe.seed + 1).permutation(len(train))[: budget.refit_rows]
        self._refitted = self._load(train.subset(rows))
        self._rankings: dict[Importance, Ranking] = {}

    @property
    def judged(self) -> int:
        """Faces that every point is judged on."""
        return len(self._judged)

    def parent(self) -> CurvePoint:
        """The unpruned network, measured as every point is."""
        started = time.monotonic(), time.process_time()
        model = self._parent.model.to(self._peers.device)
        return self._point("none", 1.0, model, started)

    def point(self, importance: Importance, target: float, *, folder: Path | None = None) -> CurvePoint:
        """Prune to a share of the multiply-accumulates and measure.

        Args:
            importance: what filters are ranked by.
            target: the share.
            folder: of the fine-tuning's run, which is gone on with where it was broken off; needed for one.

        Raises:
            InputError: the target is out of reach, or a fine-tuning has no folder.
        """
        started = time.monotonic(), time.process_time()
        ranking = self._ranking(importance)
        limits = PruneTarget(macs=target).limits(self._training.model)
        model, probe = self._parent.model.cpu(), self._parent.probe
        narrowed, _ = prune_model(model, probe, limits=limits, recipe=self._recipe, ranking=ranking)
        narrowed = narrowed.to(self._peers.device)
        with autocast(self._training.precision, self._peers.device):
            refit_statistics(narrowed, self._refitted.images)
        point = self._point(importance, target, narrowed, started)
        if not self._budget.epochs:
            return point
        if folder is None:
            raise InputError("a fine-tuned point needs a folder for its run")
        tuned = self._tune(narrowed, importance, target, folder)
        return replace(point, top1_tuned=tuned, **_since(started))  # type: ignore[arg-type]

    def _tune(self, model: AttentionCnnBiLstm, importance: Importance, target: float, folder: Path) -> float:
        """Top-1 of the best epoch of a fine-tuning under the parent's eyes."""
        spec = replace(self._recipe.optimiser, epochs=self._budget.epochs)
        recipe = replace(self._training, model=model.config, optimiser=spec)
        train = self._dataset.split("train")
        rows = np.random.default_rng(self._recipe.seed + 2).permutation(len(train))[: self._budget.tuning_rows]
        splits = {**self._dataset.splits, train.name: train.subset(rows)}
        dataset = replace(self._dataset, splits=splits)
        facts = {"parent": self._origin.identity, "pruning": {"importance": importance, "macs_target": target}}
        run = open_run(recipe, dataset, folder, facts, resume=True, peers=self._peers)
        if not run.done:
            torch.manual_seed(recipe.seed)
            teachers = Teachers([self._parent.classifier])
            stages = Stages(run=run, dataset=dataset, peers=self._peers, options=self._options, teachers=teachers)
            stages.fit_frames(model, self._linear(model))
        return float(run.record["frames_top1"])

    def _ranking(self, importance: Importance) -> Ranking:
        if importance not in self._rankings:
            recipe, device = replace(self._recipe, importance=importance), self._peers.device
            faces = ranking_faces(self._dataset, self._training, recipe, device)
            classifier, progress = self._parent.classifier.to(device), self._options.progress
            self._rankings[importance] = measure_ranking(classifier, faces, self._training, recipe, progress)
        return self._rankings[importance]

    @torch.no_grad()
    def _linear(self, model: AttentionCnnBiLstm) -> nn.Linear:
        with autocast(self._training.precision, self._peers.device):
            contexts = face_contexts(model.eval(), self._refitted.images)
        classes = self._training.model.classes
        return fit_probe(contexts, self._refitted.labels, classes=classes).to(self._peers.device)

    @torch.no_grad()
    def _point(
        self, importance: str, target: float, model: AttentionCnnBiLstm, started: tuple[float, float]
    ) -> CurvePoint:
        linear = self._linear(model)
        with autocast(self._training.precision, self._peers.device):
            contexts = face_contexts(model, self._judged.images)
        said = {"head": model.head.classify(contexts.float()), "linear": linear(contexts.float())}
        right = {name: (logits.argmax(dim=1) == self._judged.labels).float().mean() for name, logits in said.items()}
        return CurvePoint(
            importance=importance,
            target=target,
            macs=encoder_macs(model.config),
            parameters=parameter_count(model.config),
            top1_head=float(right["head"]),
            top1_linear=float(right["linear"]),
            top1_tuned=None,
            **_since(started),
        )

    def _load(self, stills: Any) -> DeviceFaces:
        return DeviceFaces.of(stills, self._training, self._peers.device)


def _since(started: tuple[float, float]) -> dict[str, float]:
    """Wall and processor seconds since then."""
    wall, processor = started
    return {
        "seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - processor, 1),
    }
