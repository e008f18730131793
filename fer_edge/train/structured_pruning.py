"""Structured pruning: a trained network becomes a smaller dense one, with its own weights.

Torch-Pruning removes filters from the CNN along its dependency graph. It does not follow a bidirectional LSTM, so what
hangs on one is narrowed here: the LSTM's input columns that lose their filter, and hidden units of both BiLSTMs with
everything that reads them. The result has a `ModelConfig` of its own and is trained and exported like any other.
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
from fer_edge.train.importance import Ranking
from fer_edge.train.recipe import PruneRecipe

__all__ = ["Limits", "PruneTarget", "PrunedModel", "carry_over", "prune_model"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a network may cost.

    Attributes:
        macs: multiply-accumulates of its frame encoder.
        parameters: of encoder and head together.
    """

    macs: int
    parameters: int

    @classmethod
    def of(cls, config: ModelConfig) -> Limits:
        """What a shape costs."""
        return cls(macs=encoder_macs(config), parameters=parameter_count(config))

    def hold(self, config: ModelConfig) -> bool:
        """Whether a shape costs no more."""
        return encoder_macs(config) <= self.macs and parameter_count(config) <= self.parameters


@dataclass(frozen=True, kw_only=True)
class PruneTarget:
    """How small a network is to become; what is left out is not limited.

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
            raise InputError(f"--macs is the share of multiply-accumulates to keep, between 0 and 1; got {self.macs:g}")
        if self.parameters is not None and self.parameters < 1:
            raise InputError(f"--parameters is the number of parameters to keep; got {self.parameters}")

    def limits(self, config: ModelConfig, *, step: int = 1, steps: int = 1) -> Limits:
        """What a network of this shape may cost after one of several steps that each keep the same share.

        Raises:
            InputError: it has no more parameters than the target's already, and nothing else is asked for.
        """
        cost, way = Limits.of(config), step / steps
        if self.parameters is not None and self.macs is None and self.parameters >= cost.parameters:
            raise InputError(
                f"--parameters {self.parameters:,} is no less than the {cost.parameters:,} that the network has"
            )
        kept = min(1.0, (self.parameters or cost.parameters) / cost.parameters)
        last = step == steps
        return Limits(
            macs=int(cost.macs * (self.macs or 1.0) ** way),
            parameters=self.parameters if last and kept < 1 and self.parameters else int(cost.parameters * kept**way),
        )


@dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """A narrowed model with its parent's weights, not yet fine-tuned.

    Attributes:
        model: the network; its LDA is the parent's, cut down, and must be fitted again.
        temporary: the temporary classifier, cut down likewise.
    """

    model: AttentionCnnBiLstm
    temporary: nn.Linear

    @property
    def config(self) -> ModelConfig:
        """Its shape."""
        return self.model.config


def prune_model(
    model: AttentionCnnBiLstm, temporary: nn.Linear, *, limits: Limits, recipe: PruneRecipe, ranking: Ranking
) -> PrunedModel:
    """Narrow a model until it costs no more than `limits`, and as close to them as rounding allows.

    Args:
        model: on the CPU; not changed. One within the limits is copied.
        temporary: its temporary classifier.
        limits: what the result may cost.
        recipe: how to round, and what the BiLSTMs give.
        ranking: which filters and units go first.

    Raises:
        InputError: the limits lie below what the narrowest model of these rules costs.
    """
    if limits.hold(model.config):
        return PrunedModel(model=copy.deepcopy(model), temporary=copy.deepcopy(temporary))
    cost, hidden = Limits.of(model.config), model.config.spatial_hidden
    share = min(limits.macs / cost.macs, limits.parameters / cost.parameters)
    kept_hidden = max(recipe.round_to, _rounded(hidden * (1 - recipe.recurrent * (1 - share)), recipe.round_to))
    base = replace(model.config, spatial_hidden=min(hidden, kept_hidden), temporal_hidden=min(hidden, kept_hidden))
    low, high = 0.0, 0.95
    best: tuple[ModelConfig, FrameCNN, Tensor] | None = None
    for _ in range(12):
        ratio = (low + high) / 2
        cnn, filters = _prune_cnn(
            model.encoder.cnn, model.config.input_size, ratio=ratio, round_to=recipe.round_to, ranking=ranking
        )
        config = _shape_of(cnn, base)
        if limits.hold(config):
            best, high = (config, cnn, filters), ratio
        else:
            low = ratio
    if best is None:
        raise InputError(
            f"--macs or --parameters is out of reach ({limits.macs:,} multiply-accumulates, {limits.parameters:,} "
            f"parameters): with channels in multiples of {recipe.round_to} this model keeps more; ask for a larger "
            "share or a smaller round_to"
        )
    config, cnn, filters = best
    return carry_over(model, temporary, config, cnn=cnn, filters=filters, ranking=ranking)


def carry_over(
    model: AttentionCnnBiLstm,
    temporary: nn.Linear,
    config: ModelConfig,
    *,
    cnn: FrameCNN,
    filters: Tensor,
    ranking: Ranking,
) -> PrunedModel:
    """The narrower network around a narrower CNN, with what the model's other tensors still hold.

    Args:
        model: the trained network.
        temporary: its temporary classifier.
        config: the narrower shape.
        cnn: of that shape, with its weights.
        filters: int64, those of the model's last feature map that are left.
        ranking: which hidden units, queries and keys stay.
    """
    narrowed = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    units, hidden = _units(model, config.spatial_hidden, ranking), model.config.spatial_hidden
    state = _narrow(model.state_dict(), cnn, filters, units, hidden)
    for part in ("encoder", "head"):
        query, key = (f"{part}.attention.{name}" for name in ("query", "key"))
        worth = (state[f"{query}.weight"] * state[f"{key}.weight"]).square().sum(dim=1)
        kept = worth.topk(config.attention_size).indices.sort().values
        for name in (f"{query}.weight", f"{query}.bias", f"{key}.weight"):
            state[name] = state[name][kept]
    if (config.dense_layers, config.dense_growth) != (model.config.dense_layers, model.config.dense_growth):
        anew = ("head.reconstruction.", "head.classifier.")
        state |= {name: value for name, value in narrowed.state_dict().items() if name.startswith(anew)}
    narrowed.load_state_dict({name: state[name] for name in narrowed.state_dict()})
    classifier = nn.Linear(config.feature_size, config.classes)
    columns = _feature_columns(units, hidden)
    classifier.load_state_dict({"weight": temporary.weight[:, columns], "bias": temporary.bias})
    return PrunedModel(model=narrowed.eval(), temporary=classifier)


def _rounded(width: float, multiple: int) -> int:
    return round(width / multiple) * multiple


def _prune_cnn(
    source: FrameCNN, side: int, *, ratio: float, round_to: int, ranking: Ranking
) -> tuple[FrameCNN, Tensor]:
    """Prune a copy of the CNN; also returns which of its output filters are kept, int64 (C',)."""
    pruning: ModuleType = require("torch_pruning", needed_by="fer-edge prune", extra="train")
    cnn = copy.deepcopy(source).float().eval()
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
    gone: set[int] = set()
    width = last.num_features
    for group in pruner.step(interactive=True):
        for item in group:
            if item.dep.target.module is last:
                gone.update(int(index) for index in item.idxs)
        group.prune()
    kept = torch.tensor([index for index in range(width) if index not in gone])
    return cnn, kept


def _shape_of(cnn: FrameCNN, base: ModelConfig) -> ModelConfig:
    """The configuration that a pruned CNN has come to."""
    channels, blocks = [], []
    for stage in cnn:
        layers = list(stage.children())
        channels.append([layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)][-1])
        blocks.append(tuple(layer.width for layer in layers if isinstance(layer, ResidualBlock)))
    return replace(base, channels=tuple(channels), blocks=tuple(blocks))


