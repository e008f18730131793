"""Evaluation of a final model on the split to choose on: accuracy, temperature, unknown threshold, clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from fer_edge.core.crowd import crowd_accuracy, rejection_threshold, vote_shares
from fer_edge.core.errors import DataError
from fer_edge.core.metrics import accuracy_report, fit_temperature, softmax
from fer_edge.core.types import Progress
from fer_edge.model.deploy import folded
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceSplits
from fer_edge.train.feature_cache import FeatureExtractor
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.sequence_stage import averaged_predictions, window_logits

__all__ = ["clip_accuracy", "still_accuracy", "vote_accuracy"]

UNKNOWN_SHARE: Final = 0.05
"""Share of the ``choose`` split's faces that fall below the unknown threshold."""


def still_accuracy(run: TrainRun, model: AttentionCnnBiLstm, splits: DeviceSplits) -> dict[str, Any]:
    """Measure a model on the stills of the ``choose`` split, in FP32, for the run's record.

    The temperature minimises the negative log likelihood of the rows that are not in the training split (Guo et al.
    2017, arXiv 1706.04599); the unknown threshold lies above the 5 % least certain of them.
    """
    window, unleaked = run.recipe.sequence.window, splits.unleaked.cpu().numpy()
    features = _features(model, splits.choose.images)
    logits = window_logits(model.head, features.unsqueeze(1))
    labels, values = splits.choose.labels.cpu().numpy(), logits.cpu().numpy()
    temperature = fit_temperature(values[unleaked], labels[unleaked])
    probabilities = softmax(values, temperature=temperature)
    accuracy = accuracy_report(
        probabilities,
        labels,
        dataset=run.record["data"]["dataset"],
        split=splits.choose_set.name,
        leaked=~unleaked,
        classes=run.labels,
    )
    repeated = window_logits(model.head, features.unsqueeze(1).expand(-1, window, -1))
    return {
        "choose": accuracy.to_json(),
        "temperature": temperature,
        "unknown_threshold": float(np.quantile(probabilities[unleaked].max(axis=1), UNKNOWN_SHARE)),
        "top1_by_window": _top1({"still_1": logits, f"still_{window}": repeated}, splits),
    }


def vote_accuracy(run: TrainRun, model: AttentionCnnBiLstm, splits: DeviceSplits) -> dict[str, Any]:
    """Measure a model's head `crowd` on the stills of the ``choose`` split, in FP32, for the run's record.

    Temperature and thresholds come from the rows that are not in the training split: the temperature minimises the
    cross-entropy with the shares of the votes; 1 % of the faces with an expression are rejected as not judgeable.

    Raises:
        DataError: the split has no FER+ votes.
    """
    assert model.crowd is not None
    stills, unleaked = splits.choose_set, splits.unleaked.cpu().numpy()
    if stills.votes is None:
        raise DataError(f"{stills.name}: got no FER+ votes, expected some for the head 'crowd'; add them to the data")
    logits = window_logits(model.crowd, _features(model, splits.choose.images).unsqueeze(1)).cpu().numpy()
    shares = vote_shares(stills.votes)
    judged = unleaked & (shares.sum(axis=1) > 0)
    temperature = fit_temperature(logits[judged], shares[judged])
    probabilities = softmax(logits, temperature=temperature)
    threshold = rejection_threshold(probabilities[unleaked, -1], stills.votes[unleaked])
    seven = probabilities[unleaked, :-1]
    best = seven.max(axis=1) / seven.sum(axis=1)
    return {
        "choose": crowd_accuracy(probabilities, stills.votes, threshold=threshold).to_json(),
        "split": stills.name,
        "temperature": temperature,
        "unknown_threshold": float(np.quantile(best, UNKNOWN_SHARE)),
        "not_judgeable_threshold": threshold,
    }


def clip_accuracy(
    run: TrainRun, model: AttentionCnnBiLstm, splits: DeviceSplits, progress: Progress
) -> dict[str, float]:
    """Measure top-1 on clips of the ``choose`` split: newest frame, whole window, mean over the frames."""
    recipe, device = run.recipe, splits.choose.labels.device
    window = recipe.sequence.window
    plan = replace(recipe.sequence.clip_plan(seed=recipe.seed), frames=window, changing=0.0, mirrored=0.0)
    clips = FeatureExtractor(model, recipe, device, progress).clips(splits.choose_set, plan).to(device)
    logits = {"clip_1": window_logits(model.head, clips[:, -1:]), f"clip_{window}": window_logits(model.head, clips)}
    averaged = (averaged_predictions(model.head, clips) == splits.choose.labels)[splits.unleaked]
    return {**_top1(logits, splits), f"clip_averaged_{window}": float(averaged.float().mean())}


def _top1(logits: Mapping[str, Tensor], splits: DeviceSplits) -> dict[str, float]:
    correct = {name: (each.argmax(dim=1) == splits.choose.labels)[splits.unleaked] for name, each in logits.items()}
    return {name: float(each.float().mean()) for name, each in correct.items()}


@torch.no_grad()
def _features(model: AttentionCnnBiLstm, images: Tensor, *, size: int = 512) -> Tensor:
    model.eval()
    encoder = folded(model.encoder)
    return torch.cat([encoder(part)[0] for part in torch.split(images, size)])
