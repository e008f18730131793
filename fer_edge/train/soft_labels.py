"""Soft labels from teachers that never saw the face: each is asked about the fold that it was not trained on.

A network that is asked about faces it was trained on repeats their labels: `full` is right on 82 % of Training and on
71 % of other faces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Progress
from fer_edge.data import Dataset
from fer_edge.data.folds import fold_numbers
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.augment import augment_faces, median_filter
from fer_edge.train.batches import DeviceFaces, seeded
from fer_edge.train.device import autocast
from fer_edge.train.frame_classifier import FrameClassifier, inference_copy
from fer_edge.train.loop import no_progress
from fer_edge.train.recipe import AugmentSpec, TrainRecipe
from fer_edge.train.run_folder import TrainRun, load_tensors

__all__ = ["SoftLabels", "soft_labels", "softened"]


@dataclass(frozen=True, kw_only=True)
class SoftLabels:
    """What the teachers that never saw a training face make of it.

    Attributes:
        labels: float32 (N, classes), probabilities by the probe for the labels.
        crowd: float32 (N, classes + 1), by the probe for the crowd's votes.
    """

    labels: Tensor
    crowd: Tensor


@torch.no_grad()
def soft_labels(
    runs: Sequence[TrainRun],
    dataset: Dataset,
    *,
    views: int = 8,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> SoftLabels:
    """Ask every teacher about its held-out fold and average.

    Args:
        runs: results of `train_fold`, for every fold the same number of teachers.
        dataset: the data set that they were trained on.
        views: mildly augmented views of each face, half of them mirrored.

    Raises:
        InputError: a fold has more or fewer teachers than another, or a teacher has other folds or preprocessing.
    """
    train, place = dataset.split("train"), device or torch.device("cpu")
    held_out = Counter((run.record["fold"]["folds"], run.record["fold"]["fold"]) for run in runs)
    folds = max((folds for folds, _ in held_out), default=0)
    if set(held_out) != {(folds, fold) for fold in range(folds)} or len(set(held_out.values())) > 1:
        found = ", ".join(f"{count} of fold {fold}/{of}" for (of, fold), count in sorted(held_out.items()))
        raise InputError(f"teachers: got {found}, expected as many for every fold of one division")
    numbers = torch.from_numpy(fold_numbers(train, folds))
    spec = replace(runs[0].recipe.preprocess, median=0)
    images = torch.from_numpy(np.array(prepare_stills(np.asarray(train.images), spec)))
    classes = runs[0].recipe.model.classes
    labels, crowd = torch.zeros(len(train), classes), torch.zeros(len(train), classes + 1)
    for done, run in enumerate(runs):
        if replace(run.recipe.preprocess, median=0) != spec:
            raise InputError(f"{run.path}: got other preprocessing than {runs[0].path}, expected the same")
        rows = (numbers == run.record["fold"]["fold"]).nonzero().squeeze(1)
        own, votes = _probabilities(_teacher(run).to(place), images[rows].to(place), run.recipe, views=views, seed=seed)
        labels[rows] += own.cpu() * folds / len(runs)
        crowd[rows] += votes.cpu() * folds / len(runs)
        progress("soft labels", done + 1, len(runs))
    return SoftLabels(labels=labels, crowd=crowd)


def softened(faces: DeviceFaces, soft: SoftLabels, weight: float) -> DeviceFaces:
    """Move the targets of the training faces toward their soft labels; negatives behind them keep theirs.

    Args:
        faces: the training split, and any negatives.
        soft: of the training split.
        weight: share of the soft label; a face without a vote that counts takes all of its crowd target from it.
    """
    count, targets = len(soft.labels), faces.targets.clone()
    targets[:count] += weight * (soft.labels.to(targets.device) - targets[:count])
    if faces.crowd is None:
        return replace(faces, targets=targets)
    crowd = faces.crowd.clone()
    share = torch.where(crowd[:count].sum(dim=1, keepdim=True) > 0, weight, 1.0)
    crowd[:count] += share * (soft.crowd.to(crowd.device) - crowd[:count])
    return replace(faces, targets=targets, crowd=crowd)


def _teacher(run: TrainRun) -> FrameClassifier:
    """Load a fold's network with both probes, for inference.

    Raises:
        InputError: the run is not finished, or its weights are damaged.
    """
    if not run.done:
        raise InputError(f"{run.path}: the run is not finished; continue it")
    config = run.recipe.model
    model = AttentionCnnBiLstm(config, normalisation=run.recipe.preprocess.normalisation)
    probe, crowd = nn.Linear(config.feature_size, config.classes), nn.Linear(config.feature_size, config.classes + 1)
    load_tensors(run.path / "model.safetensors", {"model": model, "probe": probe, "crowd_probe": crowd})
    return inference_copy(FrameClassifier(model, probe, crowd=crowd))


_VIEWS = AugmentSpec(
    rotation_degrees=6.0, scale=0.06, shift=0.04, shear=0.0, gamma=0.2, gain=0.1, gradient=10.0, noise=0.0, blur=0.0,
    erase=0.0, mix=0.0,
)  # fmt: skip


def _probabilities(
    teacher: FrameClassifier, images: Tensor, recipe: TrainRecipe, *, views: int, seed: int, size: int = 512
) -> tuple[Tensor, Tensor]:
    labels, crowd = [], []
    for start in range(0, len(images), size):
        outputs = []
        for view in range(views):
            generator = seeded(images.device, seed, start, view)
            faces = augment_faces(images[start : start + size], replace(_VIEWS, flip=float(view % 2)), generator)
            with autocast(recipe.precision, images.device):
                outputs.append(teacher(median_filter(faces, recipe.preprocess.median)))
        labels.append(torch.stack([torch.softmax(each.logits.float(), dim=1) for each in outputs]).mean(dim=0))
        crowd.append(torch.stack([torch.softmax(each.crowd.float(), dim=1) for each in outputs]).mean(dim=0))
    return torch.cat(labels), torch.cat(crowd)
