"""One run of the study: a system, a seed, a data set; its weights and its predictions."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, require
from fer_edge.core.json import encode
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import softmax
from fer_edge.core.preprocess import PreprocessSpec, prepare_stills
from fer_edge.core.types import Float32, Int64, Progress, Uint8
from fer_edge.data import Dataset, Role, leaked_rows
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.system_network import SystemNetwork, count_macs
from fer_edge.paper.systems import System
from fer_edge.train.augment import augment_faces, median_filter, mix_faces
from fer_edge.train.batches import DeviceFaces, batches, seeded
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.distributed import autocast
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.loop import learning_rate, no_progress
from fer_edge.train.losses import CentreLoss, class_weights, soft_cross_entropy
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe
from fer_edge.train.run_folder import data_facts, versions

__all__ = ["TrainedSystem", "fit_on_features", "system_recipe", "train_system"]

_BATCH: Final = 512  # faces at once where nothing is learnt


def system_recipe(system: System, base: TrainRecipe, seed: int) -> TrainRecipe:
    """The study's recipe as it holds for one system: its seed, preprocessing, size and losses."""
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
    """A finished system, ready to predict.

    Attributes:
        network: in evaluation mode.
        preprocess: what its faces pass through first.
        machine: the fitted support vector machine of a system that has one.
        expressions: what its outputs mean.
    """

    network: SystemNetwork
    preprocess: PreprocessSpec
    machine: Any = None
    expressions: tuple[str, ...] = EXPRESSIONS

    def predict(self, faces: Uint8) -> Float32:
        """uint8 (N, H, W) grey faces -> probabilities float32 (N, classes), computed in FP32."""
        prepared = torch.from_numpy(np.array(prepare_stills(np.asarray(faces), self.preprocess)))
        return self.predict_prepared(prepared)

    @torch.no_grad()
    def predict_prepared(self, prepared: Tensor) -> Float32:
        """uint8 (N, S, S), resized and filtered -> probabilities float32 (N, classes)."""
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
        """Read the weights that `train_system` left; not for a system with a support vector machine.

        Raises:
            InputError: no such file, a damaged one, or one of another shape.
        """
        if system.classifier == "svm":
            raise InputError(f"{system.name} keeps no weights: its support vector machine is fitted anew in every run")
        recipe = system_recipe(system, base, 0)
        network = SystemNetwork(system, recipe.model, dropout=0.0)
        tensors, _ = load_checkpoint(path)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(f"{path} holds another network than {system.name}: {error}") from error
        return cls(network=network.eval(), preprocess=recipe.preprocess)


