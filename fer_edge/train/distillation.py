"""Distillation: one teacher or several, whose mean probabilities a student follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError
from fer_edge.model.config import ModelConfig
from fer_edge.train.frame_classifier import FrameClassifier, inference_copy

__all__ = ["Teachers", "mean_logits"]

_SMALLEST: Final = 1e-8
"""Lower bound of probabilities before the logarithm."""


def mean_logits(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Return logits (B, classes) whose softmax at the temperature is the mean of the teachers' softmaxes.

    Following the mean has the gradient of following every teacher and averaging the losses. A geometric mean would let
    one confident teacher veto a class.

    Args:
        logits: (B, classes) of each teacher, at least one.
    """
    if len(logits) == 1:
        return logits[0]
    mean = torch.stack([torch.softmax(each.float() / temperature, dim=1) for each in logits]).mean(dim=0)
    return temperature * mean.clamp(min=_SMALLEST).log()


class Teachers(nn.Module):
    """One teacher or several, for inference: folded copies of their networks."""

    def __init__(self, members: Sequence[FrameClassifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(inference_copy(member) for member in members)

    def expect_fit(self, student: ModelConfig) -> None:
        """Refuse a student that cannot follow these teachers.

        Raises:
            InputError: input size or classes differ.
        """
        for member in self.members:
            assert isinstance(member, FrameClassifier)
            config = member.model.config
            if (config.input_size, config.classes) != (student.input_size, student.classes):
                raise InputError(
                    f"teacher: got {config.input_size} pixels and {config.classes} expressions, expected the student's "
                    f"{student.input_size} and {student.classes}"
                )

    @torch.no_grad()
    def logits(self, faces: Tensor, temperature: float) -> Tensor:
        """Compute the logits to follow (`mean_logits`) for prepared faces, uint8 (B, S, S)."""
        return mean_logits([member(faces).logits for member in self.members], temperature)
