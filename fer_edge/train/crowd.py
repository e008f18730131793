"""What the head `crowd` is trained on: the distributions of the FER+ votes, and made negatives beside the faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.crowd import class_shares, vote_shares
from fer_edge.core.errors import DataError
from fer_edge.core.labels import CROWD_LABELS, EXPRESSIONS, NOT_JUDGEABLE
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Uint8
from fer_edge.data import Dataset, StillSet
from fer_edge.data.negatives import TRAINED_NEGATIVES, make_negatives
from fer_edge.data.sampling import draw_sample
from fer_edge.model.network import AttentionCnnBiLstm, SequenceHead
from fer_edge.train.batches import DeviceFaces, seeded
from fer_edge.train.feature_cache import ClipFeatures
from fer_edge.train.frame_classifier import single_contexts
from fer_edge.train.linear_probe import face_contexts
from fer_edge.train.recipe import TrainRecipe

__all__ = [
    "class_frequencies",
    "crowd_clips",
    "crowd_recipe",
    "distribution_probe",
    "expect_votes",
    "fit_distributions",
    "new_crowd_head",
    "probe_logits",
    "probe_of_votes",
    "training_negatives",
    "with_crowd",
]

_CHANGING: Final = 0.5
"""Share of the negatives' clips in which a face is shown before or after."""

_RIDGE: Final = 1e-4

_FACES: Final = 8192
"""Training faces that a probe is fitted to, at most."""


def expect_votes(dataset: Dataset) -> None:
    """Refuse data without FER+ votes.

    Raises:
        DataError: the split to train on or to choose on has none.
    """
    for role in ("train", "choose"):
        if dataset.split(role).votes is None:
            raise DataError(
                f"{dataset.source}: got no FER+ votes in {dataset.split(role).name}, expected some for the head "
                "'crowd'; add fer2013new.csv beside fer2013.csv, or train with --set heads=[\"fer2013\"]"
            )