def _units(model: AttentionCnnBiLstm, keep: int, ranking: Ranking) -> tuple[Tensor, Tensor]:
    """Hidden units to keep, by what all weights that make or read a unit are worth: int64 (keep,) a direction."""
    hidden = model.config.spatial_hidden
    state = model.state_dict()

    def worth(name: str) -> Tensor:
        return ranking.of_weights(state, name)

    readers = [
        worth("encoder.shortcut.weight").T,
        worth("encoder.output.weight").unsqueeze(0),
        *(worth(f"{part}.attention.{name}.weight") for part in ("encoder", "head") for name in ("query", "key")),
        *(worth(f"head.bilstm.lstm.weight_ih_l0{suffix}") for suffix in ("", "_reverse")),
    ]
    scores = torch.stack([each.sum(dim=0) for each in readers]).sum(dim=0)
    kept = []
    for direction, suffix in enumerate(("", "_reverse")):
        score = scores[direction * hidden : (direction + 1) * hidden].clone()
        for part in ("encoder", "head"):
            for name in ("weight_ih_l0", "weight_hh_l0"):
                rows = worth(f"{part}.bilstm.lstm.{name}{suffix}").sum(dim=1)
                score += rows.view(4, hidden).sum(dim=0)
        kept.append(score.topk(keep).indices.sort().values)
    return kept[0], kept[1]


def _feature_columns(units: tuple[Tensor, Tensor], hidden: int) -> Tensor:
    return torch.cat((units[0], units[1] + hidden))


def _narrow(
    state: Mapping[str, Tensor], cnn: FrameCNN, filters: Tensor, units: tuple[Tensor, Tensor], hidden: int
) -> dict[str, Tensor]:
    """The model's tensors without the rows and columns of what was pruned."""
    columns = _feature_columns(units, hidden)
    narrowed = dict(state)
    narrowed |= {f"encoder.cnn.{name}": tensor for name, tensor in cnn.state_dict().items()}
    for part, inputs in (("encoder", filters), ("head", columns)):
        for suffix, kept in zip(("", "_reverse"), units, strict=True):
            gates = torch.cat([kept + gate * hidden for gate in range(4)])
            prefix = f"{part}.bilstm.lstm."
            narrowed[f"{prefix}weight_ih_l0{suffix}"] = state[f"{prefix}weight_ih_l0{suffix}"][gates][:, inputs]
            narrowed[f"{prefix}weight_hh_l0{suffix}"] = state[f"{prefix}weight_hh_l0{suffix}"][gates][:, kept]
            for bias in ("bias_ih_l0", "bias_hh_l0"):
                narrowed[f"{prefix}{bias}{suffix}"] = state[f"{prefix}{bias}{suffix}"][gates]
        for projection in ("query", "key"):
            narrowed[f"{part}.attention.{projection}.weight"] = state[f"{part}.attention.{projection}.weight"][
                :, columns
            ]
    narrowed["encoder.shortcut.weight"] = state["encoder.shortcut.weight"][columns][:, filters]
    narrowed["encoder.shortcut.bias"] = state["encoder.shortcut.bias"][columns]
    for name in ("weight", "bias", "running_mean", "running_var"):
        narrowed[f"encoder.output.{name}"] = state[f"encoder.output.{name}"][columns]
    narrowed["head.lda.mean"] = state["head.lda.mean"][columns]
    narrowed["head.lda.projection"] = state["head.lda.projection"][columns]
    return narrowed
