"""Structured pruning: a trained network becomes a smaller dense one, with its own weights.

Torch-Pruning removes filters from the CNN along its dependency graph, those with the smallest scale of their batch
normalisation first (Liu et al. 2017, arXiv 1708.06519). It cannot follow a bidirectional LSTM, so the inputs and hidden
units of the BiLSTMs, and everything that reads them, are narrowed here. The result has a `ModelConfig` of its own, and
is trained and exported like any other network.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, require
from fer_edge.model.cnn import FrameCNN, ResidualBlock
from fer_edge.model.config import ModelConfig
from fer_edge.model.cost import encoder_macs, parameter_count
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.recipe import PruneRecipe

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

    def limits(self, config: ModelConfig) -> Limits:
        """Return the limits for a network of this shape.

        Raises:
            InputError: the network already has no more parameters, and no other target is set.
        """
        cost = Limits.of(config)
        if self.parameters is not None and self.macs is None and self.parameters >= cost.parameters:
            raise InputError(
                f"--parameters: got {self.parameters:,}, expected less than the network's {cost.parameters:,}"
            )
        return Limits(
            macs=int(cost.macs * (self.macs or 1.0)),
            parameters=min(cost.parameters, self.parameters or cost.parameters),
        )


def prune_model(
    model: AttentionCnnBiLstm, probe: nn.Linear, *, limits: Limits, recipe: PruneRecipe
) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """Narrow a model until it is within `limits`, as close to them as rounding allows.

    Args:
        model: on the CPU; not changed. One within the limits is copied.
        limits: upper limits of the result's cost.
        recipe: rounding, and the BiLSTMs' share.

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
        cnn, filters = _prune_cnn(model, ratio=ratio, round_to=recipe.round_to)
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
    return _narrowed(model, probe, config, cnn=cnn, filters=filters)


def _rounded(width: float, multiple: int) -> int:
    return round(width / multiple) * multiple


def _prune_cnn(model: AttentionCnnBiLstm, *, ratio: float, round_to: int) -> tuple[FrameCNN, Tensor]:
    """Prune a copy of the CNN; also returns the kept channels of its output, int64 (C',)."""
    pruning: ModuleType = require("torch_pruning", needed_by="fer-edge prune", extra="train")
    cnn = copy.deepcopy(model.encoder.cnn).float().eval()
    side = model.config.input_size
    pruner = pruning.pruner.MetaPruner(
        cnn,
        torch.zeros(1, 1, side, side),
        importance=pruning.importance.BNScaleImportance(),
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


@torch.no_grad()
def _narrowed(
    model: AttentionCnnBiLstm, probe: nn.Linear, config: ModelConfig, *, cnn: FrameCNN, filters: Tensor
) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """Return the network around a narrower CNN, with the matching rows and columns of all other tensors.

    Args:
        config: the narrower shape.
        cnn: of that shape, with its weights.
        filters: int64, the kept channels of the model's last feature map.
    """
    result = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    units, hidden = _units(model, config.spatial_hidden), model.config.spatial_hidden
    columns = torch.cat((units[0], units[1] + hidden))
    state = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("encoder.cnn.")}
    state |= {f"encoder.cnn.{name}": tensor for name, tensor in cnn.state_dict().items()}
    for part, inputs in (("encoder", filters), ("head", columns)):
        _narrow_lstm(state, f"{part}.bilstm.lstm", inputs, units, hidden)
        _narrow_attention(state, f"{part}.attention", columns, config.attention_size)
    state["encoder.shortcut.weight"] = state["encoder.shortcut.weight"][columns][:, filters]
    outputs = [f"encoder.output.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    for name in ("encoder.shortcut.bias", *outputs, "head.lda.mean", "head.lda.projection"):
        state[name] = state[name][columns]
    result.load_state_dict({name: state[name] for name in result.state_dict()})
    classifier = nn.Linear(config.feature_size, config.classes)
    classifier.load_state_dict({"weight": probe.weight[:, columns], "bias": probe.bias})
    return result.eval(), classifier


def _units(model: AttentionCnnBiLstm, keep: int) -> tuple[Tensor, Tensor]:
    """Choose hidden units by the squared norm of all weights that write or read them, each as a share of its matrix.

    Returns:
        int64 (keep,) for each direction.
    """
    hidden, state = model.config.spatial_hidden, model.state_dict()

    def importance(name: str) -> Tensor:
        scores = state[name].square()
        shares: Tensor = scores / scores.sum().clamp(min=torch.finfo(scores.dtype).tiny)
        return shares

    readers = [
        importance("encoder.shortcut.weight").T,
        importance("encoder.output.weight").unsqueeze(0),
        *(importance(f"{part}.attention.{name}.weight") for part in ("encoder", "head") for name in ("query", "key")),
        *(importance(f"head.bilstm.lstm.weight_ih_l0{suffix}") for suffix in ("", "_reverse")),
    ]
    scores = torch.stack([each.sum(dim=0) for each in readers]).sum(dim=0)
    kept = []
    for direction, suffix in enumerate(("", "_reverse")):
        score = scores[direction * hidden : (direction + 1) * hidden].clone()
        for part in ("encoder", "head"):
            for name in ("weight_ih_l0", "weight_hh_l0"):
                rows = importance(f"{part}.bilstm.lstm.{name}{suffix}").sum(dim=1)
                score += rows.view(4, hidden).sum(dim=0)
        kept.append(_largest(score, keep))
    return kept[0], kept[1]


def _largest(scores: Tensor, count: int) -> Tensor:
    """Indices of the largest scores, ascending."""
    return scores.topk(count).indices.sort().values


def _narrow_lstm(
    state: dict[str, Tensor], prefix: str, inputs: Tensor, units: tuple[Tensor, Tensor], hidden: int
) -> None:
    """Keep some inputs and hidden units of a BiLSTM."""
    for suffix, kept in zip(("", "_reverse"), units, strict=True):
        gates = torch.cat([kept + gate * hidden for gate in range(4)])
        columns: Mapping[str, Tensor | slice] = {
            "weight_ih_l0": inputs, "weight_hh_l0": kept, "bias_ih_l0": slice(None), "bias_hh_l0": slice(None),
        }  # fmt: skip
        for name, column in columns.items():
            rows = state[f"{prefix}.{name}{suffix}"][gates]
            state[f"{prefix}.{name}{suffix}"] = rows if rows.ndim == 1 else rows[:, column]


def _narrow_attention(state: dict[str, Tensor], prefix: str, columns: Tensor, size: int) -> None:
    """Keep some input columns, and the `size` strongest query-key pairs."""
    query, key = (state[f"{prefix}.{name}.weight"][:, columns] for name in ("query", "key"))
    kept = _largest((query * key).square().sum(dim=1), size)
    state[f"{prefix}.query.weight"], state[f"{prefix}.key.weight"] = query[kept], key[kept]
    state[f"{prefix}.query.bias"] = state[f"{prefix}.query.bias"][kept]
