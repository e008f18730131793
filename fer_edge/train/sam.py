"""Sharpness-aware minimisation (SAM): steps follow the gradient at the worst point nearby.

Sharp minima fit single noisy labels; flat ones hold for many rows. Sources: Foret et al. 2021 (arXiv 2010.01412); the
radius is relative to each weight's magnitude (Kwon et al. 2021, arXiv 2102.11600).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import torch
from torch import nn

__all__ = ["sam_ascent"]

_ETA: Final = 0.01
"""Added to every weight's magnitude (Kwon et al.), so that weights of zero move too."""


@contextlib.contextmanager
def sam_ascent(module: nn.Module, radius: float) -> Iterator[None]:
    """Move the weights to the SAM ascent point; restore them on exit.

    Args:
        module: with the gradients of a loss. Batch normalisations do not update their running statistics inside.
        radius: distance in units of the weights' own magnitudes.
    """
    pairs = [(each, each.grad) for each in module.parameters() if each.grad is not None]
    parameters = [parameter for parameter, _ in pairs]
    norms = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        before = [parameter.clone() for parameter in parameters]
        scales = [parameter.abs() + _ETA for parameter in parameters]
        steps = [scale * gradient for scale, (_, gradient) in zip(scales, pairs, strict=True)]
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(step) for step in steps]))
        for parameter, scale, step in zip(parameters, scales, steps, strict=True):
            parameter.add_(radius / length.clamp(min=1e-12) * scale * step)
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
