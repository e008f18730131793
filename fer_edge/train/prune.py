"""`fer-edge prune`: prune a trained network and fine-tune it by distillation.

OUT is a run like any other; its pruned.safetensors holds the weights before fine-tuning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode
from fer_edge.data import Dataset
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.checkpoint import join, load_checkpoint, save_checkpoint
from fer_edge.train.device import compute_device
from fer_edge.train.distillation import Teachers
from fer_edge.train.pretrained import Pretrained, expect_teachers, load_network, load_teachers, teacher_facts
from fer_edge.train.recipe import PruneRecipe, TrainRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun, expect_no_run, load_tensors, open_run
from fer_edge.train.structured_pruning import Limits, PruneTarget, prune_model
from fer_edge.train.train import Stages, expect_choosable

__all__ = ["prune_run"]

_BEGUN: Final = "pruned.safetensors"


def prune_run(
    parent: Pretrained,
    out: Path,
    dataset: Dataset,
    *,
    target: PruneTarget,
    recipe: PruneRecipe = PruneRecipe(),  # noqa: B008 - frozen
    teachers: tuple[Pretrained, ...] = (),
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> TrainRun:
    """Prune a finished run or a bundle and fine-tune it.

    Args:
        parent: a finished run, or a bundle.
        out: folder of the new run.
        target: size.
        teachers: of the fine-tuning; the parent without any.
        options: resume, device, callbacks.

    Raises:
        InputError: no target, one out of reach, a parent that is not finished, a teacher that does not fit, or `out`
            holds another run.
        TrainingDiverged: the loss is not finite.
        OutputError: a run cannot be written.
    """
    if target == PruneTarget():
        raise InputError("prune: got no target; give --macs or --parameters")
    dataset.expect_expressions(parent.labels, of=str(parent.path))
    expect_teachers(teachers, dataset, parent.recipe)
    limits = target.limits(parent.config)  # refused before anything is read
    if not options.resume:
        expect_no_run(out)
    device = compute_device(options.device)
    network, begun = load_network(parent, dataset), out / _BEGUN
    expect_choosable(dataset)
    if not (options.resume and begun.exists()):
        model, probe = prune_model(network.model, network.probe, limits=limits, recipe=recipe)
        tensors = join({"model": model.state_dict(), "probe": probe.state_dict()})
        save_checkpoint(begun, tensors, {"model": encode(model.config)})
    config = decode(ModelConfig, load_checkpoint(begun)[1]["model"])
    plan, facts = recipe.fine_tuning(parent.recipe, config), _facts(parent, target, recipe, config)
    if teachers:
        facts["teacher"] = teacher_facts(teachers)
    run = open_run(plan, dataset, out, facts, resume=options.resume)
    if not run.done:
        torch.manual_seed(run.recipe.seed)
        stages = Stages(
            run=run, dataset=dataset, device=device, options=options,
            teachers=load_teachers(teachers) if teachers else Teachers([network.classifier]),
        )  # fmt: skip
        stages.fit(*_stored(begun, run.recipe))
    return run


def _facts(parent: Pretrained, target: PruneTarget, recipe: PruneRecipe, config: ModelConfig) -> dict[str, Any]:
    """What the run records: parent, target, cost before and after."""
    before, after = Limits.of(parent.config), Limits.of(config)
    return {
        "parent": {**parent.identity, "model": encode(parent.config)},
        "pruning": {
            "macs_target": target.macs,
            "parameters_target": target.parameters,
            "macs_before": before.macs,
            "macs_after": after.macs,
            "parameters_before": before.parameters,
            "parameters_after": after.parameters,
            "round_to": recipe.round_to,
            "recurrent": recipe.recurrent,
        },
    }


def _stored(path: Path, recipe: TrainRecipe) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    config = recipe.model
    model = AttentionCnnBiLstm(config, normalisation=recipe.preprocess.normalisation)
    probe = nn.Linear(config.feature_size, config.classes)
    load_tensors(path, {"model": model, "probe": probe})
    return model.eval(), probe
