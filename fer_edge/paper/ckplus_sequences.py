"""The complete system on whole CK+ sequences: its frame features, a BiLSTM and attention over the frames, its tail."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.json import encode
from fer_edge.core.metrics import softmax
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Int64, Progress
from fer_edge.data.ckplus import PEAK_FRAMES, SequenceSet
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import SequenceHead
from fer_edge.paper.recipe import CkPlusSpec
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.system_network import Proposed, system_config
from fer_edge.paper.systems import System
from fer_edge.paper.training import TrainedSystem, fit_on_features
from fer_edge.train.augment import augment_faces, median_filter
from fer_edge.train.batches import DeviceFaces, seeded
from fer_edge.train.distributed import autocast
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.loop import no_progress
from fer_edge.train.losses import soft_targets
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import versions

__all__ = ["PEAK_MEAN", "SEQUENCE", "peak_mean", "train_on_sequences"]

SEQUENCE: Final = "complete-sequence"
"""The run's name of the complete system with its sequence head, neutral to peak."""

PEAK_MEAN: Final = "complete-peak-mean"
"""The run's name of the complete system on stills, its probabilities averaged over the last three frames."""

_PART: Final = 64  # sequences at once where nothing is learnt


@dataclass(frozen=True, kw_only=True, eq=False)
class _Windows:
    """Sequences brought to one length: uint8 (N, T, S, S) resized, int64 (N,) real frames."""

    frames: Tensor
    lengths: Tensor


def train_on_sequences(
    trained: TrainedSystem,
    system: System,
    sequences: SequenceSet,
    rows: dict[str, Int64],
    recipe: TrainRecipe,
    spec: CkPlusSpec,
    *,
    device: torch.device,
    report: Progress | None = None,
) -> RunResult:
    """Train a sequence head on the features of a system that was trained on the same subjects' stills.

    The frame encoder stands still. Every sequence is encoded a few times, each time with one augmentation for all of
    its frames; BiLSTM and attention over the frames are trained in front of a linear classifier, then LDA is fitted and
    the DenseNet block and the classifier behind it are trained.

    Args:
        trained: the complete system, trained on the same fold.
        system: what it is.
        sequences: neutral to peak.
        rows: sequences to train, choose and report on (`SequenceSet.fold`).
        recipe: of the stills' training, with its seed and preprocessing.
        spec: window, copies and optimiser.
        device: to train on.
        report: told of progress.
    """
    report, started = report or no_progress, time.monotonic()
    torch.manual_seed(recipe.seed)
    assert isinstance(trained.network.trunk, Proposed)
    trunk = trained.network.trunk.to(device).eval()
    windows = {name: _windows(sequences, chosen, recipe, spec, device) for name, chosen in rows.items()}
    labels = torch.from_numpy(sequences.labels[rows["train"]])
    config = dataclasses.replace(
        system_config(system, recipe.model),
        discriminants=min(recipe.model.discriminants, len(torch.unique(labels)) - 1),
    )
    head = SequenceHead(config).to(device)
    head.bilstm.load_state_dict(trunk.bilstm.state_dict())
    faces = DeviceFaces(
        images=windows["train"].frames[:, -1],
        labels=labels.to(device),
        targets=soft_targets(labels, None, recipe.loss, config.classes).to(device),
    )
    copies = [_features(trunk.encoder, windows["train"], recipe, copy) for copy in range(spec.copies)]
    _fit(head, config, torch.stack(copies), windows["train"].lengths, faces, recipe, spec, report)

    def predictions(name: str) -> SplitPredictions:
        features = _features(trunk.encoder, windows[name], recipe, 0)
        with torch.no_grad():
            logits = head(features, windows[name].lengths)[0].float().cpu().numpy()
        return _predictions(sequences, rows[name], name, softmax(logits).astype(np.float32))

    parameters = sum(each.numel() for part in (trunk.encoder, head) for each in part.parameters())
    return RunResult(
        system=SEQUENCE,
        seed=recipe.seed,
        epochs=spec.sequence.epochs,
        best_epoch=None,
        seconds=round(time.monotonic() - started, 1),
        parameters=parameters + head.lda.projection.numel() + head.lda.mean.numel(),
        macs=None,
        choose=predictions("val"),
        report=predictions("test"),
        settings={"recipe": encode(recipe), "spec": encode(spec), "versions": versions()},
    )


