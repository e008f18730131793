"""The complete system on whole CK+ sequences: its frame features, then BiLSTM, attention, LDA and DenseNet block."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.accuracy import softmax
from fer_edge.core.json import encode
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.types import Float32, Int64, Progress
from fer_edge.data.ckplus import PEAK_FRAMES, SequenceSet
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import SequenceHead
from fer_edge.paper.recipe import CkPlusSpec
from fer_edge.paper.results import RunResult, SplitPredictions
from fer_edge.paper.system_network import Proposed, system_config
from fer_edge.paper.systems import PEAK_MEAN, SEQUENCE, SYSTEMS
from fer_edge.paper.training import FeatureTask, TrainedSystem, classifier_spec
from fer_edge.train.augment import augment_faces, median_filter
from fer_edge.train.batches import DeviceFaces, seeded
from fer_edge.train.distributed import autocast
from fer_edge.train.lda import fit_discriminants
from fer_edge.train.losses import soft_targets
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import versions

__all__ = ["SequenceTraining", "peak_mean"]

_PART: Final = 64  # sequences per forward pass without gradients


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceTraining:
    """Trains a sequence head on the features of a complete system that was trained on the same subjects' stills.

    The frame encoder is fixed. Each sequence is encoded a few times, each time with one augmentation for all frames.

    Attributes:
        sequences: neutral to peak.
        rows: sequences to train, choose and report on (`SequenceSet.fold`).
        recipe: of the stills' training.
        spec: window, copies and optimiser.
    """

    trained: TrainedSystem
    sequences: SequenceSet
    rows: dict[str, Int64]
    recipe: TrainRecipe
    spec: CkPlusSpec
    progress: Progress

    def run(self) -> RunResult:
        """Train the head and predict the held-out sequences."""
        started, trunk = time.monotonic(), self.trained.network.trunk
        assert isinstance(trunk, Proposed)
        labels = torch.from_numpy(self.sequences.labels[self.rows["train"]])
        config = dataclasses.replace(
            system_config(SYSTEMS["complete"], self.recipe.model),
            discriminants=min(self.recipe.model.discriminants, len(torch.unique(labels)) - 1),
        )
        device = next(trunk.parameters()).device
        head = SequenceHead(config).to(device)
        head.bilstm.load_state_dict(trunk.bilstm.state_dict())
        self._fit(head, config, trunk.encoder, labels.to(device))

        def predictions(name: str) -> SplitPredictions:
            frames, lengths = self._windows(name, device)
            with torch.no_grad():
                logits = head(self._features(trunk.encoder, frames, 0), lengths)[0].float().cpu().numpy()
            return _predictions(self.sequences, self.rows[name], name, softmax(logits).astype(np.float32))

        parameters = sum(each.numel() for part in (trunk.encoder, head) for each in part.parameters())
        return RunResult(
            system=SEQUENCE,
            seed=self.recipe.seed,
            epochs=self.spec.sequence.epochs,
            best_epoch=None,
            seconds=round(time.monotonic() - started, 1),
            parameters=parameters + head.lda.projection.numel() + head.lda.mean.numel(),
            macs=None,
            choose=predictions("val"),
            report=predictions("test"),
            settings={"recipe": encode(self.recipe), "spec": encode(self.spec), "versions": versions()},
        )

    def _fit(self, head: SequenceHead, config: ModelConfig, encoder: nn.Module, labels: Tensor) -> None:
        """Train BiLSTM and attention in front of a linear classifier, fit the LDA, train what follows it."""
        frames, lengths = self._windows("train", labels.device)
        features = torch.stack([self._features(encoder, frames, copy) for copy in range(self.spec.copies)])
        targets = soft_targets(labels.cpu(), None, self.recipe.loss, config.classes).to(labels.device)
        faces = DeviceFaces(images=frames[:, -1], labels=labels, targets=targets)
        probe = nn.Linear(config.feature_size, config.classes).to(labels.device)
        dropout = nn.Dropout(self.recipe.loss.dropout)

        def logits(batch: Tensor, length: Tensor) -> Tensor:
            found: Tensor = probe(dropout(head.context(batch, length)[0]))
            return found

        FeatureTask(
            module=nn.ModuleList((head, probe, dropout)),
            features=features,
            faces=faces,
            recipe=self.recipe,
            spec=self.spec.sequence,
            logits=logits,
            moving=[*head.bilstm.parameters(), *head.attention.parameters(), *probe.parameters()],
            extra=(lengths,),
        ).fit(stage="context", key=5, progress=self.progress)
        head.eval()
        with torch.no_grad():
            contexts = torch.stack([head.context(copy, lengths)[0] for copy in features])
        fit_discriminants(head.lda, contexts.flatten(0, 1), labels.repeat(len(contexts)))
        FeatureTask(
            module=head,
            features=contexts,
            faces=faces,
            recipe=self.recipe,
            spec=classifier_spec(self.recipe),
            logits=head.classify,
            moving=[*head.reconstruction.parameters(), *head.classifier.parameters()],
        ).fit(stage="classifier", key=6, progress=self.progress)
        head.eval()

    def _windows(self, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return sequences of one length, uint8 (N, T, S, S) resized, and their real frames, int64 (N,)."""
        frames, lengths = self.sequences.windows(self.spec.window, rows=self.rows[name])
        unfiltered = dataclasses.replace(self.recipe.preprocess, median=0)
        prepared = prepare_stills(frames.reshape(-1, *frames.shape[2:]), unfiltered)
        shaped = np.array(prepared.reshape(*frames.shape[:2], *prepared.shape[1:]))
        return torch.from_numpy(shaped).to(device), torch.from_numpy(lengths).to(device)

    @torch.no_grad()
    def _features(self, encoder: nn.Module, frames: Tensor, copy: int) -> Tensor:
        """Encode windows: float32 (N, T, F); copy 0 unchanged, the others with one augmentation a sequence."""
        recipe, found = self.recipe, []
        for number, part in enumerate(torch.split(frames, _PART)):
            steps = []
            for step in range(part.shape[1]):
                faces = part[:, step]
                if copy:  # the same generator for every frame, so that a sequence is transformed as one
                    faces = augment_faces(faces, recipe.augment, seeded(faces.device, recipe.seed, 4, copy, number))
                with autocast(recipe.precision, faces.device):
                    steps.append(encoder(median_filter(faces, recipe.preprocess.median))[0].float())
            found.append(torch.stack(steps, dim=1))
        return torch.cat(found)


def peak_mean(trained: TrainedSystem, stills: RunResult, sequences: SequenceSet, rows: dict[str, Int64]) -> RunResult:
    """Predict the same sequences from stills: mean probabilities over the last three frames."""

    def predictions(name: str) -> SplitPredictions:
        peaks = sequences.starts[rows[name] + 1][:, None] - np.arange(PEAK_FRAMES, 0, -1)
        faces = np.asarray(sequences.frames[peaks.ravel()])
        found = trained.predict(faces).reshape(len(peaks), PEAK_FRAMES, -1)
        return _predictions(sequences, rows[name], name, found.mean(axis=1))

    return dataclasses.replace(
        stills, system=PEAK_MEAN, seconds=0.0, choose=predictions("val"), report=predictions("test")
    )


def _predictions(sequences: SequenceSet, rows: Int64, name: str, probabilities: Float32) -> SplitPredictions:
    return SplitPredictions(
        split=name,
        labels=sequences.labels[rows],
        probabilities=probabilities,
        leaked=np.zeros(len(rows), np.bool_),
        dataset="ckplus-sequences",
        classes=sequences.expressions,
    )
