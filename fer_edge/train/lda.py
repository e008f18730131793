"""Fit of the Linear Discriminant Analysis inside the sequence head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.errors import DataError, require
from fer_edge.model.layers import LinearDiscriminants

__all__ = ["fit_discriminants"]


def fit_discriminants(layer: LinearDiscriminants, contexts: Tensor, labels: Tensor) -> None:
    """Fit the layer to contexts of training windows, with Ledoit-Wolf shrinkage of the within-class covariance.

    The discriminants solve the generalised eigenproblem of between- and within-class scatter (Fisher 1936), scaled to
    unit within-class variance.

    Args:
        layer: receives mean and projection.
        contexts: float (N, W).
        labels: int64 (N,).

    Raises:
        DataError: a class has fewer than two rows, or the rows hardly vary within the classes.
    """
    analysis = require("sklearn.discriminant_analysis", needed_by="the LDA fit", extra="train")
    samples, classes = contexts.double().cpu().numpy(), labels.cpu().numpy()
    present, counts = np.unique(classes, return_counts=True)
    discriminants = layer.projection.shape[1]
    if len(present) <= discriminants or counts.min() < 2:
        raise DataError(
            f"LDA with {discriminants} discriminants: got {dict(zip(present.tolist(), counts.tolist(), strict=True))} "
            f"rows by class, expected at least two rows of {discriminants + 1} classes"
        )
    try:
        fitted = analysis.LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(samples, classes)
    except np.linalg.LinAlgError as error:
        raise DataError(
            f"LDA: got {len(samples)} rows that hardly vary within the classes ({error}); train on more data"
        ) from error
    projection = fitted.scalings_[:, :discriminants]
    mean = samples.mean(axis=0)
    projected = (samples - mean) @ projection
    within = np.mean([projected[classes == label].var(axis=0) for label in present], axis=0)
    layer.mean.copy_(torch.from_numpy(mean))
    layer.projection.copy_(torch.from_numpy(projection / np.sqrt(within)))
    layer.fitted.fill_(True)
