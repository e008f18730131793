"""A temporary classifier for a network that comes without one: a bundle has none, and training begins at its mercy.

Gradients of a classifier that knows nothing undo in one epoch what the encoder has learnt, so it is fitted to the
contexts of training faces before anything else moves.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, require
from fer_edge.data import Dataset
from fer_edge.data.sampling import draw_sample
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.frame_stage import single_contexts
from fer_edge.train.recipe import TrainRecipe

__all__ = ["classifier_of_features", "face_contexts", "fit_classifier", "temporary_classifier"]

_FACES: Final = 8192
"""Training faces that a temporary classifier is fitted to, at most."""

_STRENGTH: Final = 0.1
"""Inverse of the ridge: on contexts of FER2013 the best of 0.01 to 1, from two thousand rows to all of them."""


def temporary_classifier(model: AttentionCnnBiLstm, dataset: Dataset, recipe: TrainRecipe) -> nn.Linear:
    """A linear classifier of the contexts of single training faces, which lie on the CPU as the model does.

    Raises:
        InputError: the training split lacks an expression.
    """
    some = draw_sample(dataset, size=min(_FACES, len(dataset.split("train"))), seed=0).stills
    faces = DeviceFaces.load(some, recipe.preprocess, recipe.loss, torch.device("cpu"), classes=recipe.model.classes)
    model.eval()
    return fit_classifier(face_contexts(model, faces.images), faces.labels, classes=recipe.model.classes)


@torch.no_grad()
def classifier_of_features(model: AttentionCnnBiLstm, features: Tensor, labels: Tensor) -> nn.Linear:
    """The same, of faces that are encoded already, where the head's context has changed under a temporary classifier.

    Args:
        model: in evaluation mode.
        features: floating (N, F).
        labels: int64 (N,).

    Raises:
        InputError: a class has no row.
    """
    contexts = torch.cat([single_contexts(model, part.float()) for part in torch.split(features, _FACES)])
    return fit_classifier(contexts, labels, classes=model.config.classes).to(features.device)


@torch.no_grad()
def face_contexts(model: AttentionCnnBiLstm, faces: Tensor, *, size: int = 256) -> Tensor:
    """Contexts of single faces uint8 (N, S, S), as the model's mode has it: float (N, F)."""
    return torch.cat([single_contexts(model, model.encoder(part)[0]) for part in torch.split(faces, size)])


def fit_classifier(contexts: Tensor, labels: Tensor, *, classes: int) -> nn.Linear:
    """Logistic regression on standardised contexts, as one linear layer.

    Args:
        contexts: float (N, F).
        labels: int64 (N,).
        classes: how many there are.

    Raises:
        InputError: a class has no row.
    """
    linear = require("sklearn.linear_model", needed_by="the temporary classifier", extra="train")
    counts = torch.bincount(labels, minlength=classes)
    if int(counts.min()) < 1:
        raise InputError(f"a classifier of {classes} classes needs rows of each; got {counts.tolist()} rows by class")
    rows = contexts.double().cpu()
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp(min=1e-6)
    fitted = linear.LogisticRegression(C=_STRENGTH, max_iter=1000).fit(
        ((rows - mean) / scale).numpy(), labels.cpu().numpy()
    )
    weight, bias = torch.from_numpy(fitted.coef_) / scale, torch.from_numpy(fitted.intercept_)
    bias = bias - weight @ mean
    if classes == 2:  # one row that tells the second class from the first
        weight, bias = torch.cat((-weight / 2, weight / 2)), torch.cat((-bias / 2, bias / 2))
    layer = nn.Linear(contexts.shape[1], classes)
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer
