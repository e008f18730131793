"""How filters and hidden units are ranked before the least of them go.

group-norm   L2 norm of all weights that make or read a filter (Fang et al. 2023, arXiv 2301.12900)
bn-scale     scale of the batch normalisation behind it (Liu et al. 2017, arXiv 1708.06519)
taylor       |weight x gradient|, what the loss changes by to first order (Molchanov et al. 2019, arXiv 1906.10771)
hessian      weight^2 x Hessian's diagonal, the second order of Optimal Brain Damage (LeCun et al. 1990), the diagonal
             taken as the mean square of single rows' gradients, which is the empirical Fisher's
random       the control: whatever ranks no better than this is worth nothing

Torch-Pruning has all five for what hangs together in the CNN. What the gradients say is gathered here, and the BiLSTMs'
hidden units, which it cannot follow, are ranked by the same measure of their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, require
from fer_edge.data import Dataset
from fer_edge.train.batches import DeviceFaces, in_batches
from fer_edge.train.distributed import autocast
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import Importance, PruneRecipe, TrainRecipe

__all__ = ["Ranking", "measure_ranking", "ranking_faces"]

_BATCH: Final = 64
"""Faces whose gradient is one first-order estimate."""

_MEASURED: Final = ("taylor", "hessian")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A measure of importance, with what it needs to know of a model.

    Attributes:
        importance: the measure.
        slopes: by parameter of the model; for ``taylor`` the mean absolute gradient over batches, for ``hessian`` the
            mean squared gradient over rows; empty for the others.
        seed: of the random measure.

    Raises:
        InputError: a measure that takes gradients is given none.
    """

    importance: Importance
    slopes: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.importance in _MEASURED and not self.slopes:
            raise InputError(
                f"importance {self.importance!r} ranks by gradients, and none were taken; measure_ranking takes them"
            )

    def of_filters(self, cnn: nn.Module, *, prefix: str) -> Any:
        """Torch-Pruning's measure, ready to rank the filters of a copy of the CNN.

        Args:
            cnn: the copy; its parameters' gradients are set to the slopes.
            prefix: of its parameters' names in the model.
        """
        pruning: ModuleType = require("torch_pruning", needed_by="fer-edge prune", extra="train")
        for name, parameter in cnn.named_parameters():
            slope = self.slopes.get(prefix + name)
            parameter.grad = None if slope is None else slope.to(parameter).clone()
        torch.manual_seed(self.seed)  # the random measure draws from the global generator
        measures = {
            "group-norm": lambda: pruning.importance.GroupMagnitudeImportance(p=2),
            "bn-scale": pruning.importance.BNScaleImportance,
            "taylor": pruning.importance.GroupTaylorImportance,
            # Its own accumulate_grad keeps the last row alone (1.6.1 looks a parameter up by its name): not called.
            "hessian": pruning.importance.GroupHessianImportance,
            "random": pruning.importance.RandomImportance,
        }
        return measures[self.importance]()

    def of_weights(self, state: Mapping[str, Tensor], name: str) -> Tensor:
        """What each element of a weight is worth, as a share of the whole weight's: float (...), sums to one.

        No batch normalisation scales a hidden unit: ``bn-scale`` takes the norm here.
        """
        weight = state[name]
        if self.importance == "random":
            generator = torch.Generator().manual_seed(self.seed + sum(name.encode()))
            worth = torch.rand(weight.shape, generator=generator)
        elif self.importance in _MEASURED:
            slope = self.slopes[name].to(weight)
            worth = slope * (weight.abs() if self.importance == "taylor" else weight.square())
        else:
            worth = weight.square()
        return worth / worth.sum().clamp(min=torch.finfo(worth.dtype).tiny)


def ranking_faces(dataset: Dataset, recipe: TrainRecipe, prune: PruneRecipe, device: torch.device) -> DeviceFaces:
    """The training faces that a ranking is measured on, drawn by its seed and prepared as the network sees them."""
    train = dataset.split("train")
    rows = np.random.default_rng(prune.seed).permutation(len(train))[: prune.importance_rows]
    classes = recipe.model.classes
    return DeviceFaces.load(train.subset(np.sort(rows)), recipe.preprocess, recipe.loss, device, classes=classes)


def measure_ranking(
    judge: nn.Module, faces: DeviceFaces, recipe: TrainRecipe, prune: PruneRecipe, report: Reporter
) -> Ranking:
    """A ranking by the recipe's measure, of the model inside `judge`.

    Args:
        judge: a `FrameClassifier` or a `StillClassifier`, on the faces' device; left in evaluation mode.
        faces: what gradients are taken on.
        recipe: the training's own, for its precision.
        prune: the measure.
        report: told of progress.
    """
    if prune.importance not in _MEASURED:
        return Ranking(importance=prune.importance, seed=prune.seed)
    device, single = faces.images.device, prune.importance == "hessian"
    batches = list(in_batches(torch.arange(len(faces), device=device), 1 if single else _BATCH))
    judge.eval()
    for module in judge.modules():
        if isinstance(module, nn.LSTM):
            module.train()  # the same function, and the only mode whose gradient cuDNN gives
    named = {name[6:]: value for name, value in judge.named_parameters() if name.startswith("model.")}
    sums = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    for done, index in enumerate(batches, start=1):
        judge.zero_grad(set_to_none=True)
        with autocast(recipe.precision, device):
            logits = judge(faces.images[index])[0]
        nn.functional.cross_entropy(logits.float(), faces.targets[index]).backward()  # type: ignore[no-untyped-call]
        for name, parameter in named.items():
            if parameter.grad is not None:
                sums[name] += parameter.grad.square() if single else parameter.grad.abs()
        report.step("importance", done, len(batches))
    judge.zero_grad(set_to_none=True)
    judge.eval()
    slopes = {name: (total / len(batches)).cpu() for name, total in sums.items()}
    return Ranking(importance=prune.importance, slopes=slopes, seed=prune.seed)
