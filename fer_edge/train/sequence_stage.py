"""Second stage: the sequence head on windows of clips; LDA; the classifier behind it.

The encoder stands still from here on: the features of every clip's frames are computed once (`clip_bank`), and windows
are cut out of them as a camera would fill them. Where the encoder learnt from votes and teachers, the head decides, and
what it decides is judged by labels: trained toward these it is half a point more accurate (PublicTest) than toward the
first stage's softened ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.train.batches import batches, seeded
from fer_edge.train.feature_cache import ClipBank
from fer_edge.train.frame_stage import scheduled_rate
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.losses import class_weights, soft_cross_entropy
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import OptimiserSpec, SequenceTraining, TrainRecipe

__all__ = ["Guide", "Windows", "averaged_predictions", "draw_windows", "fit_head", "tune_head", "window_logits"]


_SINGLE: Final = 0.4  # of batches: windows of one frame
_FULL: Final = 0.35  # of batches: windows of all frames; the rest are of any size
_STILL: Final = {True: 0.8, False: 0.4}  # of windows the face stands still in, by whether it is a single frame
_AS_IT_IS: Final = 0.75  # of those: the still itself, unspoilt


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a model says of single frames: an average over frames is a better teacher than a label that may be wrong.

    Attributes:
        frames: float16 (N, T, classes), probabilities of every frame of the bank.
        stills: float16 (M, classes), of the stills as they are.
    """

    frames: Tensor
    stills: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, bank: ClipBank, classify: Callable[[Tensor], Tensor]) -> Guide:
        """Ask `classify`, which takes single frames' features (N, F) to logits (N, classes)."""

        def said(features: Tensor) -> Tensor:
            parts = [torch.softmax(classify(part.float()), dim=1).half() for part in torch.split(features, 4096)]
            return torch.cat(parts)

        return cls(frames=said(bank.features.flatten(0, 1)).reshape(*bank.rows.shape, -1), stills=said(bank.stills))


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A batch for the head.

    Attributes:
        features: float32 (B, T, F), oldest first; a window that is not full repeats its oldest feature in front.
        length: int64 (B,), how many frames are real.
        rows: int64 (B,), the row of the bank's labels that the newest frame is to be taken for.
        changes: bool (B,), whether an older frame shows something else.
        alone: bool (B,), whether there is but one frame to see, once or T times over.
        guide: float32 (B, classes), the guide's mean over the real frames that show what the newest one shows.
    """

    features: Tensor
    length: Tensor
    rows: Tensor
    changes: Tensor
    alone: Tensor
    guide: Tensor

    def targets(self, bank: ClipBank, spec: SequenceTraining) -> Tensor:
        """What the windows are trained toward, weighted: float32 (B, classes)."""
        share = torch.where(self.alone, spec.alone_distil_weight, spec.distil_weight).unsqueeze(1)
        labelled = nn.functional.one_hot(bank.labels[self.rows], self.guide.shape[1]).float()
        weight = torch.where(self.changes, spec.change_weight, 1.0).unsqueeze(1)
        return weight * (labelled + share * (self.guide - labelled))


def draw_windows(bank: ClipBank, guide: Guide, clips: Tensor, window: int, generator: torch.Generator) -> Windows:
    """A window out of each of the clips, as a camera would fill them.

    One T for the batch: 1, the full window, or uniform between. Half of the windows are full; in the others fewer than
    T frames are real, and the oldest is repeated in front. Half of them run backwards. In some the face stands still: a
    frame of the clip, or the still as it is, T times over. How often each of them comes decides how spoilt clips and
    single, unspoilt faces are weighed against each other.

    Args:
        bank: features of clips.
        guide: what is said of their frames.
        clips: int64 (B,), which of them.
        window: the largest T.
        generator: on the bank's device.

    Returns:
        at most B windows: those whose newest frame has no label are left out.
    """
    device, batch, frames = clips.device, len(clips), bank.rows.shape[1]
    draw = torch.rand(2, generator=generator, device=device).tolist()
    steps = 1 if draw[0] < _SINGLE else window if draw[0] < _SINGLE + _FULL else 1 + int(draw[1] * window)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    length = torch.where(uniform() < 0.5, steps, 1 + (uniform() * steps).long())
    newest = length - 1 + (uniform() * (frames - length + 1)).long()
    age = torch.arange(steps - 1, -1, -1, device=device).unsqueeze(0)
    frame = newest.unsqueeze(1) - torch.minimum(age, (length - 1).unsqueeze(1))
    frame = torch.where(uniform(1) < 0.5, frames - 1 - frame, frame)
    frozen = uniform(1) < _STILL[steps == 1]
    frame = torch.where(frozen, frame[:, -1:], frame)
    plain = frozen & (uniform(1) < _AS_IT_IS)
    of, shown = clips.unsqueeze(1), bank.rows[clips.unsqueeze(1), frame]
    rows = shown[:, -1]
    features = torch.where(plain.unsqueeze(2), bank.stills[rows].unsqueeze(1), bank.features[of, frame])
    same = ((age < length.unsqueeze(1)) & (shown == rows.unsqueeze(1))).unsqueeze(2)
    mean = (guide.frames[of, frame].float() * same).sum(dim=1) / same.sum(dim=1)
    known = rows >= 0
    return Windows(
        features=features[known].float(),
        length=length[known],
        rows=rows[known],
        changes=(shown != rows.unsqueeze(1)).any(dim=1)[known],
        alone=(frozen.squeeze(1) | (length == 1))[known],
        guide=torch.where(plain, guide.stills[rows].float(), mean)[known],
    )


def fit_head(
    model: AttentionCnnBiLstm,
    temporary: nn.Linear,
    bank: ClipBank,
    guide: Guide,
    recipe: TrainRecipe,
    report: Reporter,
) -> None:
    """Train a new head in place: context with the temporary classifier, LDA fit, then everything behind the LDA."""
    stage = _HeadStage(head=model.head, bank=bank, guide=guide, recipe=recipe, report=report)
    stage.train_context(temporary)
    stage.fit_lda()
    stage.train_classifier()
    model.head.eval()


def tune_head(model: AttentionCnnBiLstm, bank: ClipBank, guide: Guide, recipe: TrainRecipe, report: Reporter) -> None:
    """Train a trained head on, in place: BiLSTM and attention in front of what follows them, then that anew."""
    torch.manual_seed(recipe.seed)
    fresh = SequenceHead(recipe.model).to(bank.labels.device)
    stage = _HeadStage(head=model.head, bank=bank, guide=guide, recipe=recipe, report=report)
    stage.tune_context()
    model.head.reconstruction, model.head.classifier = fresh.reconstruction, fresh.classifier
    stage.fit_lda()
    stage.train_classifier()
    model.head.eval()


@dataclass(frozen=True, kw_only=True)
class _HeadStage:
    head: SequenceHead
    bank: ClipBank
    guide: Guide
    recipe: TrainRecipe
    report: Reporter

    def train_context(self, temporary: nn.Linear) -> None:
        """BiLSTM and attention over frames, in front of a linear classifier."""
        dropout = nn.Dropout(self.recipe.loss.dropout)

        def logits(windows: Windows) -> Tensor:
            found: Tensor = temporary(dropout(self.head.context(windows.features, windows.length)[0]))
            return found

        self.head.train()
        self._train("context", logits, [*self._context_parameters(), *temporary.parameters()])

    def tune_context(self) -> None:
        """BiLSTM and attention over frames, in front of the head's own LDA, DenseNet block and classifier."""
        self.head.eval()  # batch normalisation behind the LDA keeps its statistics
        self.head.bilstm.train()
        self._train(
            "context", lambda windows: self.head(windows.features, windows.length)[0], self._context_parameters()
        )

    def fit_lda(self) -> None:
        """LDA on the contexts of two epochs of windows."""
        self.head.eval()
        generator = seeded(self.bank.labels.device, self.recipe.seed, 4)
        contexts, labels = [], []
        with torch.no_grad():
            for _ in range(2):
                for clips in batches(len(self.bank), self.recipe.sequence.batch_size, generator):
                    windows = self._draw(clips, generator)
                    contexts.append(self.head.context(windows.features, windows.length)[0])
                    labels.append(self.bank.labels[windows.rows])
        fit_discriminants(self.head.lda, torch.cat(contexts), torch.cat(labels))

    def train_classifier(self) -> None:
        """DenseNet block and classifier, behind contexts and discriminants that stand still."""

        def logits(windows: Windows) -> Tensor:
            with torch.no_grad():
                context, _ = self.head.context(windows.features, windows.length)
            return self.head.classify(context)

        moving = [*self.head.reconstruction.parameters(), *self.head.classifier.parameters()]
        for parameter in moving:
            parameter.requires_grad_(True)
        self.head.train()
        self._train("classifier", logits, moving)

    def _context_parameters(self) -> list[nn.Parameter]:
        return [*self.head.bilstm.parameters(), *self.head.attention.parameters()]

    def _draw(self, clips: Tensor, generator: torch.Generator) -> Windows:
        return draw_windows(self.bank, self.guide, clips, self.recipe.sequence.window, generator)

    def _train(
        self, stage: Literal["context", "classifier"], logits: Callable[[Windows], Tensor], moving: list[nn.Parameter]
    ) -> None:
        recipe, spec, device = self.recipe, self.recipe.sequence, self.bank.labels.device
        epochs, rate, key = {
            "context": (spec.context_epochs, spec.context_rate, 3),
            "classifier": (spec.classifier_epochs, spec.classifier_rate, 5),
        }[stage]
        torch.manual_seed(recipe.seed)
        weights = class_weights(self.bank.labels, recipe.loss, recipe.model.classes)
        optimiser = torch.optim.AdamW(moving, lr=rate, weight_decay=0.01, fused=True)
        schedule = OptimiserSpec(epochs=1, learning_rate=rate, warmup_epochs=0.05)
        size = min(spec.batch_size, len(self.bank))
        done, total = 0, epochs * (len(self.bank) // size)
        for epoch in range(epochs):
            generator = seeded(device, recipe.seed, key, epoch)
            for clips in batches(len(self.bank), size, generator):
                windows = self._draw(clips, generator)
                for group in optimiser.param_groups:
                    group["lr"] = scheduled_rate(schedule, done, total)
                loss = soft_cross_entropy(logits(windows), windows.targets(self.bank, spec), weights)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(moving, recipe.optimiser.clip_norm)
                optimiser.step()
                done += 1
                self.report.step(stage, done, total)


@torch.no_grad()
def window_logits(model: AttentionCnnBiLstm, features: Tensor) -> Tensor:
    """Logits of full windows: features (N, T, F), oldest first, -> (N, classes)."""
    steps = features.shape[1]
    found = []
    for part in torch.split(features.float(), 1024):
        length = torch.full((len(part),), steps, device=part.device)
        found.append(model.head(part, length)[0])
    return torch.cat(found)


def averaged_predictions(model: AttentionCnnBiLstm, features: Tensor) -> Tensor:
    """What averaging the frames' own probabilities says of windows (N, T, F): int64 (N,)."""
    alone = torch.softmax(window_logits(model, features.flatten(0, 1).unsqueeze(1)), dim=1)
    return alone.reshape(*features.shape[:2], -1).mean(dim=1).argmax(dim=1)