def peak_mean(trained: TrainedSystem, stills: RunResult, sequences: SequenceSet, rows: dict[str, Int64]) -> RunResult:
    """What the stills' training says of the same sequences: its mean probabilities over the last three frames."""

    def predictions(name: str) -> SplitPredictions:
        peaks = sequences.starts[rows[name] + 1][:, None] - np.arange(PEAK_FRAMES, 0, -1)
        faces = np.asarray(sequences.frames[peaks.ravel()])
        found = trained.predict(faces).reshape(len(peaks), PEAK_FRAMES, -1)
        return _predictions(sequences, rows[name], name, found.mean(axis=1))

    return dataclasses.replace(
        stills, system=PEAK_MEAN, seconds=0.0, choose=predictions("val"), report=predictions("test")
    )


def _windows(
    sequences: SequenceSet, rows: Int64, recipe: TrainRecipe, spec: CkPlusSpec, device: torch.device
) -> _Windows:
    frames, lengths = sequences.windows(spec.window, rows=rows)
    unfiltered = dataclasses.replace(recipe.preprocess, median=0)
    prepared = prepare_stills(frames.reshape(-1, *frames.shape[2:]), unfiltered)
    shaped = prepared.reshape(*frames.shape[:2], *prepared.shape[1:])
    return _Windows(frames=torch.from_numpy(np.array(shaped)).to(device), lengths=torch.from_numpy(lengths).to(device))


@torch.no_grad()
def _features(encoder: nn.Module, windows: _Windows, recipe: TrainRecipe, copy: int) -> Tensor:
    """float32 (N, T, F); copy 0 as the frames are, the others with one augmentation a sequence."""
    found = []
    for number, part in enumerate(torch.split(windows.frames, _PART)):
        steps = []
        for step in range(part.shape[1]):
            faces = part[:, step]
            if copy:  # the same generator for every step: a sequence is turned, lit and mirrored as one
                faces = augment_faces(faces, recipe.augment, seeded(faces.device, recipe.seed, 4, copy, number))
            with autocast(recipe.precision, faces.device):
                steps.append(encoder(median_filter(faces, recipe.preprocess.median))[0].float())
        found.append(torch.stack(steps, dim=1))
    return torch.cat(found)


def _fit(
    head: SequenceHead,
    config: ModelConfig,
    features: Tensor,
    lengths: Tensor,
    faces: DeviceFaces,
    recipe: TrainRecipe,
    spec: CkPlusSpec,
    report: Progress,
) -> None:
    """Context, LDA, and what stands behind it, from features (copies, N, T, F)."""
    device = features.device
    temporary = nn.Linear(config.feature_size, config.classes).to(device)
    dropout = nn.Dropout(recipe.loss.dropout)

    def drawn(index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        copy = torch.randint(len(features), (len(index),), generator=generator, device=device)
        return features[copy, index], lengths[index]

    def first(index: Tensor, generator: torch.Generator) -> Tensor:
        found: Tensor = temporary(dropout(head.context(*drawn(index, generator))[0]))
        return found

    head.train()
    moving = [*head.bilstm.parameters(), *head.attention.parameters(), *temporary.parameters()]
    fit_on_features(first, moving, faces, recipe, report=report, spec=spec.sequence, stage="context", key=5)
    head.eval()
    with torch.no_grad():
        contexts = torch.stack([head.context(copy, lengths)[0] for copy in features])
    fit_discriminants(head.lda, contexts.flatten(0, 1), faces.labels.repeat(len(contexts)))

    def second(index: Tensor, generator: torch.Generator) -> Tensor:
        copy = torch.randint(len(contexts), (len(index),), generator=generator, device=device)
        return head.classify(contexts[copy, index])

    head.train()
    behind = [*head.reconstruction.parameters(), *head.classifier.parameters()]
    fit_on_features(second, behind, faces, recipe, report=report, key=6)
    head.eval()


def _predictions(sequences: SequenceSet, rows: Int64, name: str, probabilities: Float32) -> SplitPredictions:
    return SplitPredictions(
        split=name,
        labels=sequences.labels[rows],
        probabilities=probabilities,
        leaked=np.zeros(len(rows), np.bool_),
        dataset="ckplus-sequences",
        classes=sequences.expressions,
    )
