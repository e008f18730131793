"""One run of the study: a system, a seed, a data set; its predictions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.accuracy import softmax
from fer_edge.core.errors import require
from fer_edge.core.json import encode
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Int64, Progress
from fer_edge.data import Dataset, Role, leaked_rows
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.system_network import SystemNetwork, count_macs
from fer_edge.paper.systems import System
from fer_edge.train.augment import augment_faces, median_filter, mix_faces
from fer_edge.train.batches import DeviceFaces, batches, seeded
from fer_edge.train.device import autocast
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.loop import Loop, Task, no_progress
from fer_edge.train.losses import CentreLoss, class_weights, soft_cross_entropy
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe
from fer_edge.train.run_folder import data_facts, versions

__all__ = ["system_recipe", "train_system"]

_BATCH: Final = 512  # faces per forward pass without gradients


def system_recipe(system: System, base: TrainRecipe, seed: int) -> TrainRecipe:
    """Return the study's recipe with a system's seed, preprocessing, input size and losses."""
    size = system.input_size or base.preprocess.size
    preprocess = dataclasses.replace(
        base.preprocess,
        size=size,
        interpolation=base.preprocess.interpolation if size == base.preprocess.size else "cubic",
        median=system.median,
        normalisation=system.normalisation,
    )
    loss = base.loss if system.centre_loss else dataclasses.replace(base.loss, centre_weight=0.0)
    model = dataclasses.replace(base.model, input_size=size, token_grid=system.token_grid or base.model.token_grid)
    return dataclasses.replace(base, seed=seed, preprocess=preprocess, loss=loss, model=model)


def train_system(
    recipe: TrainRecipe,
    system: System,
    dataset: Dataset,
    *,
    device: torch.device,
    progress: Progress = no_progress,
) -> RunResult:
    """Train a system once and predict both held-out splits.

    The moving average of the last epoch is used; no epoch is chosen. A system with LDA or DenseNet block then trains
    these on contexts of augmented copies, with everything before them fixed.

    Args:
        recipe: of this system and seed (`system_recipe`).
        dataset: with the roles train and choose, and report where there is one.
        device: to train on.

    Raises:
        DataError: a split is missing.
        TrainingDiverged: the loss is not finite.
    """
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    network = SystemNetwork(system, recipe.model, dropout=recipe.loss.dropout)
    unfiltered = dataclasses.replace(recipe.preprocess, median=0)
    faces = DeviceFaces.load(dataset.split("train"), unfiltered, recipe.loss, device, classes=recipe.model.classes)
    network = (
        _loop(recipe, recipe.optimiser, faces, "frames", 1, progress).fit(_TrunkTask(network, faces, recipe)).module
    )
    machine = _fit_tail(network, system, faces, recipe, progress)
    network.eval()

    def predictions(role: Role) -> SplitPredictions:
        split = dataset.split(role)
        prepared = torch.from_numpy(np.array(prepare_stills(np.asarray(split.images), recipe.preprocess)))
        return SplitPredictions(
            split=split.name,
            labels=split.labels,
            probabilities=_predict(network, machine, prepared),
            leaked=leaked_rows(dataset, split),
            dataset=dataset.name,
            classes=dataset.expressions,
        )

    return RunResult(
        system=system.name,
        seed=recipe.seed,
        epochs=recipe.optimiser.epochs,
        seconds=round(time.monotonic() - started, 1),
        parameters=_parameters(network, machine),
        macs=None if machine is not None else count_macs(network, recipe.model.input_size),
        choose=predictions("choose"),
        report=predictions("report") if "report" in dataset.roles else None,
        settings={"recipe": encode(recipe), "data": data_facts(dataset), "versions": versions()},
    )


def _loop(
    recipe: TrainRecipe, spec: OptimiserSpec, faces: DeviceFaces, stage: str, key: int, progress: Progress
) -> Loop:
    """Return the training loop of a stage; `key` separates the random numbers of stages."""
    return Loop(
        spec=spec,
        seed=(recipe.seed, key),
        stage=stage,
        precision=recipe.precision if stage == "frames" else "fp32",
        device=faces.images.device,
        progress=progress,
    )


@torch.no_grad()
def _predict(network: SystemNetwork, machine: Any, prepared: Tensor) -> Float32:
    """Predict prepared faces, uint8 (N, S, S), in FP32: probabilities float32 (N, classes)."""
    device = next(network.parameters()).device
    found = []
    for part in torch.split(prepared, _BATCH):
        context = network.trunk(part.to(device))
        if machine is not None:
            found.append(np.asarray(machine.decision_function(context.cpu().numpy())))
        else:
            found.append(network.classify(context).float().cpu().numpy())
    return softmax(np.concatenate(found)).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _FaceBatch:
    images: Tensor
    targets: Tensor
    labels: Tensor


class _TrunkTask(Task[_FaceBatch]):
    """First stage: everything up to the context, in front of a linear classifier."""

    def __init__(self, network: SystemNetwork, faces: DeviceFaces, recipe: TrainRecipe) -> None:
        super().__init__(network)
        self._network, self._faces, self._recipe = network, faces, recipe
        classes, width = recipe.model.classes, network.temporary.in_features
        self._centres = CentreLoss(classes, width, rate=recipe.loss.centre_rate).to(faces.images.device)
        self._weights = class_weights(faces.labels, recipe.loss, classes)

    def parameters(self) -> Iterable[nn.Parameter]:
        return [*self._network.trunk.parameters(), *self._network.temporary.parameters()]

    def batches(self, epoch: int, generator: torch.Generator) -> tuple[int, Iterable[_FaceBatch]]:
        size = min(self._recipe.optimiser.batch_size, len(self._faces))
        indices = batches(len(self._faces), size, generator)
        return len(self._faces) // size, (self._batch(index, generator) for index in indices)

    def _batch(self, index: Tensor, generator: torch.Generator) -> _FaceBatch:
        augment, faces = self._recipe.augment, self._faces
        images = augment_faces(faces.images[index], augment, generator)
        images, targets = mix_faces(images, faces.targets[index], augment, generator)
        images = median_filter(images, self._recipe.preprocess.median)
        return _FaceBatch(images=images, targets=targets, labels=faces.labels[index])

    def loss(self, batch: _FaceBatch) -> tuple[Tensor, Tensor]:
        logits, context = self.module(batch.images)
        value = soft_cross_entropy(logits, batch.targets, self._weights)
        if self._recipe.loss.centre_weight:
            value = value + self._recipe.loss.centre_weight * self._centres(context, batch.labels)
        return value, context.detach()

    def after_step(self, batch: _FaceBatch, output: Tensor) -> None:
        self._centres.update(output.float(), batch.labels)


def _fit_tail(
    network: SystemNetwork, system: System, faces: DeviceFaces, recipe: TrainRecipe, progress: Progress
) -> Any:
    """Train what follows the fixed contexts; return the support vector machine of a system that has one."""
    network.eval()
    if system.classifier == "svm":
        contexts = _contexts(network, faces, recipe, 1, progress)
        return _support_vectors(contexts[0].cpu().numpy(), faces.labels.cpu().numpy())
    tail = network.tail
    if tail is None:
        return None
    contexts = _contexts(network, faces, recipe, recipe.sequence.copies, progress)
    if tail.lda is not None:
        fit_discriminants(tail.lda, contexts.flatten(0, 1), faces.labels.repeat(len(contexts)))
    spec = dataclasses.replace(
        recipe.optimiser,
        epochs=recipe.sequence.classifier_epochs,
        learning_rate=recipe.sequence.classifier_rate,
        warmup_epochs=0.1,
        batch_size=recipe.sequence.batch_size,
        ema_decay=0.0,  # as in the product's sequence head
    )
    _loop(recipe, spec, faces, "classifier", 3, progress).fit(_TailTask(tail, contexts, faces, recipe, spec))
    return None


@torch.no_grad()
def _contexts(
    network: SystemNetwork, faces: DeviceFaces, recipe: TrainRecipe, copies: int, progress: Progress
) -> Tensor:
    """Return contexts float32 (copies, N, W): of the unchanged training faces, then of augmented copies."""
    generator = seeded(faces.images.device, recipe.seed, 2)
    rows: list[Tensor] = []
    parts = torch.split(faces.images, _BATCH)
    for copy in range(copies):
        for part in parts:
            images = augment_faces(part, recipe.augment, generator) if copy else part
            with autocast(recipe.precision, images.device):
                rows.append(network.trunk(median_filter(images, recipe.preprocess.median)).float())
            progress("features", len(rows), copies * len(parts))
    return torch.cat(rows).reshape(copies, len(faces), -1)


class _TailTask(Task["tuple[Tensor, Tensor]"]):
    """Second stage: what follows the contexts, float32 (copies, N, W); each row of a batch comes from a random copy."""

    def __init__(
        self, tail: nn.Module, contexts: Tensor, faces: DeviceFaces, recipe: TrainRecipe, spec: OptimiserSpec
    ) -> None:
        super().__init__(tail)
        self._contexts, self._faces, self._batch_size = contexts, faces, spec.batch_size
        self._weights = class_weights(faces.labels, recipe.loss, recipe.model.classes)

    def batches(self, epoch: int, generator: torch.Generator) -> tuple[int, Iterable[tuple[Tensor, Tensor]]]:
        size = min(self._batch_size, len(self._faces))
        indices = batches(len(self._faces), size, generator)
        return len(self._faces) // size, (self._batch(index, generator) for index in indices)

    def _batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        copy = torch.randint(len(self._contexts), (len(index),), generator=generator, device=index.device)
        return index, self._contexts[copy, index]

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        index, contexts = batch
        return soft_cross_entropy(self.module(contexts), self._faces.targets[index], self._weights), None


def _parameters(network: SystemNetwork, machine: Any) -> int:
    """Count the numbers that the trained system predicts with."""
    unused = network.temporary if network.tail is not None or machine is not None else None
    total = sum(parameter.numel() for parameter in network.parameters())
    total -= 0 if unused is None else sum(parameter.numel() for parameter in unused.parameters())
    if network.tail is not None and network.tail.lda is not None:
        total += network.tail.lda.projection.numel() + network.tail.lda.mean.numel()
    if machine is not None:
        vectors = machine[-1]
        total += vectors.support_vectors_.size + vectors.dual_coef_.size + vectors.intercept_.size
    return int(total)


def _support_vectors(contexts: Float32, labels: Int64) -> Any:
    """Fit a radial-basis support vector machine on standardised contexts, with scikit-learn's defaults."""
    svm, pipeline, preprocessing = (
        require(f"sklearn.{name}", needed_by="the system CNN-SVM", extra="train")
        for name in ("svm", "pipeline", "preprocessing")
    )
    return pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC(cache_size=500)).fit(contexts, labels)
