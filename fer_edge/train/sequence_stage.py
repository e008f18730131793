"""Second stage: train the sequence head on windows of clips, fit the LDA, train the classifier behind it.

The encoder is fixed: the features of every clip's frames are computed once (`feature_cache`), and windows are cut from
them. The first stage learns from votes and teachers; the head is trained toward labels, which is half a point more
accurate (PublicTest) than the softened targets of the first stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from fer_edge.core.types import Progress
from fer_edge.model.network import SequenceHead
from fer_edge.train.batches import batches, seeded
from fer_edge.train.feature_cache import ClipFeatures
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.loop import Loop, Task
from fer_edge.train.losses import class_weights, soft_cross_entropy
from fer_edge.train.recipe import OptimiserSpec, SequenceTraining, TrainRecipe

__all__ = [
    "FrameProbabilities",
    "Windows",
    "averaged_predictions",
    "draw_windows",
    "fit_head",
    "tune_head",
    "window_logits",
]

_SINGLE: Final = 0.4  # share of batches with windows of one frame
_FULL: Final = 0.35  # share of batches with full windows; the others have any length
_FROZEN: Final = {True: 0.8, False: 0.4}  # share of windows that repeat one frame, by whether T = 1
_CLEAN: Final = 0.75  # of those, the share that shows the uncorrupted still


@dataclass(frozen=True, kw_only=True)
class FrameProbabilities:
    """Single-frame probabilities of a model for every frame: soft targets less noisy than a label.

    Attributes:
        frames: float16 (N, T, classes), of every frame of the clips.
        stills: float16 (M, classes), of the uncorrupted stills.
    """

    frames: Tensor
    stills: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, clips: ClipFeatures, classify: Callable[[Tensor], Tensor]) -> FrameProbabilities:
        """Compute them with `classify`: single frames' features (N, F) -> logits (N, classes)."""

        def probabilities(features: Tensor) -> Tensor:
            parts = [torch.softmax(classify(part.float()), dim=1).half() for part in torch.split(features, 4096)]
            return torch.cat(parts)

        frames = probabilities(clips.features.flatten(0, 1))
        return cls(frames=frames.reshape(*clips.rows.shape, -1), stills=probabilities(clips.stills))


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A batch for the head.

    Attributes:
        features: float32 (B, T, F), oldest first; a window that is not full repeats its oldest feature in front.
        length: int64 (B,), number of real frames.
        rows: int64 (B,), row of the labels that applies to the newest frame.
        changes: bool (B,), whether an older frame shows another row.
        alone: bool (B,), whether only one frame is visible, once or T times.
        soft: float32 (B, classes), mean probabilities over the real frames that show the newest frame's row.
    """

    features: Tensor
    length: Tensor
    rows: Tensor
    changes: Tensor
    alone: Tensor
    soft: Tensor

    def targets(self, clips: ClipFeatures, spec: SequenceTraining) -> Tensor:
        """Return the weighted training targets: float32 (B, classes)."""
        share = torch.where(self.alone, spec.alone_distil_weight, spec.distil_weight).unsqueeze(1)
        if clips.targets is None:
            labelled = nn.functional.one_hot(clips.labels[self.rows], self.soft.shape[1]).float()
        else:
            labelled = clips.targets[self.rows]
        weight = torch.where(self.changes, spec.change_weight, 1.0).unsqueeze(1)
        return weight * (labelled + share * (self.soft - labelled))


def draw_windows(
    clips: ClipFeatures, soft: FrameProbabilities, index: Tensor, window: int, generator: torch.Generator
) -> Windows:
    """Cut one window from each of some clips, as a camera fills them.

    All windows of a batch have one T: 1, the full window, or uniform between. Half of the windows are full; in the
    others fewer than T frames are real. Half of them run backwards. Some repeat one frame of the clip, or the still.

    Args:
        clips: features of all clips.
        soft: probabilities of their frames.
        index: int64 (B,), the clips to use.
        window: the largest T.
        generator: on the features' device.

    Returns:
        at most B windows: those whose newest frame has no label are dropped.
    """
    device, batch, frames = index.device, len(index), clips.rows.shape[1]
    draw = torch.rand(2, generator=generator, device=device).tolist()
    steps = 1 if draw[0] < _SINGLE else window if draw[0] < _SINGLE + _FULL else 1 + int(draw[1] * window)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    length = torch.where(uniform() < 0.5, steps, 1 + (uniform() * steps).long())
    newest = length - 1 + (uniform() * (frames - length + 1)).long()
    age = torch.arange(steps - 1, -1, -1, device=device).unsqueeze(0)
    frame = newest.unsqueeze(1) - torch.minimum(age, (length - 1).unsqueeze(1))
    frame = torch.where(uniform(1) < 0.5, frames - 1 - frame, frame)
    frozen = uniform(1) < _FROZEN[steps == 1]
    frame = torch.where(frozen, frame[:, -1:], frame)
    clean = frozen & (uniform(1) < _CLEAN)
    clip = index.unsqueeze(1)
    shown = clips.rows[clip, frame]
    rows = shown[:, -1]
    features = torch.where(clean.unsqueeze(2), clips.stills[rows].unsqueeze(1), clips.features[clip, frame])
    same = ((age < length.unsqueeze(1)) & (shown == rows.unsqueeze(1))).unsqueeze(2)
    mean = (soft.frames[clip, frame].float() * same).sum(dim=1) / same.sum(dim=1)
    known = rows >= 0
    return Windows(
        features=features[known].float(),
        length=length[known],
        rows=rows[known],
        changes=(shown != rows.unsqueeze(1)).any(dim=1)[known],
        alone=(frozen.squeeze(1) | (length == 1))[known],
        soft=torch.where(clean, soft.stills[rows].float(), mean)[known],
    )


@dataclass(frozen=True, kw_only=True)
class HeadStage:
    """The steps of the second stage on one head, in place.

    Attributes:
        head: the sequence head.
        clips: features of the training clips, on the head's device.
        soft: probabilities of their frames.
        recipe: `sequence`, losses and seed.
        progress: called after every step.
    """

    head: SequenceHead
    clips: ClipFeatures
    soft: FrameProbabilities
    recipe: TrainRecipe
    progress: Progress

    def train_context(self, probe: nn.Linear) -> None:
        """Train BiLSTM and attention over frames in front of a linear probe."""
        dropout = nn.Dropout(self.recipe.loss.dropout)

        def logits(windows: Windows) -> Tensor:
            found: Tensor = probe(dropout(self.head.context(windows.features, windows.length)[0]))
            return found

        moving = [*self._context_parameters(), *probe.parameters()]
        self._fit("context", nn.ModuleList((self.head, probe, dropout)), logits, moving)

    def tune_context(self) -> None:
        """Train BiLSTM and attention in front of the head's own LDA, DenseNet block and classifier, which are fixed."""

        def logits(windows: Windows) -> Tensor:
            found: Tensor = self.head(windows.features, windows.length)[0]
            return found

        self.head.eval()  # batch normalisations behind the LDA keep their statistics
        self._fit("context", nn.ModuleList((self.head.bilstm, self.head.attention)), logits, self._context_parameters())

    def fit_lda(self) -> None:
        """Fit the LDA on the contexts of two epochs of windows."""
        self.head.eval()
        generator = seeded(self.clips.labels.device, self.recipe.seed, 4)
        contexts, labels = [], []
        with torch.no_grad():
            for _ in range(2):
                for index in batches(len(self.clips), self.recipe.sequence.batch_size, generator):
                    windows = draw_windows(self.clips, self.soft, index, self.recipe.sequence.window, generator)
                    contexts.append(self.head.context(windows.features, windows.length)[0])
                    labels.append(self.clips.labels[windows.rows])
        fit_discriminants(self.head.lda, torch.cat(contexts), torch.cat(labels))

    def train_classifier(self) -> None:
        """Train DenseNet block and classifier behind fixed contexts and discriminants."""

        def logits(windows: Windows) -> Tensor:
            with torch.no_grad():
                context, _ = self.head.context(windows.features, windows.length)
            return self.head.classify(context)

        moving = [*self.head.reconstruction.parameters(), *self.head.classifier.parameters()]
        for parameter in moving:
            parameter.requires_grad_(True)
        self._fit("classifier", self.head, logits, moving)

    def _context_parameters(self) -> list[nn.Parameter]:
        return [*self.head.bilstm.parameters(), *self.head.attention.parameters()]

    def _fit(
        self, stage: str, module: nn.Module, logits: Callable[[Windows], Tensor], moving: list[nn.Parameter]
    ) -> None:
        spec, device = self.recipe.sequence, self.clips.labels.device
        context = stage == "context"
        epochs = spec.context_epochs if context else spec.classifier_epochs
        optimiser = OptimiserSpec(
            epochs=epochs,
            batch_size=spec.batch_size,
            learning_rate=spec.context_rate if context else spec.classifier_rate,
            warmup_epochs=0.05 * epochs,
            weight_decay=0.01,
            ema_decay=0.0,
            clip_norm=self.recipe.optimiser.clip_norm,
        )
        loop = Loop(
            spec=optimiser,
            seed=(self.recipe.seed, 3 if context else 5),
            stage=stage,
            precision="fp32",
            device=device,
            progress=self.progress,
        )
        loop.fit(_HeadTask(module=module, stage=self, logits=logits, moving=moving))


