"""Structured pruning: a trained run becomes a smaller dense one, fine-tuned under its parent's eyes.

Torch-Pruning removes filters from the CNN along its dependency graph. It does not follow a bidirectional LSTM, so what
hangs on one is narrowed here: the LSTM's input columns that lose their filter, and hidden units of both BiLSTMs with
everything that reads them. The result has a `ModelConfig` of its own and is trained and exported like any other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fer_edge.data import Dataset
from fer_edge.errors import InputError, require
from fer_edge.model.cnn import FrameCNN, ResidualBlock
from fer_edge.model.config import ModelConfig
from fer_edge.model.cost import encoder_macs
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.distributed import processes
from fer_edge.train.frame_stage import FrameClassifier
from fer_edge.train.progress import Reporter, Silent
from fer_edge.train.recipe import PruneRecipe
from fer_edge.train.run import TrainRun
from fer_edge.train.trainer import fit_stages, open_run

__all__ = ["PrunedModel", "prune_model", "prune_run"]


@dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """A narrowed model with its parent's weights, not yet fine-tuned.

    Attributes:
        config: its shape.
        model: the network; its LDA is the parent's, cut down, and must be fitted again.
        temporary: the temporary classifier, cut down likewise.
        macs: (before, after) of the frame encoder.
    """

    config: ModelConfig
    model: AttentionCnnBiLstm
    temporary: nn.Linear
    macs: tuple[int, int]


def prune_run(
    parent: TrainRun,
    out: Path,
    dataset: Dataset,
    *,
    macs: float,
    recipe: PruneRecipe | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> TrainRun:
    """Prune a finished run to a share of its MACs and fine-tune it, its parent as teacher.

    Args:
        parent: the finished run.
        out: folder of the new run.
        dataset: as for training; the same data as the parent's unless you mean otherwise.
        macs: share of the frame encoder's multiply-accumulates to keep, between 0 and 1.
        recipe: how to rank, round and fine-tune.
        resume: go on with a fine-tuning that was broken off.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: told of progress.

    Raises:
        InputError: the parent is not finished, the target cannot be reached, or `out` holds a run.
    """
    recipe = recipe or PruneRecipe()
    dataset.expect_expressions(parent.labels, of=str(parent.path))
    model, temporary = parent.load_model()
    pruned = prune_model(model, temporary, macs=macs, recipe=recipe)
    config = replace(parent.recipe, model=pruned.config, optimiser=recipe.optimiser)
    facts = {
        "parent": {**parent.identity, "model": parent.record["recipe"]["model"]},
        "pruning": {
            "macs_target": macs,
            "macs_before": pruned.macs[0],
            "macs_after": pruned.macs[1],
            "importance": recipe.importance,
            "round_to": recipe.round_to,
        },
    }
    with processes(device) as peers:
        run = open_run(config, dataset, out, facts, resume=resume, peers=peers)
        if not run.done:
            torch.manual_seed(config.seed)
            teacher = FrameClassifier(model, temporary, dropout=0.0).to(peers.device).eval()
            fit_stages(
                run, pruned.model, pruned.temporary, dataset, peers,
                spec=recipe.optimiser, report=report or Silent(), teacher=teacher,
            )  # fmt: skip
    return run


def prune_model(model: AttentionCnnBiLstm, temporary: nn.Linear, *, macs: float, recipe: PruneRecipe) -> PrunedModel:
    """Narrow a model to at most `macs` of its encoder's multiply-accumulates, and as close to it as rounding allows.

    Raises:
        InputError: the target lies outside (0, 1) or below what the narrowest model of these rules costs.
    """
    if not 0 < macs < 1:
        raise InputError(f"--macs is the share of multiply-accumulates to keep, between 0 and 1; got {macs:g}")
    before = encoder_macs(model.config)
    hidden = model.config.spatial_hidden
    kept_hidden = max(recipe.round_to, _rounded(hidden * (1 - recipe.recurrent * (1 - macs)), recipe.round_to))
    base = replace(model.config, spatial_hidden=min(hidden, kept_hidden), temporal_hidden=min(hidden, kept_hidden))
    low, high = 0.0, 0.95
    best: tuple[ModelConfig, FrameCNN, Tensor] | None = None
    for _ in range(12):
        ratio = (low + high) / 2
        cnn, filters = _prune_cnn(model.encoder.cnn, model.config.input_size, ratio=ratio, recipe=recipe)
        config = _shape_of(cnn, base)
        if encoder_macs(config) <= macs * before:
            best, high = (config, cnn, filters), ratio
        else:
            low = ratio
    if best is None:
        raise InputError(
            f"--macs {macs:g} is out of reach: with channels in multiples of {recipe.round_to} this model keeps more; "
            "ask for a larger share or a smaller round_to"
        )
    config, cnn, filters = best
    narrowed = AttentionCnnBiLstm(config, normalisation=model.normalisation)
    state = _narrow(model.state_dict(), cnn, filters, _units(model, config.spatial_hidden), hidden)
    narrowed.load_state_dict(state)
    units = _feature_columns(_units(model, config.spatial_hidden), hidden)
    classifier = nn.Linear(config.feature_size, config.classes)
    classifier.load_state_dict({"weight": temporary.weight[:, units], "bias": temporary.bias})
    return PrunedModel(config=config, model=narrowed, temporary=classifier, macs=(before, encoder_macs(config)))


def _rounded(width: float, multiple: int) -> int:
    return round(width / multiple) * multiple


def _prune_cnn(source: FrameCNN, side: int, *, ratio: float, recipe: PruneRecipe) -> tuple[FrameCNN, Tensor]:
    """Prune a copy of the CNN; also returns which of its output filters are kept, int64 (C',)."""
    pruning: ModuleType = require("torch_pruning", needed_by="fer-edge prune", extra="train")
    cnn = copy.deepcopy(source).float().eval()
    kinds: Mapping[str, Any] = {
        "group-norm": pruning.importance.GroupMagnitudeImportance(p=2),
        "bn-scale": pruning.importance.BNScaleImportance(),
    }
    pruner = pruning.pruner.MetaPruner(
        cnn,
        torch.zeros(1, 1, side, side),
        importance=kinds[recipe.importance],
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=0.9,
        round_to=recipe.round_to,
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
        channels.append(next(layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)))
        blocks.append(tuple(layer.width for layer in layers if isinstance(layer, ResidualBlock)))
    return replace(base, channels=tuple(channels), blocks=tuple(blocks))


def _units(model: AttentionCnnBiLstm, keep: int) -> tuple[Tensor, Tensor]:
    """Hidden units to keep, ranked by the norm of all weights that make or read a unit: int64 (keep,) a direction."""
    hidden = model.config.spatial_hidden
    state = model.state_dict()
    readers = [
        state["encoder.shortcut.weight"].T,
        state["encoder.output.weight"].unsqueeze(0),
        *(state[f"{part}.attention.{name}.weight"] for part in ("encoder", "head") for name in ("query", "key")),
        *(state[f"head.bilstm.lstm.weight_ih_l0{suffix}"] for suffix in ("", "_reverse")),
    ]
    scores = torch.stack([(weight / weight.norm()).square().sum(dim=0) for weight in readers]).sum(dim=0)
    kept = []
    for direction, suffix in enumerate(("", "_reverse")):
        score = scores[direction * hidden : (direction + 1) * hidden].clone()
        for part in ("encoder", "head"):
            for name in ("weight_ih_l0", "weight_hh_l0"):
                weight = state[f"{part}.bilstm.lstm.{name}{suffix}"]
                score += (weight / weight.norm()).square().sum(dim=1).view(4, hidden).sum(dim=0)
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