def train_system(
    system: System,
    seed: int,
    base: TrainRecipe,
    dataset: Dataset,
    *,
    device: torch.device,
    weights: Path | None = None,
    init: TrainedSystem | None = None,
    report: Progress | None = None,
) -> RunResult:
    """Train a system once and predict both held-out splits.

    The weights of the last epoch count. Where the system has parts behind its context, the context then stands still:
    LDA is fitted on contexts of augmented copies, and the rest is trained on those.

    Args:
        system: what to train.
        seed: of weights, order, augmentation.
        base: the study's recipe.
        dataset: with splits to train, choose and, where there is one, report on.
        device: to train on.
        weights: where the finished weights are kept; nowhere by default.
        init: a finished system whose weights up to the context are the starting point, instead of random ones; so are
            those of its first classifier, where both tell the same expressions apart.
        report: told of progress.

    Raises:
        InputError: a split is missing, or the loss is no longer finite.
        OutputError: the weights cannot be written.
    """
    recipe, started = system_recipe(system, base, seed), time.monotonic()
    torch.manual_seed(seed)
    network = SystemNetwork(system, recipe.model, dropout=recipe.loss.dropout)
    if init is not None:
        network.trunk.load_state_dict(init.network.trunk.state_dict())
        if init.expressions == dataset.expressions:
            network.temporary.load_state_dict(init.network.temporary.state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    unfiltered = dataclasses.replace(recipe.preprocess, median=0)
    faces = DeviceFaces.load(dataset.split("train"), unfiltered, recipe.loss, device, classes=recipe.model.classes)
    training = _Training(network=network, faces=faces, recipe=recipe, report=report or no_progress)
    training.fit_trunk()
    machine = training.fit_behind(system)
    trained = TrainedSystem(
        network=network.eval(), preprocess=recipe.preprocess, machine=machine, expressions=dataset.expressions
    )
    if weights is not None and machine is None:
        save_checkpoint(weights, network.state_dict(), {"system": system.name, "recipe": encode(recipe)})
    seconds = round(time.monotonic() - started, 1)
    return RunResult(
        system=system.name,
        seed=seed,
        epochs=recipe.optimiser.epochs,
        best_epoch=None,
        seconds=seconds,
        parameters=_parameters(network, machine),
        macs=None if machine is not None else count_macs(network, recipe.model.input_size),
        choose=_predictions(trained, dataset, "choose"),
        report=_predictions(trained, dataset, "report") if "report" in dataset.roles else None,
        settings={"recipe": encode(recipe), "data": data_facts(dataset), "versions": versions()},
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
    """Numbers that the finished system predicts with."""
    unused = network.temporary if network.tail is not None or machine is not None else None
    total = sum(parameter.numel() for parameter in network.parameters())
    total -= 0 if unused is None else sum(parameter.numel() for parameter in unused.parameters())
    if network.tail is not None and network.tail.lda is not None:
        total += network.tail.lda.projection.numel() + network.tail.lda.mean.numel()
    if machine is not None:
        vectors = machine[-1]
        total += vectors.support_vectors_.size + vectors.dual_coef_.size + vectors.intercept_.size
    return int(total)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Training:
    network: SystemNetwork
    faces: DeviceFaces
    recipe: TrainRecipe
    report: Progress

    def fit_trunk(self) -> None:
        """First stage: everything up to the context, in front of a linear classifier."""
        recipe, network, device = self.recipe, self.network, self.faces.images.device
        spec, loss = recipe.optimiser, recipe.loss
        moving = [*network.trunk.parameters(), *network.temporary.parameters()]
        optimiser = _optimiser(moving, spec)
        width = network.temporary.in_features
        centres = CentreLoss(recipe.model.classes, width, rate=loss.centre_rate).to(device)
        balance = class_weights(self.faces.labels, loss, recipe.model.classes)
        size = min(spec.batch_size, len(self.faces))
        per_epoch = len(self.faces) // size
        for epoch in range(spec.epochs):
            network.train()
            generator = seeded(device, recipe.seed, 1, epoch)
            total = torch.zeros((), device=device)
            for step, index in enumerate(batches(len(self.faces), size, generator)):
                done = epoch * per_epoch + step
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(spec, done, per_epoch)
                images = augment_faces(self.faces.images[index], recipe.augment, generator)
                images, targets = mix_faces(images, self.faces.targets[index], recipe.augment, generator)
                labels = self.faces.labels[index]
                with autocast(recipe.precision, device):
                    logits, context = network(median_filter(images, recipe.preprocess.median))
                    value = soft_cross_entropy(logits, targets, balance)
                if loss.centre_weight:
                    value = value + loss.centre_weight * centres(context, labels)
                    centres.update(context.detach().float(), labels)
                _step(value, optimiser, moving, spec)
                total += value.detach()
                self.report("frames", done + 1, spec.epochs * per_epoch)
            if not math.isfinite(float(total)):
                raise InputError(f"the loss became {float(total)} in epoch {epoch + 1}; lower the learning rate")

    def fit_behind(self, system: System) -> Any:
        """Second stage, on contexts that stand still. Returns the support vector machine, where there is one."""
        self.network.eval()
        if system.classifier == "svm":
            contexts = self._contexts(copies=1)
            return _support_vectors(contexts[0].cpu().numpy(), self.faces.labels.cpu().numpy())
        tail = self.network.tail
        if tail is None:
            return None
        contexts = self._contexts(copies=self.recipe.sequence.copies)
        if tail.lda is not None:
            fit_discriminants(tail.lda, contexts.flatten(0, 1), self.faces.labels.repeat(len(contexts)))
        self._fit_tail(tail, contexts)
        return None

    @torch.no_grad()
    def _contexts(self, *, copies: int) -> Tensor:
        """float32 (copies, N, W): contexts of the training faces, the first copy as they are, the others augmented."""
        generator = seeded(self.faces.images.device, self.recipe.seed, 2)
        rows: list[Tensor] = []
        parts = torch.split(self.faces.images, _BATCH)
        for copy in range(copies):
            for step, part in enumerate(parts):
                images = augment_faces(part, self.recipe.augment, generator) if copy else part
                with autocast(self.recipe.precision, images.device):
                    found = self.network.trunk(median_filter(images, self.recipe.preprocess.median))
                rows.append(found.float())
                self.report("features", copy * len(parts) + step + 1, copies * len(parts))
        return torch.cat(rows).reshape(copies, len(self.faces), -1)

    def _fit_tail(self, tail: nn.Module, contexts: Tensor) -> None:
        def logits(index: Tensor, generator: torch.Generator) -> Tensor:
            copy = torch.randint(len(contexts), (len(index),), generator=generator, device=contexts.device)
            found: Tensor = tail(contexts[copy, index])
            return found

        tail.train()
        fit_on_features(logits, list(tail.parameters()), self.faces, self.recipe, report=self.report)


def fit_on_features(
    logits: Callable[[Tensor, torch.Generator], Tensor],
    moving: list[nn.Parameter],
    faces: DeviceFaces,
    recipe: TrainRecipe,
    *,
    report: Progress,
    spec: OptimiserSpec | None = None,
    stage: str = "classifier",
    key: int = 3,
) -> None:
    """Train what stands behind features that stand still.

    Args:
        logits: from the rows of a batch, int64 (B,), and a generator for what is random: logits (B, classes).
        moving: what is trained.
        faces: their labels and targets.
        recipe: seed, losses, batch size; and epochs and rate, where no `spec` is given.
        report: told of progress.
        spec: epochs, rate and warm-up.
        stage: as `report` is told.
        key: of the random order, another for every stage.
    """
    device, sequence = faces.labels.device, recipe.sequence
    if spec is None:
        spec = dataclasses.replace(
            recipe.optimiser,
            epochs=sequence.classifier_epochs,
            learning_rate=sequence.classifier_rate,
            warmup_epochs=0.1,
            batch_size=sequence.batch_size,
        )
    optimiser = _optimiser(moving, spec)
    balance = class_weights(faces.labels, recipe.loss, recipe.model.classes)
    size = min(spec.batch_size, len(faces))
    per_epoch = len(faces) // size
    for epoch in range(spec.epochs):
        generator = seeded(device, recipe.seed, key, epoch)
        for step, index in enumerate(batches(len(faces), size, generator)):
            done = epoch * per_epoch + step
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(spec, done, per_epoch)
            value = soft_cross_entropy(logits(index, generator), faces.targets[index], balance)
            _step(value, optimiser, moving, spec)
            report(stage, done + 1, spec.epochs * per_epoch)


def _optimiser(moving: list[nn.Parameter], spec: OptimiserSpec) -> torch.optim.AdamW:
    groups = [
        {"params": [each for each in moving if each.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [each for each in moving if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


def _step(value: Tensor, optimiser: torch.optim.Optimizer, moving: list[nn.Parameter], spec: OptimiserSpec) -> None:
    optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(moving, spec.clip_norm)
    optimiser.step()


def _support_vectors(contexts: Float32, labels: Int64) -> Any:
    """A radial-basis support vector machine on standardised contexts, scikit-learn's defaults."""
    svm = require("sklearn.svm", needed_by="the system CNN-SVM", extra="train")
    pipeline = require("sklearn.pipeline", needed_by="the system CNN-SVM", extra="train")
    preprocessing = require("sklearn.preprocessing", needed_by="the system CNN-SVM", extra="train")
    return pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC(cache_size=500)).fit(contexts, labels)