def class_frequencies(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return the share of each label in the training split, by reading; a reading without all labels is left out."""
    train = dataset.split("train")
    counts = np.bincount(train.labels, minlength=len(dataset.expressions)) / max(len(train), 1)
    found = {"fer2013": {name: float(each) for name, each in zip(dataset.expressions, counts, strict=True)}}
    if train.votes is not None and dataset.expressions == EXPRESSIONS:
        found["crowd"] = class_shares(np.asarray(train.votes))
    return {reading: shares for reading, shares in found.items() if min(shares.values()) > 0}


def crowd_recipe(recipe: TrainRecipe) -> TrainRecipe:
    """Return the recipe of the head `crowd`: eight outputs, and no teacher beside the votes."""
    sequence = replace(recipe.sequence, distil_weight=0.0, alone_distil_weight=0.0)
    loss = replace(recipe.loss, class_weights="none")
    return replace(recipe, model=recipe.model.crowd, sequence=sequence, loss=loss)


def new_crowd_head(head: SequenceHead, recipe: TrainRecipe) -> SequenceHead:
    """Initialise a head `crowd` whose BiLSTM and attention are those of another head.

    Args:
        head: of the same encoder.
        recipe: `crowd_recipe`.
    """
    fresh = SequenceHead(recipe.model)
    fresh.bilstm.load_state_dict(head.bilstm.state_dict())
    fresh.attention.load_state_dict(head.attention.state_dict())
    return fresh


def training_negatives(stills: StillSet, *, share: float, seed: int) -> Uint8:
    """Make negatives of every trained kind, `share` as many as there are faces: uint8 (N, H, W)."""
    each = max(1, round(share * len(stills) / len(TRAINED_NEGATIVES)))
    faces = np.asarray(stills.images)
    return np.concatenate([make_negatives(kind, each, faces=faces, seed=seed) for kind in TRAINED_NEGATIVES])


def with_crowd(faces: DeviceFaces, stills: StillSet, recipe: TrainRecipe) -> DeviceFaces:
    """Add the shares of the votes to the training faces, and made negatives behind them.

    Args:
        faces: of the training split, prepared without the median filter.
        stills: the same rows, with votes.
        recipe: `sequence.negatives` is the share of negatives.
    """
    assert stills.votes is not None
    device = faces.labels.device
    made = training_negatives(stills, share=recipe.sequence.negatives, seed=recipe.seed)
    unfiltered = replace(recipe.preprocess, median=0)
    pictures = torch.from_numpy(np.array(prepare_stills(made, unfiltered))).to(device)
    shares = torch.from_numpy(vote_shares(np.asarray(stills.votes))).float()
    rejected = nn.functional.one_hot(torch.full((len(made),), shares.shape[1] - 1), shares.shape[1]).float()
    return DeviceFaces(
        images=torch.cat((faces.images, pictures)),
        labels=torch.cat((faces.labels, torch.full((len(made),), -1, device=device))),
        targets=torch.cat((faces.targets, faces.targets.new_zeros(len(made), faces.targets.shape[1]))),
        crowd=torch.cat((shares, rejected)).to(device),
    )


def crowd_clips(clips: ClipFeatures, votes: Uint8, negatives: Tensor, *, seed: int) -> ClipFeatures:
    """Label clips with the crowd's votes and add clips of negatives.

    Frames of a still without a vote that counts lose their label. Half of the negatives' clips change from a face to
    the negative at some frame.

    Args:
        clips: features of a clip of every still.
        votes: uint8 (N, 10) of these stills.
        negatives: float (M, F), features of negatives.
        seed: of the faces in the negatives' clips.
    """
    device, frames = clips.labels.device, clips.rows.shape[1]
    targets = torch.from_numpy(vote_shares(np.asarray(votes))).float().to(device)
    rows = torch.where(targets.sum(dim=1)[clips.rows.clamp(min=0)] > 0, clips.rows, -1)
    generator = seeded(device, seed, 6)
    count = len(negatives)
    given = torch.randint(len(clips), (count,), generator=generator, device=device)
    change = 1 + (torch.rand(count, generator=generator, device=device) * (frames - 1)).long()
    whole = torch.rand(count, generator=generator, device=device) >= _CHANGING
    shown = torch.arange(frames, device=device) >= torch.where(whole, 0, change).unsqueeze(1)
    pictures = negatives.to(device).to(clips.features.dtype)
    own = len(clips.labels) + torch.arange(count, device=device)
    nothing = nn.functional.one_hot(torch.full((count,), CROWD_LABELS.index(NOT_JUDGEABLE)), len(CROWD_LABELS))
    joined = torch.cat((targets, nothing.float().to(device)))
    return ClipFeatures(
        features=torch.cat((clips.features, torch.where(shown.unsqueeze(2), pictures[:, None], clips.features[given]))),
        stills=torch.cat((clips.stills, pictures)),
        rows=torch.cat((rows, torch.where(shown, own.unsqueeze(1), rows[given]))),
        labels=joined.argmax(dim=1),
        targets=joined,
    )


def probe_logits(head: SequenceHead, probe: nn.Linear) -> Callable[[Tensor], Tensor]:
    """Return the function of single frames' features (N, F) to the probe's logits (N, C)."""
    return lambda features: probe(single_contexts(head, features.float()))


def distribution_probe(clips: ClipFeatures, head: SequenceHead) -> nn.Linear:
    """Fit a linear classifier of the head's contexts to the distributions of the stills that have one."""
    assert clips.targets is not None
    kept = clips.targets.sum(dim=1) > 0
    with torch.no_grad():
        contexts = single_contexts(head.eval(), clips.stills[kept].float())
    return fit_distributions(contexts, clips.targets[kept])


def probe_of_votes(model: AttentionCnnBiLstm, dataset: Dataset, recipe: TrainRecipe) -> nn.Linear:
    """Fit a probe to the votes of a sample of the training faces and to negatives, on the CPU."""
    stills = draw_sample(dataset, size=min(_FACES, len(dataset.split("train"))), seed=0).stills
    faces = with_crowd(DeviceFaces.of(stills, recipe, torch.device("cpu")), stills, recipe)
    assert faces.crowd is not None
    kept = faces.crowd.sum(dim=1) > 0
    return fit_distributions(face_contexts(model.eval(), faces.images[kept]), faces.crowd[kept])


def fit_distributions(contexts: Tensor, targets: Tensor) -> nn.Linear:
    """Fit a logistic regression to distributions.

    Args:
        contexts: float (N, F).
        targets: float (N, C), rows sum to 1.
    """
    rows, wanted = contexts.detach().double().cpu(), targets.double().cpu()
    mean, scale = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp(min=1e-6)
    standard = (rows - mean) / scale
    weight = torch.zeros(wanted.shape[1], rows.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(wanted.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = nn.functional.linear(standard, weight, bias)
        loss = nn.functional.cross_entropy(logits, wanted) + _RIDGE * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    probe = nn.Linear(rows.shape[1], wanted.shape[1])
    with torch.no_grad():
        matrix = weight / scale
        probe.weight.copy_(matrix)
        probe.bias.copy_(bias - matrix @ mean)
    return probe.to(contexts.device)