@dataclass(kw_only=True, eq=False)
class _HeadTask(Task[Windows]):
    module: nn.Module
    stage: HeadStage
    logits: Callable[[Windows], Tensor]
    moving: list[nn.Parameter]

    def __post_init__(self) -> None:
        recipe, clips = self.stage.recipe, self.stage.clips
        self.class_weights = class_weights(clips.labels, recipe.loss, recipe.model.classes)

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.moving

    def batches(self, epoch: int, generator: torch.Generator) -> tuple[int, Iterable[Windows]]:
        clips, spec = self.stage.clips, self.stage.recipe.sequence
        size = min(spec.batch_size, len(clips))
        return len(clips) // size, (
            draw_windows(clips, self.stage.soft, index, spec.window, generator)
            for index in batches(len(clips), size, generator)
        )

    def loss(self, batch: Windows) -> tuple[Tensor, Any]:
        targets = batch.targets(self.stage.clips, self.stage.recipe.sequence)
        return soft_cross_entropy(self.logits(batch), targets, self.class_weights), None


def fit_head(stage: HeadStage, probe: nn.Linear) -> None:
    """Train a new head in place: context in front of the probe, LDA, then everything behind the LDA."""
    stage.train_context(probe)
    stage.fit_lda()
    stage.train_classifier()


def tune_head(stage: HeadStage) -> None:
    """Train a trained head further, in place: BiLSTM and attention, LDA, then a new DenseNet block and classifier."""
    torch.manual_seed(stage.recipe.seed)
    fresh = SequenceHead(stage.recipe.model).to(stage.clips.labels.device)
    stage.tune_context()
    stage.head.reconstruction, stage.head.classifier = fresh.reconstruction, fresh.classifier
    stage.fit_lda()
    stage.train_classifier()


@torch.no_grad()
def window_logits(head: SequenceHead, features: Tensor) -> Tensor:
    """Compute the logits of full windows: features (N, T, F), oldest first, -> (N, classes)."""
    steps = features.shape[1]
    found = []
    for part in torch.split(features.float(), 1024):
        length = torch.full((len(part),), steps, device=part.device)
        found.append(head(part, length)[0])
    return torch.cat(found)


def averaged_predictions(head: SequenceHead, features: Tensor) -> Tensor:
    """Classify windows (N, T, F) by the mean of their frames' own probabilities: int64 (N,)."""
    alone = torch.softmax(window_logits(head, features.flatten(0, 1).unsqueeze(1)), dim=1)
    return alone.reshape(*features.shape[:2], -1).mean(dim=1).argmax(dim=1)
