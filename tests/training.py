"""The smallest model and recipe that have every part, for tests of training and export."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from fer_edge.core.label_sets import FERPLUS_VOTES
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.data import Dataset, load_dataset
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.recipe import AugmentSpec, OptimiserSpec, SequenceTraining, TrainRecipe
from fer_edge.train.run_folder import RunOptions

__all__ = [
    "ON_CPU",
    "RESUMED",
    "StopAfter",
    "small_config",
    "small_dataset",
    "small_recipe",
    "trained_like",
    "with_votes",
]


ON_CPU = RunOptions(device="cpu")
RESUMED = RunOptions(device="cpu", resume=True)


def small_config() -> ModelConfig:
    """16x16 input, four tokens, a residual block in two stages."""
    return ModelConfig(
        input_size=16,
        channels=(16, 16, 24, 32),
        blocks=((), (16,), (), (32,)),
        stem_kernel=3,
        token_grid=2,
        spatial_hidden=16,
        attention_size=8,
        temporal_hidden=16,
        dense_growth=8,
    )


def trained_like(config: ModelConfig | None = None, *, seed: int = 0) -> AttentionCnnBiLstm:
    """A network whose batch normalisations do something, of the small shape unless another is given."""
    torch.manual_seed(seed)
    model = AttentionCnnBiLstm(config or small_config()).eval()
    with torch.no_grad():
        for module in model.encoder.cnn.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    return model


def small_recipe(*, epochs: int = 2, batch_size: int = 32) -> TrainRecipe:
    """A training of seconds, in FP32 so that every machine computes the same."""
    return TrainRecipe(
        precision="fp32",
        model=small_config(),
        preprocess=PreprocessSpec(size=16, median=3),
        augment=AugmentSpec(),
        optimiser=OptimiserSpec(epochs=epochs, batch_size=batch_size, warmup_epochs=0.5, ema_decay=0.8),
        sequence=SequenceTraining(window=4, clip_frames=6, context_epochs=1, classifier_epochs=1, batch_size=64),
    )


def small_dataset() -> Dataset:
    """Generated faces with the splits to train, to choose and to report on."""
    return load_dataset("synthetic:300@3")


class StopAfter:
    """A progress callback that presses Ctrl-C at a step of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self.place = (stage, step)

    def __call__(self, stage: str, done: int, total: int) -> None:
        if (stage, done) == self.place:
            raise KeyboardInterrupt


def with_votes(dataset: Dataset) -> Dataset:
    """Seven votes for each face's own label, two for neutral, one for unknown; every 20th face is not judged."""
    splits = {}
    for name, split in dataset.splits.items():
        votes = np.zeros((len(split), len(FERPLUS_VOTES)), np.uint8)
        for row, label in enumerate(split.labels):
            votes[row, FERPLUS_VOTES.index(EXPRESSIONS[label])] += 7
        votes[:, FERPLUS_VOTES.index("neutral")] += 2
        votes[:, FERPLUS_VOTES.index("unknown")] += 1
        votes[::20] = 0
        votes[::20, FERPLUS_VOTES.index("not-a-face")] = 10
        votes[1] = 0  # no vote at all
        splits[name] = dataclasses.replace(split, votes=votes)
    return dataclasses.replace(dataset, splits=splits)
