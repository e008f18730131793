"""`fer-edge prune`: prune a trained network step by step, each step fine-tuned by distillation.

OUT/steps/1, 2, ...   runs of all steps but the last, frame stage only
OUT                   the last step's run; pruned.safetensors in every run holds the weights before fine-tuning
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import nn

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode
from fer_edge.data import Dataset
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batch_norm import training_faces
from fer_edge.train.block_pruning import block_activities, without_blocks
from fer_edge.train.checkpoint import join, load_checkpoint, save_checkpoint
from fer_edge.train.distillation import Teachers
from fer_edge.train.distributed import Processes, processes
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.importance import measure_ranking, ranking_faces
from fer_edge.train.pretrained import (
    Pretrained,
    TrainedNetwork,
    expect_teachers,
    load_network,
    load_teachers,
    teacher_facts,
)
from fer_edge.train.recipe import PruneRecipe, TrainRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun, expect_no_run, load_tensors, open_run
from fer_edge.train.sparsity import WeightMasks, two_of_four
from fer_edge.train.structured_pruning import Limits, PruneTarget, prune_model
from fer_edge.train.train import Stages, expect_choosable

__all__ = ["prune_run"]

_BEGUN: Final = "pruned.safetensors"
_Pruned: TypeAlias = tuple[AttentionCnnBiLstm, nn.Linear]


def prune_run(
    parent: Pretrained,
    out: Path,
    dataset: Dataset,
    *,
    target: PruneTarget = PruneTarget(),  # noqa: B008 - frozen
    recipe: PruneRecipe = PruneRecipe(),  # noqa: B008 - frozen
    teachers: tuple[Pretrained, ...] = (),
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> TrainRun:
    """Prune a finished run or a bundle and fine-tune it.

    Args:
        parent: a finished run, or a bundle.
        out: folder of the new run.
        target: size; without one the recipe must ask for sparsity or block pruning.
        teachers: of the fine-tuning; the parent without any.
        options: resume, device, callbacks.

    Raises:
        InputError: no target, one out of reach, a parent that is not finished, a teacher that does not fit, or `out`
            holds another run.
        TrainingDiverged: the loss is not finite.
        OutputError: a run cannot be written.
    """
    _expect_target(target, recipe, teachers)
    dataset.expect_expressions(parent.labels, of=str(parent.path))
    expect_teachers(teachers, dataset, parent.recipe)
    target.limits(parent.config)  # refused before anything is read
    if not options.resume:
        expect_no_run(out)  # refused before the steps are trained
    with processes(options.device) as peers:
        if peers.leads:
            expect_choosable(dataset)
        network = load_network(parent, dataset)
        pruning = _Pruning(
            origin=parent, network=network, dataset=dataset, target=target, recipe=recipe, peers=peers,
            options=options, given=teachers,
            teachers=load_teachers(teachers) if teachers else Teachers([network.classifier]),
        )  # fmt: skip
        for step in range(1, recipe.steps):
            pruning.take(step, out / "steps" / str(step))
        return pruning.take(recipe.steps, out)


def _expect_target(target: PruneTarget, recipe: PruneRecipe, teachers: tuple[Pretrained, ...]) -> None:
    """Refuse a pruning without a target, or one that `fine_tune=false` excludes.

    Raises:
        InputError: it is one.
    """
    shrinks = target != PruneTarget() or recipe.sparsity.pattern != "none"
    if not shrinks and not recipe.idle_blocks:
        raise InputError("prune: got no target; give --macs, --parameters, --idle-blocks or --sparsity")
    if not recipe.fine_tune and shrinks:
        raise InputError("fine_tune=false: expected --idle-blocks alone; drop it, or the other targets")
    if not recipe.fine_tune and teachers:
        raise InputError(f"fine_tune=false: got the teacher {teachers[0].path}, expected none; drop one of them")


@dataclass(kw_only=True)
class _Pruning:
    origin: Pretrained
    network: TrainedNetwork
    dataset: Dataset
    target: PruneTarget
    recipe: PruneRecipe
    peers: Processes
    options: RunOptions
    given: tuple[Pretrained, ...]
    teachers: Teachers
    before: TrainRun | None = None

    def take(self, step: int, folder: Path) -> TrainRun:
        """Prune the network of the step before, or the parent, and fine-tune it; or resume or find that."""
        last, begun = step == self.recipe.steps, folder / _BEGUN
        recipe, facts = self.origin.recipe, {}
        if self.peers.leads:  # alone: gradients on a GPU differ in the last bit between processes
            if not (self.options.resume and begun.exists()):
                model, probe = self._prune(step)
                tensors = join({"model": model.state_dict(), "probe": probe.state_dict()})
                save_checkpoint(begun, tensors, {"model": encode(model.config)})
            pruned = self._stored(begun)
            recipe, facts = self._recipe(pruned[0].config, last=last), self._facts(step, pruned[0])
        run = open_run(recipe, self.dataset, folder, facts, resume=self.options.resume, peers=self.peers)
        if not run.done:
            self._fit(run, self._stored(begun), last=last)
            self.peers.barrier()
        self.before = run if self.peers.leads else TrainRun.open(folder)
        return run

    def _fit(self, run: TrainRun, pruned: _Pruned, *, last: bool) -> None:
        stages = Stages(run=run, dataset=self.dataset, peers=self.peers, options=self.options, teachers=self.teachers)
        if not self.recipe.fine_tune:
            stages.finish(FrameClassifier(*pruned))
            return
        masks = self._masks(pruned[0]) if last else None
        if masks is not None:
            masks.apply()
            stages = replace(stages, constrain=masks.apply)
        torch.manual_seed(run.recipe.seed)
        if last:
            stages.fit(*pruned)
        else:
            stages.fit_frames(*pruned)

    def _recipe(self, config: ModelConfig, *, last: bool) -> TrainRecipe:
        plan, given = self.recipe, self.origin.recipe
        optimiser = plan.optimiser
        if plan.step_epochs and not last:
            optimiser = replace(optimiser, epochs=plan.step_epochs)
        return replace(
            given,
            model=config,
            optimiser=optimiser,
            augment=plan.augment or given.augment,
            loss=plan.loss or given.loss,
        )

    def _prune(self, step: int) -> _Pruned:
        model, probe, classifier = self.network.model, self.network.probe, self.network.classifier
        if self.before is not None:
            model, probe = self.before.load_model()
            classifier = FrameClassifier(model, probe)
        limits = self.target.limits(self.origin.config, step=step, steps=self.recipe.steps)
        if step == 1 and self.recipe.idle_blocks:
            shallower = self._without_idle_blocks(model)
            if limits.hold(shallower.config):
                return shallower, copy.deepcopy(probe)
            if shallower.config != model.config:
                model, classifier = shallower, FrameClassifier(shallower, probe)
        device, training = self.peers.device, self.origin.recipe
        faces = ranking_faces(self.dataset, training, self.recipe, device)
        ranking = measure_ranking(classifier.to(device), faces, training, self.recipe, self.options.progress)
        return prune_model(model.cpu(), probe.cpu(), limits=limits, recipe=self.recipe, ranking=ranking)

    def _without_idle_blocks(self, model: AttentionCnnBiLstm) -> AttentionCnnBiLstm:
        activities = block_activities(model, training_faces(self.dataset, self.origin.preprocess))
        idle = [block for block in activities if block.share < self.recipe.idle_blocks]
        if not idle and self.target == PruneTarget() and self.recipe.sparsity.pattern == "none":
            shares = ", ".join(f"{block.name} {block.share:.2g}" for block in activities) or "there are none"
            raise InputError(
                f"--idle-blocks: got {self.recipe.idle_blocks:g}, and no residual block of {self.origin.path} varies "
                f"less ({shares}); raise it, or give another target"
            )
        return without_blocks(model, idle)

    def _facts(self, step: int, pruned: AttentionCnnBiLstm) -> dict[str, Any]:
        """What the step's run records: parent, target, cost before and after."""
        before, after, recipe = Limits.of(self.origin.config), Limits.of(pruned.config), self.recipe
        names = ("importance", "importance_rows", "seed", "round_to", "recurrent", "idle_blocks", "fine_tune", "steps")
        facts: dict[str, Any] = {
            "parent": {**self.origin.identity, "model": encode(self.origin.config)},
            "pruning": {
                "macs_target": self.target.macs,
                "parameters_target": self.target.parameters,
                "macs_before": before.macs,
                "macs_after": after.macs,
                "parameters_before": before.parameters,
                "parameters_after": after.parameters,
                "step": step,
                **{name: getattr(recipe, name) for name in names},
            },
        }
        if self.given:
            facts["teacher"] = teacher_facts(self.given)
        masks = self._masks(pruned) if step == recipe.steps else None
        if masks is not None:
            facts["sparsity"] = masks.facts(recipe.sparsity)
        return facts

    def _masks(self, pruned: AttentionCnnBiLstm) -> WeightMasks | None:
        return None if self.recipe.sparsity.pattern == "none" else two_of_four(pruned, self.recipe.sparsity)

    def _stored(self, path: Path) -> _Pruned:
        config = decode(ModelConfig, load_checkpoint(path)[1]["model"])
        model = AttentionCnnBiLstm(config, normalisation=self.network.model.normalisation)
        probe = nn.Linear(config.feature_size, config.classes)
        load_tensors(path, {"model": model, "probe": probe})
        return model.eval(), probe
