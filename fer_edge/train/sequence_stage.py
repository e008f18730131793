"""Second stage: the sequence head on windows of cached features; LDA; the classifier behind it.

The encoder stands still from here on, so every training still is encoded a few times under independent augmentation
and the windows are drawn from those copies: as varied as encoding every window afresh, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fer_edge.model.network import AttentionCnnBiLstm
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
    device, spec, head = train.images.device, recipe.sequence, model.head
    bank = FeatureBank.encode(model, train, recipe, report)
    weights = class_weights(train.labels, recipe.loss, recipe.model.classes)
    dropout = nn.Dropout(recipe.loss.dropout)

    def context_logits(features: Tensor, length: Tensor) -> Tensor:
        logits: Tensor = temporary(dropout(head.context(features, length)[0]))
        return logits

    head.train()
    moving = [*head.bilstm.parameters(), *head.attention.parameters(), *temporary.parameters()]
    _train(
        context_logits,
        moving,
        _windows(bank, train, recipe, spec.context_epochs, 3),
        weights,
        recipe,
        report,
        "context",
    )

    head.eval()
    contexts, labels = [], []
    generator = seeded(device, recipe.seed, 4)
    with torch.no_grad():
        for _ in range(2):
            for index in batches(len(train), spec.batch_size, generator):
                contexts.append(head.context(*draw_windows(bank, index, spec.window, generator))[0])
                labels.append(train.labels[index])
    fit_discriminants(head.lda, torch.cat(contexts), torch.cat(labels))

    def logits_behind_lda(features: Tensor, length: Tensor) -> Tensor:
        with torch.no_grad():
            context, _ = head.context(features, length)
        return head.classify(context)

    head.train()
    moving = [*head.reconstruction.parameters(), *head.classifier.parameters()]
    for parameter in moving:
        parameter.requires_grad_(True)
    epochs = _windows(bank, train, recipe, spec.classifier_epochs, 5)
    _train(logits_behind_lda, moving, epochs, weights, recipe, report, "classifier", spec.classifier_rate)
    head.eval()


Windows = Iterator[tuple[int, int, Tensor, Tensor, Tensor]]


def _windows(bank: FeatureBank, train: DeviceFaces, recipe: TrainRecipe, epochs: int, stage: int) -> Windows:
    spec = recipe.sequence
    per_epoch = max(1, len(train) // spec.batch_size)
    for epoch in range(epochs):
        generator = seeded(train.images.device, recipe.seed, stage, epoch)
        for step, index in enumerate(batches(len(train), spec.batch_size, generator)):
            features, length = draw_windows(bank, index, spec.window, generator)
            yield epoch * per_epoch + step, epochs * per_epoch, features, length, train.targets[index]


def _train(
    forward: Callable[[Tensor, Tensor], Tensor],
    moving: list[nn.Parameter],
    windows: Windows,
    weights: Tensor,
    recipe: TrainRecipe,
    report: Reporter,
    stage: str,
    rate: float,
) -> None:
    torch.manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(moving, lr=rate, weight_decay=0.01, fused=True)
    schedule = OptimiserSpec(epochs=1, learning_rate=rate, warmup_epochs=0.05)
    for step, total, features, length, targets in windows:
        for group in optimiser.param_groups:
            group["lr"] = scheduled_rate(schedule, step, total)
        loss = soft_cross_entropy(forward(features, length), targets, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(moving, recipe.optimiser.clip_norm)
        optimiser.step()
        report.step(stage, step + 1, total)


@torch.no_grad()
def window_logits(model: AttentionCnnBiLstm, features: Tensor) -> Tensor:
    """Logits of full windows: features (T, N, F), oldest first, -> (N, classes)."""
    steps = len(features)
    found = []
    for part in torch.split(features, 1024, dim=1):
        length = torch.full((part.shape[1],), steps, device=part.device)
        found.append(model.head(part.transpose(0, 1), length)[0])
    return torch.cat(found)
