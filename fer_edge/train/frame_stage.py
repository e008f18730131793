"""First stage: train the frame encoder with the head's context at T = 1 and a linear probe.

The fine-tuning of pruned and of quantized networks is the same stage on other weights, with the original as teacher.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fer_edge.core.crowd import first_choice
from fer_edge.core.types import Progress
from fer_edge.train.augment import augment_faces, median_filter, mix_faces
from fer_edge.train.batches import DeviceSplits, batches
from fer_edge.train.device import CPU, autocast
from fer_edge.train.distillation import Teachers
from fer_edge.train.frame_classifier import FrameClassifier, FrameOutput, inference_copy, predicted_classes
from fer_edge.train.loop import EpochReport, Loop, OnEpoch, Task, no_progress
from fer_edge.train.losses import CentreLoss, class_weights, distillation_losses, soft_cross_entropies
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import TrainRun

__all__ = ["Batch", "FrameTask", "fit_frames"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The faces of one step.

    Attributes:
        faces: uint8 (B, S, S), augmented, mixed and filtered.
        targets: float32 (B, classes); with a probe for the crowd's votes, theirs side by side (B, 2 x classes + 1).
        labels: int64 (B,); -1 for a negative.
        teacher: (B, classes), the logits that the teachers give for these faces; None without teachers.
    """

    faces: Tensor
    targets: Tensor
    labels: Tensor
    teacher: Tensor | None = None


@dataclass(kw_only=True, eq=False)
class FrameTask(Task[Batch]):
    """The first stage as a task of the training loop.

    Attributes:
        module: encoder, context and classifier; the head behind the context is not trained.
        splits: on `device`.
        recipe: augmentation, losses, optimiser, precision, seed.
        device: where to compute.
        teachers: whose outputs the loss follows.
    """

    module: FrameClassifier
    splits: DeviceSplits
    recipe: TrainRecipe
    device: torch.device = CPU
    teachers: Teachers | None = None
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        config, loss, device = self.recipe.model, self.recipe.loss, self.device
        if self.teachers is not None:
            self.teachers.expect_fit(config)
            self.teachers.to(device)
        self.module.to(device)
        head = self.module.model.head
        for parameter in (*head.reconstruction.parameters(), *head.classifier.parameters()):
            parameter.requires_grad_(False)
        labels = self.splits.train.labels
        self.class_weights = class_weights(labels[labels >= 0], loss, config.classes)
        self.centres = CentreLoss(config.classes, config.feature_size, rate=loss.centre_rate).to(device)

    def batches(self, epoch: int, generator: torch.Generator) -> tuple[int, Iterable[Batch]]:
        """Draw the rows of an epoch and augment them batch by batch."""
        count = len(self.splits.train)
        size = min(self.recipe.optimiser.batch_size, count)
        return count // size, (self._batch(index, generator) for index in batches(count, size, generator))

    def _batch(self, index: Tensor, generator: torch.Generator) -> Batch:
        recipe, train = self.recipe, self.splits.train
        clear = train.targets[index]
        if train.crowd is not None:
            clear = torch.cat((clear, train.crowd[index]), dim=1)
        faces = augment_faces(train.images[index], recipe.augment, generator)
        faces, targets = mix_faces(faces, clear, recipe.augment, generator)
        faces = median_filter(faces, recipe.preprocess.median)
        return Batch(faces=faces, targets=targets, labels=train.labels[index], teacher=self._ask(faces))

    def _ask(self, faces: Tensor) -> Tensor | None:
        if self.teachers is None:
            return None
        with autocast(self.recipe.precision, self.device):
            return self.teachers.logits(faces, self.recipe.loss.distil_temperature)

    def loss(self, batch: Batch) -> tuple[Tensor, Any]:
        """Compute the loss; also returns contexts."""
        spec = self.recipe.loss
        output: FrameOutput = self.module(batch.faces)
        own = batch.targets[:, : output.logits.shape[1]]
        each = soft_cross_entropies(output.logits, own, self.class_weights)
        if batch.teacher is not None:
            followed = distillation_losses(output.logits, batch.teacher, spec.distil_temperature)
            each = each + spec.distil_weight * (followed - each)
        if output.crowd is not None:
            crowd = soft_cross_entropies(output.crowd, batch.targets[:, own.shape[1] :], own.new_ones(()))
            each = each + spec.crowd_weight * (crowd - each)
        known = batch.labels >= 0
        loss = each.mean() + spec.centre_weight * self.centres(output.context[known], batch.labels[known])
        return loss, output.context.detach()

    def after_step(self, batch: Batch, output: Any) -> None:
        """Move the class centres."""
        known = batch.labels >= 0
        self.centres.update(output[known], batch.labels[known])

    def score(self, average: nn.Module) -> float:
        """Top-1 on the rows to choose on that are not in the training split.

        With a probe for the crowd's votes, the mean of this and of the agreement with the crowd's first choice.
        """
        assert isinstance(average, FrameClassifier)
        splits, choose = self.splits, self.splits.choose
        found, crowd = predicted_classes(inference_copy(average), choose.images, self.recipe.precision)
        top1 = float((found == choose.labels)[splits.unleaked].float().mean())
        if crowd is None or splits.choose_set.votes is None:
            return top1
        first = torch.from_numpy(first_choice(splits.choose_set.votes)).to(crowd.device)
        kept = splits.unleaked & (first >= 0)
        return (top1 + float((crowd == first)[kept].float().mean())) / 2

    def state(self) -> dict[str, Tensor]:
        """Class centres."""
        return {"centres": self.centres.centres}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore `state`."""
        self.centres.centres = tensors["centres"]


def fit_frames(run: TrainRun, task: FrameTask, on_epoch: OnEpoch | None = None) -> FrameClassifier:
    """Run the stage from the start or from the run's checkpoint, and return the best epoch's averaged weights.

    Raises:
        TrainingDiverged: the loss is not finite.
        InputError: the run's checkpoint does not fit.
        OutputError: the run cannot be written.
    """

    def record(report: EpochReport) -> None:
        before = [each for each in run.record["history"] if each["epoch"] < report.epoch]
        run.update(history=[*before, asdict(report)])
        if on_epoch is not None:
            on_epoch(report)

    loop = Loop(
        spec=task.recipe.optimiser,
        seed=(task.recipe.seed, 1),
        stage="frames",
        precision=task.recipe.precision,
        device=task.device,
        checkpoint=run.checkpoint,
        progress=task.progress,
        on_epoch=record,
    )
    fitted = loop.fit(task)
    run.record["history"] = [asdict(report) for report in fitted.history]
    best: FrameClassifier = fitted.module
    return best
