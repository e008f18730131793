"""Second stage: the sequence head on windows of cached features; LDA; the classifier behind it.

The encoder stands still from here on, so every training still is encoded a few times under independent augmentation
and the windows are drawn from those copies: as varied as encoding every window afresh, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.train.augment import augment_faces, median_filter
from fer_edge.train.faces import DeviceFaces, batches, seeded
from fer_edge.train.frame_stage import autocast, scheduled_rate
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.losses import class_weights, soft_cross_entropy
from fer_edge.train.progress import Reporter
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe

__all__ = ["FeatureBank", "draw_windows", "fit_head", "window_logits"]


@dataclass(frozen=True, kw_only=True)
class FeatureBank:
    """Features of independently augmented copies of every still: float32 (copies, N, F)."""

    features: Tensor

    @classmethod
    @torch.no_grad()
    def encode(
        cls, model: AttentionCnnBiLstm, faces: DeviceFaces, recipe: TrainRecipe, report: Reporter, *, size: int = 512
    ) -> FeatureBank:
        """Encode every copy; the first is left as it is."""
        model.eval()
        device = faces.images.device
        generator = seeded(device, recipe.seed, 2)
        starts = range(0, len(faces), size)
        copies = []
        for copy in range(recipe.sequence.copies):
            rows = []
            for step, start in enumerate(starts):
                images = faces.images[start : start + size]
                if copy:
                    images = augment_faces(images, recipe.augment, generator)
                with autocast(recipe, device):
                    rows.append(model.encoder(median_filter(images, recipe.preprocess.median))[0].float())
                report.step("features", copy * len(starts) + step + 1, recipe.sequence.copies * len(starts))
            copies.append(torch.cat(rows))
        return cls(features=torch.stack(copies))


def draw_windows(bank: FeatureBank, index: Tensor, window: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows of the stills in `index`, as a camera would fill them.

    One T for the batch: 1 in a quarter of the batches, else uniform up to the window. In a third of the windows the
    face stands still (one copy repeated); in half of them fewer than T frames are real, and the oldest is repeated in
    front.

    Args:
        bank: features (copies, N, F).
        index: int64 (B,) rows of the stills.
        window: the largest T.
        generator: on the bank's device.

    Returns:
        features (B, T, F) and length int64 (B,).
    """
    device, batch = index.device, len(index)
    draw = torch.rand(2, generator=generator, device=device).tolist()
    steps = 1 if draw[0] < 0.25 else 1 + int(draw[1] * window)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    copies = (uniform(steps) * len(bank.features)).long()
    copies = torch.where(uniform(1) < 1 / 3, copies[:, -1:], copies)
    length = torch.where(uniform() < 0.5, steps, 1 + (uniform() * steps).long())
    place = torch.arange(steps, device=device).unsqueeze(0)
    oldest = (steps - length).unsqueeze(1)
    copies = copies.gather(1, torch.maximum(place, oldest))
    return bank.features[copies, index.unsqueeze(1)], length


def fit_head(
    model: AttentionCnnBiLstm, temporary: nn.Linear, train: DeviceFaces, recipe: TrainRecipe, report: Reporter
) -> None:
    """Train the head in place: context with the temporary classifier, LDA fit, then everything behind the LDA."""
    bank = FeatureBank.encode(model, train, recipe, report)
    stage = _HeadStage(head=model.head, bank=bank, train=train, recipe=recipe, report=report)
    stage.train_context(temporary)
    stage.fit_lda()
    stage.train_classifier()
    model.head.eval()


@dataclass(frozen=True, kw_only=True)
class _HeadStage:
    head: SequenceHead
    bank: FeatureBank
    train: DeviceFaces
    recipe: TrainRecipe
    report: Reporter

    def train_context(self, temporary: nn.Linear) -> None:
        """BiLSTM and attention over frames, in front of a linear classifier."""
        dropout = nn.Dropout(self.recipe.loss.dropout)

        def logits(features: Tensor, length: Tensor) -> Tensor:
            found: Tensor = temporary(dropout(self.head.context(features, length)[0]))
            return found

        moving = [*self.head.bilstm.parameters(), *self.head.attention.parameters(), *temporary.parameters()]
        spec = self.recipe.sequence
        self._train("context", logits, moving, epochs=spec.context_epochs, rate=spec.context_rate, key=3)

    def fit_lda(self) -> None:
        """LDA on the contexts of two epochs of windows."""
        self.head.eval()
        generator = seeded(self.train.images.device, self.recipe.seed, 4)
        contexts, labels = [], []
        with torch.no_grad():
            for _ in range(2):
                for index in batches(len(self.train), self.recipe.sequence.batch_size, generator):
                    windows = draw_windows(self.bank, index, self.recipe.sequence.window, generator)
                    contexts.append(self.head.context(*windows)[0])
                    labels.append(self.train.labels[index])
        fit_discriminants(self.head.lda, torch.cat(contexts), torch.cat(labels))

    def train_classifier(self) -> None:
        """DenseNet block and classifier, behind contexts and discriminants that stand still."""

        def logits(features: Tensor, length: Tensor) -> Tensor:
            with torch.no_grad():
                context, _ = self.head.context(features, length)
            return self.head.classify(context)

        moving = [*self.head.reconstruction.parameters(), *self.head.classifier.parameters()]
        for parameter in moving:
            parameter.requires_grad_(True)
        spec = self.recipe.sequence
        self._train("classifier", logits, moving, epochs=spec.classifier_epochs, rate=spec.classifier_rate, key=5)

    def _train(
        self,
        stage: str,
        logits: Callable[[Tensor, Tensor], Tensor],
        moving: list[nn.Parameter],
        *,
        epochs: int,
        rate: float,
        key: int,
    ) -> None:
        recipe, device = self.recipe, self.train.images.device
        torch.manual_seed(recipe.seed)
        self.head.train()
        weights = class_weights(self.train.labels, recipe.loss, recipe.model.classes)
        optimiser = torch.optim.AdamW(moving, lr=rate, weight_decay=0.01, fused=True)
        schedule = OptimiserSpec(epochs=1, learning_rate=rate, warmup_epochs=0.05)
        size = min(recipe.sequence.batch_size, len(self.train))
        done, total = 0, epochs * (len(self.train) // size)
        for epoch in range(epochs):
            generator = seeded(device, recipe.seed, key, epoch)
            for index in batches(len(self.train), size, generator):
                windows = draw_windows(self.bank, index, recipe.sequence.window, generator)
                for group in optimiser.param_groups:
                    group["lr"] = scheduled_rate(schedule, done, total)
                loss = soft_cross_entropy(logits(*windows), self.train.targets[index], weights)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(moving, recipe.optimiser.clip_norm)
                optimiser.step()
                done += 1
                self.report.step(stage, done, total)


@torch.no_grad()
def window_logits(model: AttentionCnnBiLstm, features: Tensor) -> Tensor:
    """Logits of full windows: features (T, N, F), oldest first, -> (N, classes)."""
    steps = len(features)
    found = []
    for part in torch.split(features, 1024, dim=1):
        length = torch.full((part.shape[1],), steps, device=part.device)
        found.append(model.head(part.transpose(0, 1), length)[0])
    return torch.cat(found)
