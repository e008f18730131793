"""Second stage: the sequence head on windows of clips; LDA; the classifier behind it.

The encoder stands still from here on: the features of every clip's frames are computed once (`clip_bank`), and windows
are cut out of them as a camera would fill them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.train.clip_bank import ClipBank
from fer_edge.train.faces import batches, seeded
from fer_edge.train.frame_stage import scheduled_rate
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.losses import class_weights, soft_cross_entropy
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe

__all__ = ["Windows", "averaged_predictions", "draw_windows", "fit_head", "guided", "window_logits"]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A batch for the head.

    Attributes:
        features: float32 (B, T, F), oldest first; a window that is not full repeats its oldest feature in front.
        length: int64 (B,), how many frames are real.
        rows: int64 (B,), the row of the bank's targets that the newest frame is to be taken for.
        changes: bool (B,), whether an older frame shows something else.
    """

    features: Tensor
    length: Tensor
    rows: Tensor
    changes: Tensor


def draw_windows(bank: ClipBank, clips: Tensor, window: int, generator: torch.Generator) -> Windows:
    """A window out of each of the clips, as a camera would fill them.

    One T for the batch: 1 in a fifth of the batches, the full window in two fifths, else uniform between. Half of the
    windows are full; in the others fewer than T frames are real, and the oldest is repeated in front. Half of them run
    backwards. In a sixth the face stands still: a frame of the clip, or the still as it is, T times over. So it is in
    half of the windows of one frame.

    Args:
        bank: features of clips.
        clips: int64 (B,), which of them.
        window: the largest T.
        generator: on the bank's device.

    Returns:
        at most B windows: those whose newest frame has no label are left out.
    """
    device, batch, frames = clips.device, len(clips), bank.rows.shape[1]
    draw = torch.rand(2, generator=generator, device=device).tolist()
    steps = 1 if draw[0] < 0.2 else window if draw[0] < 0.6 else 1 + int(draw[1] * window)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    length = torch.where(uniform() < 0.5, steps, 1 + (uniform() * steps).long())
    newest = length - 1 + (uniform() * (frames - length + 1)).long()
    age = torch.minimum(torch.arange(steps - 1, -1, -1, device=device).unsqueeze(0), (length - 1).unsqueeze(1))
    frame = newest.unsqueeze(1) - age
    frame = torch.where(uniform(1) < 0.5, frames - 1 - frame, frame)
    frozen = uniform(1) < (1 / 2 if steps == 1 else 1 / 6)
    frame = torch.where(frozen, frame[:, -1:], frame)
    shown = bank.rows[clips.unsqueeze(1), frame]
    rows = shown[:, -1]
    features = bank.features[clips.unsqueeze(1), frame].float()
    plain = (frozen & (uniform(1) < 0.5)).unsqueeze(2)
    features = torch.where(plain, bank.stills[rows].float().unsqueeze(1), features)
    known = rows >= 0
    changes = (shown != rows.unsqueeze(1)).any(dim=1)
    return Windows(features=features[known], length=length[known], rows=rows[known], changes=changes[known])


@torch.no_grad()
def guided(bank: ClipBank, classify: Callable[[Tensor], Tensor], weight: float) -> ClipBank:
    """The bank with its targets drawn toward what a model says of the stills as they are.

    A spoilt frame is to be read as its still would be, which is less noisy than the label alone (Hinton et al. 2015).

    Args:
        bank: features of clips and of their stills.
        classify: single frames' features (N, F) to logits (N, classes).
        weight: share of the model's probabilities in the targets.
    """
    said = [torch.softmax(classify(part.float()), dim=1) for part in torch.split(bank.stills, 1024)]
    return replace(bank, targets=bank.targets + weight * (torch.cat(said) - bank.targets))


def fit_head(
    model: AttentionCnnBiLstm, temporary: nn.Linear, bank: ClipBank, recipe: TrainRecipe, report: Reporter
) -> None:
    """Train the head in place: context with the temporary classifier, LDA fit, then everything behind the LDA."""
    stage = _HeadStage(head=model.head, bank=bank, recipe=recipe, report=report)
    stage.train_context(temporary)
    stage.fit_lda()
    stage.train_classifier()
    model.head.eval()


@dataclass(frozen=True, kw_only=True)
class _HeadStage:
    head: SequenceHead
    bank: ClipBank
    recipe: TrainRecipe
    report: Reporter

    def train_context(self, temporary: nn.Linear) -> None:
        """BiLSTM and attention over frames, in front of a linear classifier."""
        dropout = nn.Dropout(self.recipe.loss.dropout)

        def logits(windows: Windows) -> Tensor:
            found: Tensor = temporary(dropout(self.head.context(windows.features, windows.length)[0]))
            return found

        moving = [*self.head.bilstm.parameters(), *self.head.attention.parameters(), *temporary.parameters()]
        spec = self.recipe.sequence
        self._train("context", logits, moving, epochs=spec.context_epochs, rate=spec.context_rate, key=3)

    def fit_lda(self) -> None:
        """LDA on the contexts of two epochs of windows."""
        self.head.eval()
        generator = seeded(self.bank.labels.device, self.recipe.seed, 4)
        contexts, labels = [], []
        with torch.no_grad():
            for _ in range(2):
                for clips in batches(len(self.bank), self.recipe.sequence.batch_size, generator):
                    windows = draw_windows(self.bank, clips, self.recipe.sequence.window, generator)
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
        spec = self.recipe.sequence
        self._train("classifier", logits, moving, epochs=spec.classifier_epochs, rate=spec.classifier_rate, key=5)

    def _train(
        self,
        stage: str,
        logits: Callable[[Windows], Tensor],
        moving: list[nn.Parameter],
        *,
        epochs: int,
        rate: float,
        key: int,
    ) -> None:
        recipe, device = self.recipe, self.bank.labels.device
        torch.manual_seed(recipe.seed)
        self.head.train()
        weights = class_weights(self.bank.labels, recipe.loss, recipe.model.classes)
        optimiser = torch.optim.AdamW(moving, lr=rate, weight_decay=0.01, fused=True)
        schedule = OptimiserSpec(epochs=1, learning_rate=rate, warmup_epochs=0.05)
        size = min(recipe.sequence.batch_size, len(self.bank))
        done, total = 0, epochs * (len(self.bank) // size)
        for epoch in range(epochs):
            generator = seeded(device, recipe.seed, key, epoch)
            for clips in batches(len(self.bank), size, generator):
                windows = draw_windows(self.bank, clips, recipe.sequence.window, generator)
                for group in optimiser.param_groups:
                    group["lr"] = scheduled_rate(schedule, done, total)
                targets = self.bank.targets[windows.rows]
                targets = targets * torch.where(windows.changes, recipe.sequence.change_weight, 1.0).unsqueeze(1)
                loss = soft_cross_entropy(logits(windows), targets, weights)
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
