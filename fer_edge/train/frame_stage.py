"""First stage: the frame encoder, with the head's context at T = 1 and a temporary classifier.

Also the fine-tuning of a pruned model, which is the same stage on other weights with its unpruned parent as teacher.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fer_edge.core.errors import InputError
from fer_edge.model.deploy import folded
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.augment import augment_faces, median_filter, mix_faces
from fer_edge.train.batches import DeviceFaces, in_batches, seeded
from fer_edge.train.checkpoint import (
    join,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    split,
)
from fer_edge.train.distillation import Lesson, Sight, StudentSight, Teachers, followed_logits, taught_parts
from fer_edge.train.distributed import Processes, autocast
from fer_edge.train.instance_selection import RowChoice
from fer_edge.train.losses import (
    CentreLoss,
    class_weights,
    decoupled_losses,
    distillation_losses,
    feature_losses,
    region_losses,
    soft_cross_entropies,
)
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import LossSpec, OptimiserSpec, TrainRecipe
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.sam import sam_ascent
from fer_edge.train.teacher_cache import View, ViewBank

__all__ = [
    "Batch",
    "FrameClassifier",
    "FrameStage",
    "StillClassifier",
    "frame_predictions",
    "scheduled_rate",
    "single_contexts",
]


def single_contexts(model: AttentionCnnBiLstm, features: Tensor) -> Tensor:
    """Contexts of single frames: features (N, F) -> (N, F)."""
    length = torch.ones(len(features), dtype=torch.int64, device=features.device)
    context, _ = model.head.context(features.unsqueeze(1), length)
    return context


class FrameClassifier(nn.Module):
    """Encoder, head context at T = 1, temporary classifier: one module, so that data parallelism sees one forward."""

    def __init__(self, model: AttentionCnnBiLstm, temporary: nn.Linear, *, dropout: float) -> None:
        super().__init__()
        self.model = model
        self.temporary = temporary
        self.dropout = nn.Dropout(dropout)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, S, S) -> logits (B, classes) and context (B, F)."""
        return self.read(self.model.encoder(faces)[0])

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Single frames' features (N, F) -> logits (N, classes) and contexts (N, F)."""
        context = single_contexts(self.model, features)
        return self.temporary(self.dropout(context)), context

    def classify(self, features: Tensor) -> Tensor:
        """Single frames' features (N, F) -> logits (N, classes)."""
        return self.read(features)[0]


class StillClassifier(nn.Module):
    """The whole network at T = 1, its own head in the temporary classifier's place: what a bundle can teach with."""

    def __init__(self, model: AttentionCnnBiLstm) -> None:
        super().__init__()
        self.model = model

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, S, S) -> logits (B, classes) and context (B, F)."""
        return self.read(self.model.encoder(faces)[0])

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Single frames' features (N, F) -> logits (N, classes) and contexts (N, F)."""
        context = single_contexts(self.model, features)
        return self.model.head.classify(context), context

    def classify(self, features: Tensor) -> Tensor:
        """Single frames' features (N, F) -> logits (N, classes)."""
        return self.read(features)[0]


