"""A trained run or bundle becomes a smaller one, step by step, fine-tuned under its unpruned parent's eyes or others'.

OUT/steps/1, 2, ...   the runs of all steps but the last: frames only, to go on from
OUT                   the last step's run, whole; each holds in pruned.safetensors what its fine-tuning began from
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode
from fer_edge.data import Dataset
from fer_edge.model.config import ModelConfig
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batch_norm import refit_folded, training_faces
from fer_edge.train.block_pruning import block_activities, without_blocks
from fer_edge.train.checkpoint import join, load_checkpoint, save_checkpoint, split
from fer_edge.train.distillation import Teachers
from fer_edge.train.distributed import Processes, processes
from fer_edge.train.frame_stage import FrameClassifier, StillClassifier
from fer_edge.train.importance import measure_ranking, ranking_faces
from fer_edge.train.linear_probe import temporary_classifier
from fer_edge.train.progress import Reporter, Silent
from fer_edge.train.recipe import PruneRecipe, TrainRecipe
from fer_edge.train.run_folder import TrainRun, expect_no_run
from fer_edge.train.sparsity import WeightMasks, two_of_four
from fer_edge.train.structured_pruning import Limits, PrunedModel, PruneTarget, prune_model
from fer_edge.train.train import (
    Origin,
    finish_untrained,
    fit_stages,
    open_run,
    open_teachers,
    teacher_facts,
    teacher_list,
)

__all__ = ["PruneParent", "open_parent", "prune_run"]

_BEGUN: Final = "pruned.safetensors"


@dataclass(frozen=True, kw_only=True)
class PruneParent:
    """What is pruned: a network, and a classifier of single faces around it.

    Attributes:
        model: in evaluation mode, on the CPU; of a bundle with its batch normalisations' statistics restored.
        temporary: linear classifier of its contexts; a bundle has none, and gets one fitted.
        judge: around the same model: with the temporary classifier for a run, with the network's own head for a
            bundle. It is the teacher of the fine-tuning, and gradients for a ranking come from its loss.
    """

    model: AttentionCnnBiLstm
    temporary: nn.Linear
    judge: nn.Module


def open_parent(origin: Origin, dataset: Dataset) -> PruneParent:
    """Load a run's or a bundle's network to be pruned.

    Raises:
        InputError: the run is not finished, or the bundle does not hold what it says.
    """
    if isinstance(origin, TrainRun):
        model, temporary = origin.load_model()
        return PruneParent(
            model=model, temporary=temporary, judge=FrameClassifier(model, temporary, dropout=0.0).eval()
        )
    recipe = origin.recipe
    model = origin.load_model()
    refit_folded(model, dataset, recipe.preprocess)
    temporary = temporary_classifier(model, dataset, recipe)
    return PruneParent(model=model, temporary=temporary, judge=StillClassifier(model).eval())


def prune_run(
    parent: Origin,
    out: Path,
    dataset: Dataset,
    *,
    target: PruneTarget | None = None,
    recipe: PruneRecipe | None = None,
    teacher: Origin | Sequence[Origin] | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> TrainRun:
    """Prune a finished run or a bundle and fine-tune it under the eyes of its unpruned parent, or of other teachers.

    Args:
        parent: a finished run, or a bundle.
        out: folder of the new run.
        dataset: as for training; the same data as the parent's unless you mean otherwise.
        target: how small; without it channels stay, and the recipe must ask for sparsity or have idle blocks go.
        recipe: how to rank, in how many steps, how to round, what to leave zero, how to fine-tune.
        teacher: whom the fine-tuning follows, as in training; the parent without it.
        resume: go on where the steps or a fine-tuning were broken off.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: told of progress.

    Raises:
        InputError: nothing is asked for, the parent is not finished, the target cannot be reached, a teacher does not
            fit, or `out` holds a run that is not to be resumed or was begun otherwise.
        OutputError: a run cannot be written.
    """
    recipe, target = recipe or PruneRecipe(), target or PruneTarget()
    if target == PruneTarget() and recipe.sparsity.pattern == "none" and not recipe.idle_blocks:
        raise InputError("nothing is to be pruned; give --macs, --parameters, --idle-blocks or --sparsity")
    if not recipe.fine_tune and (target != PruneTarget() or recipe.sparsity.pattern != "none"):
        raise InputError("fine_tune=false leaves out idle blocks and nothing else; drop it, or the other targets")
    dataset.expect_expressions(parent.labels, of=str(parent.path))
    followed = teacher_list(teacher, dataset, parent.recipe)
    if followed and not recipe.fine_tune:
        raise InputError(f"with fine_tune=false nothing follows a teacher; drop it, or {followed[0].path}")
    target.limits(parent.recipe.model)  # refused before anything is read
    if not resume:
        expect_no_run(out)  # and before its steps are worked through
    with processes(device) as peers:
        pruning = _Pruning(
            origin=parent,
            parent=open_parent(parent, dataset),
            followed=followed,
            dataset=dataset,
            target=target,
            recipe=recipe,
            resume=resume,
            peers=peers,
            report=report or Silent(),
        )
        for step in range(1, recipe.steps):
            pruning.take(step, out / "steps" / str(step))
        return pruning.take(recipe.steps, out)


@dataclass(kw_only=True)
class _Pruning:
    origin: Origin
    parent: PruneParent
    followed: Sequence[Origin]
    dataset: Dataset
    target: PruneTarget
    recipe: PruneRecipe
    resume: bool
    peers: Processes
    report: Reporter
    before: TrainRun | None = None

    def take(self, step: int, folder: Path) -> TrainRun:
        """Prune what the step before left, or the parent, and fine-tune it; or go on with that, or find it done."""
        last, begun = step == self.recipe.steps, folder / _BEGUN
        recipe, facts = self.origin.recipe, {}
        pruned: PrunedModel | None = None
        if self.peers.leads:  # alone: gradients on a GPU are not the same to the last bit on every process
            found = self.resume and begun.exists()
            pruned = self._stored(begun) if found else self._prune(step)
            recipe, facts = self._recipe(pruned.config, last=last), self._facts(step, pruned)
            if not found:
                self._store(begun, pruned)
        run = open_run(recipe, self.dataset, folder, facts, resume=self.resume, peers=self.peers)
        if not run.done and not self.recipe.fine_tune:
            pruned = self._stored(begun)
            finish_untrained(run, pruned.model, pruned.temporary, self.dataset, self.peers, report=self.report)
            self._wait()
        elif not run.done:
            pruned = self._stored(begun)
            masks = self._masks(pruned) if last else None
            if masks is not None:
                masks.apply()
            torch.manual_seed(run.recipe.seed)
            fit_stages(
                run, pruned.model, pruned.temporary, self.dataset, self.peers,
                spec=run.recipe.optimiser, report=self.report, frames_only=not last,
                teacher=open_teachers(self.followed) if self.followed else Teachers([self.parent.judge]),
                after_step=None if masks is None else masks.apply,
            )  # fmt: skip
            self._wait()
        self.before = run if self.peers.leads else TrainRun.open(folder)
        return run

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

    def _prune(self, step: int) -> PrunedModel:
        model, temporary, judge = self.parent.model, self.parent.temporary, self.parent.judge
        if self.before is not None:
            model, temporary = self.before.load_model()
            judge = FrameClassifier(model, temporary, dropout=0.0)
        limits = self.target.limits(self.origin.recipe.model, step=step, steps=self.recipe.steps)
        if step == 1 and self.recipe.idle_blocks:
            shallower = self._without_idle_blocks(model)
            if limits.hold(shallower.config):
                return PrunedModel(model=shallower, temporary=copy.deepcopy(temporary))
            if shallower.config != model.config:
                model, judge = shallower, FrameClassifier(shallower, temporary, dropout=0.0)
        device = self.peers.device
        faces = ranking_faces(self.dataset, self.origin.recipe, self.recipe, device)
        ranking = measure_ranking(
            judge.to(device), faces, self._recipe(model.config, last=True), self.recipe, self.report
        )
        return prune_model(model.cpu(), temporary.cpu(), limits=limits, recipe=self.recipe, ranking=ranking)

    def _without_idle_blocks(self, model: AttentionCnnBiLstm) -> AttentionCnnBiLstm:
        activities = block_activities(model, training_faces(self.dataset, self.origin.recipe.preprocess))
        idle = [block for block in activities if block.share < self.recipe.idle_blocks]
        if not idle and self.target == PruneTarget() and self.recipe.sparsity.pattern == "none":
            shares = ", ".join(f"{block.name} {block.share:.2g}" for block in activities) or "there are none"
            raise InputError(
                f"no residual block of {self.origin.path} strays less than {self.recipe.idle_blocks:g} of its shortcut "
                f"({shares}); nothing is to be pruned"
            )
        return without_blocks(model, idle)

    def _facts(self, step: int, pruned: PrunedModel) -> dict[str, Any]:
        """Where the step's run begins: what was asked, and what the pruning came to."""
        before, after = Limits.of(self.origin.recipe.model), Limits.of(pruned.config)
        recipe = self.recipe
        facts: dict[str, Any] = {
            "parent": {**self.origin.identity, "model": encode(self.origin.recipe.model)},
            "pruning": {
                "macs_target": self.target.macs,
                "parameters_target": self.target.parameters,
                "macs_before": before.macs,
                "macs_after": after.macs,
                "parameters_before": before.parameters,
                "parameters_after": after.parameters,
                "importance": recipe.importance,
                "importance_rows": recipe.importance_rows,
                "seed": recipe.seed,
                "round_to": recipe.round_to,
                "recurrent": recipe.recurrent,
                "idle_blocks": recipe.idle_blocks,
                "fine_tune": recipe.fine_tune,
                "step": step,
                "steps": recipe.steps,
            },
        }
        if self.followed:
            facts["teacher"] = teacher_facts(self.followed)
        masks = self._masks(pruned) if step == recipe.steps else None
        if masks is not None:
            facts["sparsity"] = masks.facts(recipe.sparsity)
        return facts

    def _masks(self, pruned: PrunedModel) -> WeightMasks | None:
        if self.recipe.sparsity.pattern == "none":
            return None
        return two_of_four(pruned.model, self.recipe.sparsity)

    def _store(self, path: Path, pruned: PrunedModel) -> None:
        parts = {"model": pruned.model.state_dict(), "temporary": pruned.temporary.state_dict()}
        save_checkpoint(path, join(parts), {"model": encode(pruned.config)})

    def _stored(self, path: Path) -> PrunedModel:
        """The beginning of a step's fine-tuning, as `_store` wrote it."""
        tensors, facts = load_checkpoint(path)
        config = decode(ModelConfig, facts["model"])
        model = AttentionCnnBiLstm(config, normalisation=self.parent.model.normalisation)
        temporary = nn.Linear(config.feature_size, config.classes)
        try:
            model.load_state_dict(split(tensors, "model"))
            temporary.load_state_dict(split(tensors, "temporary"))
        except RuntimeError as error:
            raise InputError(f"{path} does not hold what it says: {error}; choose another --out") from error
        return PrunedModel(model=model.eval(), temporary=temporary)

    def _wait(self) -> None:
        if self.peers.world > 1:
            torch.distributed.barrier()
