"""Fit of the Linear Discriminant Analysis inside the sequence head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.errors import InputError, require
from fer_edge.model.layers import LinearDiscriminants

__all__ = ["fit_discriminants"]


def fit_discriminants(layer: LinearDiscriminants, contexts: Tensor, labels: Tensor) -> None:
    """Fit the layer to contexts of training windows, within-class covariance shrunk as Ledoit and Wolf estimate it.

    The discriminants solve the generalised eigenproblem of between- and within-class scatter (Fisher 1936) and are
    scaled so that each has unit within-class variance.

    Args:
        layer: receives mean and projection.
        contexts: float (N, W).
        labels: int64 (N,).

    Raises:
        InputError: a class has fewer than two rows, or the rows of the classes hardly vary, so that no scatter can be
            estimated.
    """
    analysis = require("sklearn.discriminant_analysis", needed_by="the LDA fit", extra="train")
    samples, classes = contexts.double().cpu().numpy(), labels.cpu().numpy()
    present, counts = np.unique(classes, return_counts=True)
    discriminants = layer.projection.shape[1]
    if len(present) <= discriminants or counts.min() < 2:
        raise InputError(
            f"LDA with {discriminants} discriminants needs at least two rows of {discriminants + 1} classes; got "
            f"{dict(zip(present.tolist(), counts.tolist(), strict=True))} rows by class"
        )
    try:
        fitted = analysis.LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(samples, classes)
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"LDA cannot be fitted to {len(samples)} rows: within the classes they hardly vary ({error}); train on "
            "more data, or raise the number of augmented copies"
        ) from error
    projection = fitted.scalings_[:, :discriminants]
    mean = samples.mean(axis=0)
    projected = (samples - mean) @ projection
    within = np.mean([projected[classes == label].var(axis=0) for label in present], axis=0)
    layer.mean.copy_(torch.from_numpy(mean))
    layer.projection.copy_(torch.from_numpy(projection / np.sqrt(within)))
    layer.fitted.fill_(True)
