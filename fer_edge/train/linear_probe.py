"""Linear probes: a logistic regression on the contexts of single training faces.

Bundles do not store the classifier of the first stage; a random one would ruin the encoder in the first epoch, so a
probe is fitted before training continues.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from fer_edge.core.errors import DataError, require
from fer_edge.data import Dataset
from fer_edge.data.sampling import draw_sample
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.frame_classifier import single_contexts
from fer_edge.train.recipe import TrainRecipe

__all__ = ["face_contexts", "fit_probe", "probe_of_faces", "probe_of_features"]

_FACES: Final = 8192
"""Training faces that a probe is fitted to, at most."""

_STRENGTH: Final = 0.1
"""Inverse ridge strength: the best of 0.01 to 1 on contexts of FER2013, for 2,000 rows and for all."""


def probe_of_faces(model: AttentionCnnBiLstm, dataset: Dataset, recipe: TrainRecipe) -> nn.Linear:
    """Fit a probe to a sample of the training faces, on the CPU.

    Raises:
        DataError: the training split lacks an expression.
    """
    sample = draw_sample(dataset, size=min(_FACES, len(dataset.split("train"))), seed=0).stills
    faces = DeviceFaces.of(sample, recipe, torch.device("cpu"))
    model.eval()
    return fit_probe(face_contexts(model, faces.images), faces.labels, classes=recipe.model.classes)


@torch.no_grad()
def probe_of_features(model: AttentionCnnBiLstm, features: Tensor, labels: Tensor) -> nn.Linear:
    """Fit a probe to encoded faces.

    Args:
        model: in evaluation mode.
        features: floating (N, F).
        labels: int64 (N,).

    Raises:
        DataError: a class has no row.
    """
    contexts = torch.cat([single_contexts(model.head, part.float()) for part in torch.split(features, _FACES)])
    return fit_probe(contexts, labels, classes=model.config.classes).to(features.device)


@torch.no_grad()
def face_contexts(model: AttentionCnnBiLstm, faces: Tensor, *, size: int = 256) -> Tensor:
    """Compute the contexts of single faces uint8 (N, S, S), in the model's current mode: float (N, F)."""
    return torch.cat([single_contexts(model.head, model.encoder(part)[0]) for part in torch.split(faces, size)])


def fit_probe(contexts: Tensor, labels: Tensor, *, classes: int) -> nn.Linear:
    """Fit a logistic regression on standardised contexts, as one linear layer.

    Args:
        contexts: float (N, F).
        labels: int64 (N,).

    Raises:
        DataError: a class has no row.
    """
    linear = require("sklearn.linear_model", needed_by="the linear probe", extra="train")
    counts = torch.bincount(labels, minlength=classes)
    if int(counts.min()) < 1:
        raise DataError(f"linear probe: got {counts.tolist()} rows by class, expected rows of all {classes} classes")
    rows = contexts.double().cpu()
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp(min=1e-6)
    fitted = linear.LogisticRegression(C=_STRENGTH, max_iter=1000).fit(
        ((rows - mean) / scale).numpy(), labels.cpu().numpy()
    )
    weight, bias = torch.from_numpy(fitted.coef_) / scale, torch.from_numpy(fitted.intercept_)
    bias = bias - weight @ mean
    if classes == 2:  # scikit-learn returns one row for two classes
        weight, bias = torch.cat((-weight / 2, weight / 2)), torch.cat((-bias / 2, bias / 2))
    layer = nn.Linear(contexts.shape[1], classes)
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer
