"""Importance measures: how filters and hidden units are ranked for pruning.

group-norm   L2 norm of all weights that write or read a filter (Fang et al. 2023, arXiv 2301.12900)
bn-scale     scale of the batch normalisation behind it (Liu et al. 2017, arXiv 1708.06519)
taylor       |weight x gradient|, the first-order change of the loss (Molchanov et al. 2019, arXiv 1906.10771)
hessian      weight^2 x Hessian's diagonal, the second order of Optimal Brain Damage (LeCun et al. 1990); the diagonal
             is the mean square of single rows' gradients, the empirical Fisher's
random       the control

Torch-Pruning ranks the CNN's filters by all five. The gradients are measured here, and the BiLSTMs' hidden units, which
Torch-Pruning cannot follow, are ranked by the same measure of their weights.
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
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.train.batches import DeviceFaces, in_batches
from fer_edge.train.distributed import autocast
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.recipe import Importance, PruneRecipe, TrainRecipe

__all__ = ["Ranking", "measure_ranking", "ranking_faces"]

_BATCH: Final = 64
"""Faces of one first-order gradient."""

_BY_GRADIENT: Final = ("taylor", "hessian")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """An importance measure with the gradients that it needs.

    Attributes:
        importance: the measure.
        gradients: by parameter of the model; for ``taylor`` the mean absolute gradient over batches, for ``hessian``
            the mean squared gradient over rows; empty for the others.
        seed: of the random measure.

    Raises:
        InputError: a measure by gradient without gradients.
    """

    importance: Importance
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.importance in _BY_GRADIENT and not self.gradients:
            raise InputError(f"importance {self.importance!r}: got no gradients; take them with measure_ranking")

    def of_filters(self, cnn: nn.Module, *, prefix: str) -> Any:
        """Return Torch-Pruning's measure for the filters of a copy of the CNN.

        Args:
            cnn: the copy; its parameters' gradients are set.
            prefix: of its parameters' names in the model.
        """
        pruning: ModuleType = require("torch_pruning", needed_by="fer-edge prune", extra="train")
        for name, parameter in cnn.named_parameters():
            gradient = self.gradients.get(prefix + name)
            parameter.grad = None if gradient is None else gradient.to(parameter).clone()
        torch.manual_seed(self.seed)  # the random measure draws from the global generator
        measures = {
            "group-norm": lambda: pruning.importance.GroupMagnitudeImportance(p=2),
            "bn-scale": pruning.importance.BNScaleImportance,
            "taylor": pruning.importance.GroupTaylorImportance,
            # Its own accumulate_grad keeps only the last row (1.6.1 looks a parameter up by its name): not called.
            "hessian": pruning.importance.GroupHessianImportance,
            "random": pruning.importance.RandomImportance,
        }
        return measures[self.importance]()

    def of_weights(self, state: Mapping[str, Tensor], name: str) -> Tensor:
        """Return the importance of each element of a weight, as a share of the whole: float (...), sums to one.

        Hidden units have no batch normalisation: ``bn-scale`` uses the norm.
        """
        weight = state[name]
        if self.importance == "random":
            generator = torch.Generator().manual_seed(self.seed + sum(name.encode()))
            scores = torch.rand(weight.shape, generator=generator)
        elif self.importance in _BY_GRADIENT:
            gradient = self.gradients[name].to(weight)
            scores = gradient * (weight.abs() if self.importance == "taylor" else weight.square())
        else:
            scores = weight.square()
        return scores / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny)


def ranking_faces(dataset: Dataset, recipe: TrainRecipe, prune: PruneRecipe, device: torch.device) -> DeviceFaces:
    """Draw the training faces that a ranking is measured on."""
    train = dataset.split("train")
    rows = np.random.default_rng(prune.seed).permutation(len(train))[: prune.importance_rows]
    return DeviceFaces.of(train.subset(np.sort(rows)), recipe, device)


def measure_ranking(
    classifier: FrameClassifier, faces: DeviceFaces, recipe: TrainRecipe, prune: PruneRecipe, progress: Progress
) -> Ranking:
    """Rank the filters and units of a classifier's model by the recipe's measure.

    Args:
        classifier: on the faces' device; left in evaluation mode.
        faces: to take gradients on.
        recipe: the training's own, for its precision.
        prune: the measure.
    """
    if prune.importance not in _BY_GRADIENT:
        return Ranking(importance=prune.importance, seed=prune.seed)
    device, single = faces.images.device, prune.importance == "hessian"
    batches = list(in_batches(torch.arange(len(faces), device=device), 1 if single else _BATCH))
    classifier.eval()
    for module in classifier.modules():
        if isinstance(module, nn.LSTM):
            module.train()  # the same function; cuDNN gives gradients in training mode only
    parameters = dict(classifier.model.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for done, index in enumerate(batches, start=1):
        classifier.zero_grad(set_to_none=True)
        with autocast(recipe.precision, device):
            logits = classifier(faces.images[index]).logits
        nn.functional.cross_entropy(logits.float(), faces.targets[index]).backward()  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                sums[name] += parameter.grad.square() if single else parameter.grad.abs()
        progress("importance", done, len(batches))
    classifier.zero_grad(set_to_none=True)
    classifier.eval()
    gradients = {name: (total / len(batches)).cpu() for name, total in sums.items()}
    return Ranking(importance=prune.importance, gradients=gradients, seed=prune.seed)
