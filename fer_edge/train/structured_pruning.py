"""Structured pruning: a trained network becomes a smaller dense one, with its own weights.

Torch-Pruning removes filters from the CNN along its dependency graph. It cannot follow a bidirectional LSTM, so the
BiLSTMs' inputs and hidden units, and everything that reads them, are narrowed by `fer_edge.train.weight_transfer`. The
result has a `ModelConfig` of its own and is trained and exported like any other network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, require
from fer_edge.model.cnn import FrameCNN, ResidualBlock
from fer_edge.model.config import ModelConfig
from fer_edge.model.cost import encoder_macs, parameter_count
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.importance import Ranking
from fer_edge.train.recipe import PruneRecipe
from fer_edge.train.weight_transfer import narrowed

__all__ = ["Limits", "PruneTarget", "prune_model"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits of a network's cost.

    Attributes:
        macs: multiply-accumulates of its frame encoder.
        parameters: of encoder and head together.
    """

    macs: int
    parameters: int

    @classmethod
    def of(cls, config: ModelConfig) -> Limits:
        """Return the cost of a shape."""
        return cls(macs=encoder_macs(config), parameters=parameter_count(config))

    def hold(self, config: ModelConfig) -> bool:
        """Whether a shape costs no more."""
        cost = Limits.of(config)
        return cost.macs <= self.macs and cost.parameters <= self.parameters


@dataclass(frozen=True, kw_only=True)
class PruneTarget:
    """Target size of a pruned network; None leaves a quantity unlimited.

    Attributes:
        macs: share of the frame encoder's multiply-accumulates to keep, between 0 and 1.
        parameters: parameters of encoder and head together.

    Raises:
        InputError: a share outside (0, 1), or no parameters.
    """

    macs: float | None = None
    parameters: int | None = None

    def __post_init__(self) -> None:
        if self.macs is not None and not 0 < self.macs < 1:
            raise InputError(f"--macs: got {self.macs:g}, expected a share of multiply-accumulates between 0 and 1")
        if self.parameters is not None and self.parameters < 1:
            raise InputError(f"--parameters: got {self.parameters}, expected the number of parameters to keep")

    def limits(self, config: ModelConfig, *, step: int = 1, steps: int = 1) -> Limits:
        """Return the limits after one of several steps that each keep the same share of a network of this shape.

        Raises:
            InputError: the network already has no more parameters, and no other target is set.
        """
        cost, way = Limits.of(config), step / steps
        if self.parameters is not None and self.macs is None and self.parameters >= cost.parameters:
            raise InputError(
                f"--parameters: got {self.parameters:,}, expected less than the network's {cost.parameters:,}"
            )
        kept = min(1.0, (self.parameters or cost.parameters) / cost.parameters)
        parameters = self.parameters if step == steps and kept < 1 else None
        return Limits(
            macs=int(cost.macs * (self.macs or 1.0) ** way),
            parameters=parameters or int(cost.parameters * kept**way),
        )


def prune_model(
    model: AttentionCnnBiLstm, probe: nn.Linear, *, limits: Limits, recipe: PruneRecipe, ranking: Ranking
) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """Narrow a model until it is within `limits`, as close to them as rounding allows.

    Args:
        model: on the CPU; not changed. One within the limits is copied.
        limits: upper limits of the result's cost.
        recipe: rounding, and the BiLSTMs' share.
        ranking: which filters and units to remove first.

    Returns:
        the network, whose LDA must be fitted again, and the probe.

    Raises:
        InputError: the narrowest possible model exceeds the limits.
    """
    if limits.hold(model.config):
        return copy.deepcopy(model), copy.deepcopy(probe)
    cost, hidden = Limits.of(model.config), model.config.spatial_hidden
    share = min(limits.macs / cost.macs, limits.parameters / cost.parameters)
    kept_hidden = max(recipe.round_to, _rounded(hidden * (1 - recipe.recurrent * (1 - share)), recipe.round_to))
    base = replace(model.config, spatial_hidden=min(hidden, kept_hidden), temporal_hidden=min(hidden, kept_hidden))
    low, high = 0.0, 0.95
    best: tuple[ModelConfig, FrameCNN, Tensor] | None = None
    for _ in range(12):
        ratio = (low + high) / 2
        cnn, filters = _prune_cnn(model, ratio=ratio, round_to=recipe.round_to, ranking=ranking)
        config = _shape_of(cnn, base)
        if limits.hold(config):
            best, high = (config, cnn, filters), ratio
        else:
            low = ratio
    if best is None:
        raise InputError(
            f"--macs or --parameters: got {limits.macs:,} multiply-accumulates and {limits.parameters:,} parameters, "
            f"out of reach with channels in multiples of {recipe.round_to}; ask for a larger share or lower round_to"
        )
    config, cnn, filters = best
    return narrowed(model, probe, config, cnn=cnn, filters=filters, ranking=ranking)


def _rounded(width: float, multiple: int) -> int:
    return round(width / multiple) * multiple


def _prune_cnn(model: AttentionCnnBiLstm, *, ratio: float, round_to: int, ranking: Ranking) -> tuple[FrameCNN, Tensor]:
    """Prune a copy of the CNN; also returns the kept channels of its output, int64 (C',)."""
    pruning: ModuleType = require("torch_pruning", needed_by="fer-edge prune", extra="train")
    cnn = copy.deepcopy(model.encoder.cnn).float().eval()
    side = model.config.input_size
    pruner = pruning.pruner.MetaPruner(
        cnn,
        torch.zeros(1, 1, side, side),
        importance=ranking.of_filters(cnn, prefix="encoder.cnn."),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        round_to=round_to,
    )
    last = [module for module in cnn.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    kept = torch.ones(last.num_features, dtype=torch.bool)
    for group in pruner.step(interactive=True):
        for item in group:
            if item.dep.target.module is last:
                kept[list(item.idxs)] = False
        group.prune()
    return cnn, kept.nonzero().squeeze(1)


def _shape_of(cnn: FrameCNN, base: ModelConfig) -> ModelConfig:
    """Return the configuration of a pruned CNN."""
    channels, blocks = [], []
    for stage in cnn:
        layers = list(stage.children())
        channels.append([layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)][-1])
        blocks.append(tuple(layer.width for layer in layers if isinstance(layer, ResidualBlock)))
    return replace(base, channels=tuple(channels), blocks=tuple(blocks))
