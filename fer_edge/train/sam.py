"""Sharpness-aware minimisation: a step goes by the gradient at the worst place nearby, not by the one where it stands.

Where labels are noisy, what only fits single rows is sharp: a little beside the weights that have learnt a wrong label
by heart, the loss is high. What holds for many rows is flat, and stays.

Sources: Foret et al. 2021 (arXiv 2010.01412); each weight's own scale, so that the distance means the same in every
layer, from Kwon et al. 2021 (arXiv 2102.11600).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["worst_nearby"]

_LEAST: Final = 0.01
"""Added to every weight's magnitude (Kwon et al.), so that one that is zero moves too."""


@contextlib.contextmanager
def worst_nearby(module: nn.Module, radius: float) -> Iterator[None]:
    """Within, the weights lie where their gradients say that the loss is highest; behind it, where they lay.

    Args:
        module: with the gradients of a loss. Batch normalisations see what passes within, and take no note of it.
        radius: how far away, in units of the weights' own magnitudes.
    """
    steep = [(parameter, parameter.grad) for parameter in module.parameters() if parameter.grad is not None]
    parameters = [parameter for parameter, _ in steep]
    with torch.no_grad():
        before = [parameter.clone() for parameter in parameters]
        for parameter, away in zip(parameters, _ascent(steep, radius), strict=True):
            parameter.add_(away)
    try:
        with _unnoticed(module):
            yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def _ascent(steep: Sequence[tuple[Tensor, Tensor]], radius: float) -> list[Tensor]:
    """Of weights and their gradients, the step of scaled length `radius` that raises the loss most, to first order."""
    scales = [weight.abs() + _LEAST for weight, _ in steep]
    scaled = [scale * gradient for scale, (_, gradient) in zip(scales, steep, strict=True)]
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in scaled]))
    share = radius / length.clamp(min=1e-12)
    return [share * scale * each for scale, each in zip(scales, scaled, strict=True)]


@contextlib.contextmanager
def _unnoticed(module: nn.Module) -> Iterator[None]:
    """Batch normalisations that normalise by the batch and leave their running statistics as they are."""
    norms = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
