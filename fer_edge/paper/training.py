"""One run of the study: a system, a seed, a data set; its weights and its predictions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.accuracy import softmax
from fer_edge.core.errors import InputError, require
from fer_edge.core.json import encode
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data import Dataset, Role, leaked_rows
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.system_network import SystemNetwork, count_macs
from fer_edge.paper.systems import System
from fer_edge.train.augment import augment_faces, median_filter, mix_faces
from fer_edge.train.batches import DeviceFaces, batches, seeded
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.distributed import Processes, autocast
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.loop import Loop, Task, no_progress
from fer_edge.train.losses import CentreLoss, class_weights, soft_cross_entropy
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe
from fer_edge.train.run_folder import data_facts, versions

__all__ = ["FeatureTask", "TrainedSystem", "classifier_spec", "system_recipe", "train_system"]

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


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedSystem:
    """A trained system, ready to predict.

    Attributes:
        network: in evaluation mode.
        preprocess: applied to faces first.
        machine: the fitted support vector machine of a system that has one.
        expressions: classes in output order.
    """

    network: SystemNetwork
    preprocess: PreprocessSpec
    machine: Any = None
    expressions: tuple[str, ...] = EXPRESSIONS

    def predict(self, faces: Uint8) -> Float32:
        """Predict uint8 (N, H, W) grey faces in FP32: probabilities float32 (N, classes)."""
        prepared = torch.from_numpy(np.array(prepare_stills(np.asarray(faces), self.preprocess)))
        return self.predict_prepared(prepared)

    @torch.no_grad()
    def predict_prepared(self, prepared: Tensor) -> Float32:
        """Predict prepared faces, uint8 (N, S, S), resized and filtered: probabilities float32 (N, classes)."""
        device = next(self.network.parameters()).device
        found = []
        for part in torch.split(prepared, _BATCH):
            context = self.network.trunk(part.to(device))
            if self.machine is not None:
                found.append(np.asarray(self.machine.decision_function(context.cpu().numpy())))
            else:
                found.append(self.network.classify(context).float().cpu().numpy())
        return softmax(np.concatenate(found)).astype(np.float32)

    @classmethod
    def load(cls, path: Path, system: System, base: TrainRecipe) -> TrainedSystem:
        """Read the weights that `train_system` wrote; a support vector machine is not stored.

        Raises:
            InputError: no such file, a damaged one, or one of another shape.
        """
        if system.classifier == "svm":
            raise InputError(f"{system.name} keeps no weights: its support vector machine is fitted in every run")
        recipe = system_recipe(system, base, 0)
        network = SystemNetwork(system, recipe.model, dropout=0.0)
        tensors, _ = load_checkpoint(path)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(f"{path}: got another network, expected {system.name} ({error})") from error
        return cls(network=network.eval(), preprocess=recipe.preprocess)


def train_system(
    recipe: TrainRecipe,
    system: System,
    dataset: Dataset,
    *,
    device: torch.device,
    weights: Path | None = None,
    init: TrainedSystem | None = None,
    progress: Progress = no_progress,
) -> RunResult:
    """Train a system once and predict both held-out splits.

    The moving average of the last epoch is used; no epoch is chosen. A system with LDA or DenseNet block then trains
    these on contexts of augmented copies, with everything before them fixed.

    Args:
        recipe: of this system and seed (`system_recipe`).
        dataset: with the roles train and choose, and report where there is one.
        device: to train on.
        weights: file for the trained weights; None writes none.
        init: a trained system; its weights up to the context are the initialisation, and those of its first classifier
            where both have the same classes.

    Raises:
        DataError: a split is missing.
        TrainingDiverged: the loss is not finite.
        OutputError: the weights cannot be written.
    """
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    network = SystemNetwork(system, recipe.model, dropout=recipe.loss.dropout)
    if init is not None:
        network.trunk.load_state_dict(init.network.trunk.state_dict())
        if init.expressions == dataset.expressions:
            network.temporary.load_state_dict(init.network.temporary.state_dict())
    unfiltered = dataclasses.replace(recipe.preprocess, median=0)
    faces = DeviceFaces.load(dataset.split("train"), unfiltered, recipe.loss, device, classes=recipe.model.classes)
    peers = Processes(rank=0, world=1, device=device)
    loop = Loop(
        spec=recipe.optimiser,
        seed=(recipe.seed, 1),
        stage="frames",
        precision=recipe.precision,
        peers=peers,
        progress=progress,
    )
    network = loop.fit(_TrunkTask(network, faces, recipe)).module
    machine = _fit_tail(network, system, faces, recipe, progress)
    trained = TrainedSystem(
        network=network.eval(), preprocess=recipe.preprocess, machine=machine, expressions=dataset.expressions
    )
    if weights is not None and machine is None:
        save_checkpoint(weights, network.state_dict(), {"system": system.name, "recipe": encode(recipe)})
    return RunResult(
        system=system.name,
        seed=recipe.seed,
        epochs=recipe.optimiser.epochs,
        best_epoch=None,
        seconds=round(time.monotonic() - started, 1),
        parameters=_parameters(network, machine),
        macs=None if machine is not None else count_macs(network, recipe.model.input_size),
        choose=_predictions(trained, dataset, "choose"),
        report=_predictions(trained, dataset, "report") if "report" in dataset.roles else None,
        settings={"recipe": encode(recipe), "data": data_facts(dataset), "versions": versions()},
    )


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

    def loss(self, model: nn.Module, batch: _FaceBatch) -> tuple[Tensor, Tensor]:
        logits, context = model(batch.images)
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
    task = FeatureTask(module=tail, features=contexts, faces=faces, recipe=recipe, spec=classifier_spec(recipe))
    task.fit(stage="classifier", key=3, progress=progress)
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


@dataclass(kw_only=True, eq=False)
class FeatureTask(Task["tuple[Tensor, tuple[Tensor, ...]]"]):
    """Trains layers on the fixed features in front of them.

    Attributes:
        module: whose mode is set to training.
        features: float32 (copies, N, ...); each row of a batch comes from a random copy.
        faces: their labels and targets.
        recipe: seed, losses and precision.
        spec: epochs, learning rate, batch size; without moving average, as in the product's sequence head.
        logits: maps features of a batch (and `extra`) to logits; `module` by default.
        moving: the trained parameters; all of the module by default.
        extra: further inputs of `logits`, (N, ...) each.
    """

    module: nn.Module
    features: Tensor
    faces: DeviceFaces
    recipe: TrainRecipe
    spec: OptimiserSpec
    logits: Callable[..., Tensor] | None = None
    moving: Sequence[nn.Parameter] = ()
    extra: tuple[Tensor, ...] = ()

    def fit(self, *, stage: str, key: int, progress: Progress) -> None:
        """Train in place; `key` separates the random numbers of stages."""
        self._weights = class_weights(self.faces.labels, self.recipe.loss, self.recipe.model.classes)
        loop = Loop(
            spec=dataclasses.replace(self.spec, ema_decay=0.0),
            seed=(self.recipe.seed, key),
            stage=stage,
            precision="fp32",
            peers=Processes(rank=0, world=1, device=self.features.device),
            progress=progress,
        )
        loop.fit(self)

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.moving or self.module.parameters()

    def batches(
        self, epoch: int, generator: torch.Generator
    ) -> tuple[int, Iterable[tuple[Tensor, tuple[Tensor, ...]]]]:
        size = min(self.spec.batch_size, len(self.faces))
        indices = batches(len(self.faces), size, generator)
        return len(self.faces) // size, (self._batch(index, generator) for index in indices)

    def _batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, ...]]:
        copy = torch.randint(len(self.features), (len(index),), generator=generator, device=index.device)
        return index, (self.features[copy, index], *(each[index] for each in self.extra))

    def loss(self, model: nn.Module, batch: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, Any]:
        index, inputs = batch
        found = (self.logits or model)(*inputs)
        return soft_cross_entropy(found, self.faces.targets[index], self._weights), None


def classifier_spec(recipe: TrainRecipe) -> OptimiserSpec:
    """Return the optimiser settings of what follows the LDA."""
    return dataclasses.replace(
        recipe.optimiser,
        epochs=recipe.sequence.classifier_epochs,
        learning_rate=recipe.sequence.classifier_rate,
        warmup_epochs=0.1,
        batch_size=recipe.sequence.batch_size,
    )


def _predictions(trained: TrainedSystem, dataset: Dataset, role: Role) -> SplitPredictions:
    split = dataset.split(role)
    return SplitPredictions(
        split=split.name,
        labels=split.labels,
        probabilities=trained.predict(np.asarray(split.images)),
        leaked=leaked_rows(dataset, split),
        dataset=dataset.name,
        classes=dataset.expressions,
    )


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
