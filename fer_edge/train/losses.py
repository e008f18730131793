"""Losses: cross-entropy on soft targets, centre loss, and the divergences of distillation, one value a row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.train.recipe import LossSpec

__all__ = [
    "CentreLoss",
    "class_weights",
    "distillation_losses",
    "soft_cross_entropies",
    "soft_cross_entropy",
    "soft_targets",
]


def soft_targets(labels: Tensor, votes: Tensor | None, spec: LossSpec, classes: int) -> Tensor:
    """Compute the distribution that each row is trained toward: label, FER+ votes, then label smoothing.

    Rows whose votes are all outside the seven expressions keep their label.

    Args:
        labels: int64 (N,).
        votes: uint8 (N, 10) in `FERPLUS_VOTES` order, or None.
        spec: `votes_weight` and `label_smoothing`.

    Returns:
        float32 (N, classes), rows sum to one.
    """
    target = nn.functional.one_hot(labels, classes).float()
    if votes is not None and spec.votes_weight > 0:
        order = [FERPLUS_VOTES.index(name) for name in EXPRESSIONS]
        counts = votes[:, order].float()
        total = counts.sum(dim=1, keepdim=True)
        crowd = counts / total.clamp(min=1)
        target = torch.where(total > 0, target + spec.votes_weight * (crowd - target), target)
    return target + spec.label_smoothing * (1 / classes - target)


def class_weights(labels: Tensor, spec: LossSpec, classes: int) -> Tensor:
    """Compute the weight of each class, mean one over the rows: float32 (classes,)."""
    counts = torch.bincount(labels, minlength=classes).float().clamp(min=1)
    weights = counts.rsqrt() if spec.class_weights == "inverse-sqrt" else torch.ones_like(counts)
    return weights * (counts.sum() / (weights * counts).sum())


def soft_cross_entropies(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Compute every row's class-weighted cross-entropy with soft targets: float32 (B,).

    Args:
        logits: (B, classes).
        targets: float (B, classes).
        weights: float (classes,).
    """
    return -(torch.log_softmax(logits.float(), dim=1) * targets * weights).sum(dim=1)


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean of `soft_cross_entropies`."""
    return soft_cross_entropies(logits, targets, weights).mean()


def distillation_losses(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute every row's KL divergence to a teacher's softened output, times the squared temperature: float32 (B,).

    Source: Hinton et al. 2015 (arXiv 1503.02531).
    """
    student = torch.log_softmax(logits.float() / temperature, dim=1)
    target = torch.log_softmax(teacher.float() / temperature, dim=1)
    rows = nn.functional.kl_div(student, target, reduction="none", log_target=True).sum(dim=1)
    return rows * temperature**2


class CentreLoss(nn.Module):
    """Half the mean squared distance of each row to its class centre (Wen et al. 2016).

    The centres are buffers: after each step they move toward the means of the mini-batch by `rate`
    (section 3.2 of the paper: centres updated by mini-batch).
    """

    centres: Tensor

    def __init__(self, classes: int, width: int, *, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("centres", torch.zeros(classes, width))

    def forward(self, context: Tensor, labels: Tensor) -> Tensor:
        """context (B, W), labels int64 (B,) -> scalar."""
        return 0.5 * (context.float() - self.centres[labels]).square().sum(dim=1).mean()

    @torch.no_grad()
    def update(self, context: Tensor, labels: Tensor) -> None:
        """Move the centres toward this mini-batch: c -= rate x sum(c - x) / (1 + count), eq. 4 of Wen et al."""
        away = torch.zeros_like(self.centres)
        away.index_add_(0, labels, self.centres[labels] - context.float())
        count = torch.bincount(labels, minlength=len(self.centres)).float()
        self.centres -= self.rate * away / (1 + count).unsqueeze(1)