def scheduled_rate(spec: OptimiserSpec, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to a hundredth of the peak."""
    warmup = max(1, round(spec.warmup_epochs * steps_per_epoch))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, spec.epochs * steps_per_epoch - warmup)
    return spec.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _optimiser(module: nn.Module, spec: OptimiserSpec) -> torch.optim.AdamW:
    matrices = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's part of a step.

    Attributes:
        faces: uint8 (B, S, S), as the network is to see them.
        targets: float32 (B, classes).
        lesson: what the teachers say of these faces, where there are teachers.
        mixed: whether every face is mixed with another.
    """

    faces: Tensor
    targets: Tensor
    lesson: Lesson | None = None
    mixed: bool = False


def _followed(logits: Tensor, lesson: Lesson, labels: Tensor, spec: LossSpec) -> Tensor:
    """Every row's divergence from the teachers' probabilities."""
    if spec.distil_form == "dkd":
        return decoupled_losses(logits, lesson.logits, labels, spec.distil_temperature, spec.distil_beta)
    return distillation_losses(logits, lesson.logits, spec.distil_temperature)


def _transferred(sight: Sight, lesson: Lesson, spec: LossSpec) -> Tensor:
    """What every row pays for seeing otherwise than the teachers; nothing for what they were not asked."""
    paid = 0 * sight.features.float().sum(
        dim=1
    )  # the adapter has a gradient at every step, as data parallelism expects
    if lesson.features is not None:
        paid = paid + spec.distil_features * feature_losses(sight.features, lesson.features)
    if lesson.regions is not None:
        paid = paid + spec.distil_regions * region_losses(sight.regions, lesson.regions)
    if lesson.maps is not None:
        paid = paid + spec.distil_maps * feature_losses(sight.maps, lesson.maps)
    return paid


@dataclass(kw_only=True)
class FrameStage:
    """The stage's moving parts; `fit` runs it to its end, from the start or from a checkpoint."""

    run: TrainRun
    spec: OptimiserSpec
    module: FrameClassifier
    peers: Processes
    teachers: Teachers | None = None
    after_step: Callable[[], None] | None = None  # puts weights right that a step has moved and may not

    def __post_init__(self) -> None:
        recipe, device = self.run.recipe, self.peers.device
        if self.spec.batch_size % self.peers.world:
            raise InputError(f"batch_size {self.spec.batch_size} is not a multiple of the {self.peers.world} processes")
        self.module.to(device)
        self.module.model.encoder.cnn.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean = get_ema_multi_avg_fn(self.spec.ema_decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.module, multi_avg_fn=mean, use_buffers=True)
        for parameter in self.module.model.head.reconstruction.parameters():
            parameter.requires_grad_(False)
        for parameter in self.module.model.head.classifier.parameters():
            parameter.requires_grad_(False)
        self.learner: StudentSight | FrameClassifier = self.module
        if self.teachers is not None:
            self.teachers.expect_fit(recipe.model, recipe.loss)
            self.teachers.to(device)
            if len(taught_parts(recipe.loss)) > 1:
                width = self.teachers.feature_size if recipe.loss.distil_features else 0
                self.learner = StudentSight(self.module, width=width).to(device)
        self.optimiser = _optimiser(self.learner, self.spec)
        self.centres = CentreLoss(recipe.model.classes, recipe.model.feature_size, rate=recipe.loss.centre_rate).to(
            device
        )
        self.parallel: nn.Module = self.learner
        if self.peers.world > 1:
            self.parallel = nn.parallel.DistributedDataParallel(
                self.learner, device_ids=[device.index] if device.type == "cuda" else None
            )
        self.choice: RowChoice | None = None
        self.bank: ViewBank | None = None
        self.epoch = 0
        self.best: dict[str, Any] = {"score": -1.0, "epoch": 0}
        self.best_tensors: dict[str, Tensor] = {}

    def fit(self, train: DeviceFaces, choose: DeviceFaces, kept: Tensor, report: Reporter) -> FrameClassifier:
        """Train to the last epoch and return the averaged weights of the epoch that was best on `choose`.

        Args:
            train: the training split.
            choose: the split that epochs are chosen on.
            kept: bool (N,), rows of `choose` that do not also stand in `train`.
            report: told of progress after every step and epoch.
        """
        if self.peers.world > 1:
            torch.distributed.barrier()
        self.choice = RowChoice(len(train), skip=self.spec.skip_easy, device=self.peers.device)
        self._restore()
        if self.teachers is not None and self.run.recipe.loss.distil_views:
            self.bank = ViewBank(teachers=self.teachers, train=train, recipe=self.run.recipe, peers=self.peers)
        weights = class_weights(train.labels, self.run.recipe.loss, self.run.recipe.model.classes)
        while self.epoch < self.spec.epochs:
            started = time.monotonic()
            loss = self._epoch(train, weights, report)
            self.epoch += 1
            if self.peers.leads:
                self._close_epoch(loss, choose, kept, report, started)
        if self.peers.leads:
            self.average.module.load_state_dict(self.best_tensors)
        best = self.average.module.eval()
        assert isinstance(best, FrameClassifier)  # a copy of self.module
        return best

    def _epoch(self, train: DeviceFaces, weights: Tensor, report: Reporter) -> float:
        recipe, device = self.run.recipe, self.peers.device
        generator = seeded(device, recipe.seed, 1, self.epoch)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator, device=device)) + self.peers.rank)
        view = None if self.bank is None else self.bank.view(self.epoch, report)
        self.learner.train()
        assert self.choice is not None  # set by `fit`
        rows, shares = self.choice.epoch(self.epoch / self.spec.epochs, generator)
        size = min(self.spec.batch_size, len(rows))
        per_epoch = len(rows) // size
        total = torch.zeros((), device=device)
        for step, index in enumerate(in_batches(rows, size)):
            done = self.epoch * per_epoch + step  # the schedule goes by epochs, however many steps each has
            for group in self.optimiser.param_groups:
                group["lr"] = scheduled_rate(self.spec, done, per_epoch)
            batch = self._batch(train, view, index, generator)
            index = index[self.peers.part(len(index))]
            loss, each = self._step(batch, train.labels[index], weights, shares[index])
            if not batch.mixed:  # a mixed face says nothing of its row
                self.choice.note(index, each)
            total += loss
            report.step("frames", done + 1, self.spec.epochs * per_epoch)
        self.choice.share()
        return float(total) / per_epoch

    def _batch(self, train: DeviceFaces, view: View | None, index: Tensor, generator: torch.Generator) -> Batch:
        """This process's part of a global batch: rows int64 (B,), augmented or of a view, mixed, filtered."""
        recipe, part = self.run.recipe, self.peers.part(len(index))
        rows = index[part]
        clear = train.targets[rows]
        if view is None:
            faces = augment_faces(train.images[index], recipe.augment, generator, part)
            faces, targets = mix_faces(faces, clear, recipe.augment, generator)
            faces = median_filter(faces, recipe.preprocess.median)
            lesson = self._lesson(faces)
            return Batch(faces=faces, targets=targets, lesson=lesson, mixed=targets is not clear)
        temperature = recipe.loss.distil_temperature
        lesson = view.lesson(rows, temperature)
        both = torch.cat((clear, torch.softmax(lesson.logits / temperature, dim=1)), dim=1)
        faces, targets = mix_faces(view.images[rows], both, recipe.augment, generator)
        mixed = targets is not both
        if mixed:  # as the labels are mixed, so is what the teachers say; of the rest they were not asked
            lesson = Lesson(logits=followed_logits(targets[:, clear.shape[1] :], temperature))
        faces = median_filter(faces, recipe.preprocess.median)
        return Batch(faces=faces, targets=targets[:, : clear.shape[1]], lesson=lesson, mixed=mixed)

    def _lesson(self, faces: Tensor) -> Lesson | None:
        if self.teachers is None:
            return None
        with autocast(self.run.recipe.precision, self.peers.device):
            return self.teachers.lesson(faces, self.run.recipe.loss)

    def _step(self, batch: Batch, labels: Tensor, weights: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        loss, context, each = self.loss(batch, labels, weights, shares)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.spec.sam_radius:
            with sam_ascent(self.learner, self.spec.sam_radius):
                self.optimiser.zero_grad(set_to_none=True)
                self.loss(batch, labels, weights, shares)[0].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.learner.parameters(), self.spec.clip_norm)
        self.optimiser.step()
        if self.after_step is not None:
            self.after_step()
        self.average.update_parameters(self.module)
        self.centres.update(context.detach(), labels)
        return loss.detach(), each.detach()

    def loss(self, batch: Batch, labels: Tensor, weights: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss of one batch of prepared faces, the contexts, and every face's own; only dropout in it is random."""
        spec = self.run.recipe.loss
        with autocast(self.run.recipe.precision, self.peers.device):
            logits, context, *sights = self.parallel(batch.faces)
            each = soft_cross_entropies(logits, batch.targets, weights)
            if batch.lesson is not None:
                followed = _followed(logits, batch.lesson, labels, spec)
                each = each + spec.distil_weight * (followed - each)
                for sight in sights:
                    each = each + _transferred(sight, batch.lesson, spec)
            loss = (each * shares).mean()
        return loss + spec.centre_weight * self.centres(context, labels), context, each

    def _close_epoch(self, loss: float, choose: DeviceFaces, kept: Tensor, report: Reporter, started: float) -> None:
        assert self.choice is not None
        average = self.average.eval().module
        assert isinstance(average, FrameClassifier)  # a copy of self.module
        correct = frame_predictions(_quickened(average), choose, self.run.recipe) == choose.labels
        score = float(correct[kept].float().mean())
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} in epoch {self.epoch}; lower the learning rate and start again")
        if score >= self.best["score"]:
            self.best = {"score": score, "epoch": self.epoch}
            self.best_tensors = {
                name: value.detach().clone() for name, value in self.average.module.state_dict().items()
            }
        figures = {
            "epoch": float(self.epoch),
            "loss": loss,
            "choose_top1": score,
            "best_top1": self.best["score"],
            "seconds": round(time.monotonic() - started, 1),
        }
        history = [*self.run.record["history"], {"stage": "frames", **figures}]
        parts = {
            "raw": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": optimiser_tensors(self.optimiser),
            "centres": self.centres.state_dict(),
            "best": self.best_tensors,
            "choice": self.choice.state(),
            "adapter": self._adapter(),
        }
        facts = {"epoch": self.epoch, "best": self.best, "history": history}
        save_checkpoint(self.run.path / "checkpoint.safetensors", join(parts), facts)
        self.run.update(history=history)
        report.epoch("frames", figures)

    def _adapter(self) -> dict[str, Tensor]:
        return self.learner.adapter.state_dict() if isinstance(self.learner, StudentSight) else {}

    def _restore(self) -> None:
        path = self.run.path / "checkpoint.safetensors"
        if not path.exists():
            return
        tensors, facts = load_checkpoint(path, unbounded=("choice/losses",))  # of rows that no step has shown yet
        self.module.load_state_dict(split(tensors, "raw"))
        self.average.load_state_dict(split(tensors, "average"))
        restore_optimiser(self.optimiser, split(tensors, "optimiser"))
        self.centres.load_state_dict(split(tensors, "centres"))
        self.best_tensors = {name: value.to(self.peers.device) for name, value in split(tensors, "best").items()}
        if self.choice is not None:
            self.choice.restore(split(tensors, "choice"))
        if isinstance(self.learner, StudentSight):
            self.learner.adapter.load_state_dict(split(tensors, "adapter"))
        self.epoch, self.best = facts["epoch"], facts["best"]
        self.run.record["history"] = facts["history"]


def _quickened(module: FrameClassifier) -> FrameClassifier:
    """A copy of a classifier for inference alone, its encoder's normalisations folded."""
    quick = copy.deepcopy(module)
    quick.model.encoder = folded(quick.model.encoder)
    return quick


@torch.no_grad()
def frame_predictions(module: nn.Module, faces: DeviceFaces, recipe: TrainRecipe, *, size: int = 512) -> Tensor:
    """Predicted class of every face by the temporary classifier: int64 (N,)."""
    found = []
    with autocast(recipe.precision, faces.images.device):
        for start in range(0, len(faces), size):
            found.append(module(faces.images[start : start + size])[0].argmax(dim=1))
    return torch.cat(found)
