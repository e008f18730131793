"""The classifier that a network without one begins its training with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fer_edge.core.errors import DataError
from fer_edge.train.linear_probe import fit_probe


def _contexts(classes: int) -> tuple[Tensor, Tensor]:
    """Classes that overlap, in a space whose second half says the same a hundred times smaller."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % classes
    centres = torch.randn(classes, 4, generator=generator)
    rows = centres[labels] + 2.0 * torch.randn(3000, 4, generator=generator)
    return torch.cat((rows, 5 + rows.roll(1, dims=1) / 100), dim=1), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_it_knows_the_classes_and_how_sure_it_is(classes: int) -> None:
    contexts, labels = _contexts(classes)
    layer = fit_probe(contexts, labels, classes=classes)
    with torch.no_grad():
        logits = layer(contexts)
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    right = (logits.argmax(dim=1) == labels).float().mean()
    assert logits.shape == (3000, classes)
    assert right > 1.2 / classes
    # No scaling of all logits does better: gradients are of the size that a trained classifier's are.
    others = [float(torch.nn.functional.cross_entropy(scale * logits, labels)) for scale in (0.7, 1.5)]
    assert loss < min(others)


def test_a_class_without_rows_is_refused() -> None:
    contexts, labels = _contexts(3)
    with pytest.raises(DataError, match=r"got \[1000, 1000, 1000, 0\] rows by class"):
        fit_probe(contexts, labels, classes=4)
