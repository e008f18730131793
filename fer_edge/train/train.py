"""`fer-edge train`: the frame stage, then the sequence stage; or the sequence stage alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fer_edge.core.errors import DataError, InputError
from fer_edge.core.labels import READINGS
from fer_edge.data import Dataset, StillSet, leaked_rows
from fer_edge.data.folds import fold_dataset
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batches import DeviceSplits
from fer_edge.train.crowd import (
    class_frequencies,
    crowd_clips,
    crowd_recipe,
    distribution_probe,
    expect_votes,
    new_crowd_head,
    probe_logits,
    probe_of_votes,
    training_negatives,
    with_crowd,
)
from fer_edge.train.device import compute_device
from fer_edge.train.distillation import Teachers
from fer_edge.train.evaluation import clip_accuracy, still_accuracy, vote_accuracy
from fer_edge.train.feature_cache import ClipFeatures, FeatureExtractor
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.frame_stage import FrameTask, fit_frames
from fer_edge.train.linear_probe import probe_of_features
from fer_edge.train.pretrained import (
    Pretrained,
    expect_initial,
    expect_teachers,
    initial_network,
    load_teachers,
    teacher_facts,
)
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun, open_run
from fer_edge.train.sequence_stage import FrameProbabilities, HeadStage, fit_head, tune_head
from fer_edge.train.soft_labels import SoftLabels, soft_labels, softened

__all__ = ["Stages", "TrainInputs", "train_fold", "train_model"]


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """What a training uses besides its data set.

    Attributes:
        init: a finished run or a bundle of the recipe's shape whose weights to start from; None for random weights.
        teachers: finished runs or bundles to distil from (`loss.distil_weight`); their probabilities are averaged. Runs
            of `train_fold` are asked about their held-out fold only (`loss.soft_weight`).
        stage: ``"sequence"`` trains the head alone, on the encoder of `init`.
    """

    init: Pretrained | None = None
    teachers: tuple[Pretrained, ...] = ()
    stage: Literal["all", "sequence"] = "all"

    def expect_fit(self, recipe: TrainRecipe, dataset: Dataset) -> None:
        """Refuse inputs that do not fit the recipe or the data set.

        Raises:
            InputError: labels, shapes or preprocessing differ, or the stage lacks its encoder.
        """
        if self.stage == "sequence" and (self.init is None or self.teachers):
            raise InputError(
                "--stage sequence: expected --init for the encoder and no --teacher, which frames alone use"
            )
        if recipe.model.classes != len(dataset.expressions):
            raise InputError(
                f"model.classes: got {recipe.model.classes}, expected the {len(dataset.expressions)} expressions of "
                f"{dataset.source}"
            )
        if "crowd" in recipe.heads:
            expect_votes(dataset)
        if self.stage == "all" and "fer2013" not in recipe.heads:
            raise InputError(
                f"heads: got {', '.join(recipe.heads)}, expected fer2013 too, since a new encoder needs a new head; "
                "add it, or give --stage sequence"
            )
        if 0 < len(self.fold_teachers) < len(self.teachers):
            raise InputError("--teacher: got runs with and without --fold, expected one kind")
        if not self.fold_teachers:
            expect_teachers(self.teachers, dataset, recipe)
        if self.init is not None:
            expect_initial(self.init, recipe)
            if self.stage == "sequence":
                dataset.expect_expressions(self.init.labels, of=f"the network {self.init.path}")

    @property
    def fold_teachers(self) -> tuple[TrainRun, ...]:
        """The teachers that were trained without one fold."""
        return tuple(each for each in self.teachers if isinstance(each, TrainRun) and "fold" in each.record)

    def facts(self) -> dict[str, Any]:
        """What the run records of them."""
        facts: dict[str, Any] = {} if self.init is None else {"init": self.init.identity}
        if self.teachers:
            facts["teacher"] = teacher_facts(self.teachers)
        if self.stage != "all":
            facts["stage"] = self.stage
        return facts


def train_model(
    recipe: TrainRecipe,
    dataset: Dataset,
    out: Path,
    *,
    inputs: TrainInputs = TrainInputs(),
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> TrainRun:
    """Train a model, or resume a run.

    Args:
        recipe: what to train; to resume, the run's own.
        dataset: trained on its ``train`` split; the best epoch is chosen on its ``choose`` split.
        out: the run's folder.
        inputs: initial weights, teachers, stage.
        options: resume, device, callbacks.

    Raises:
        InputError: the folder holds another run, or data, inputs and recipe do not fit each other.
        DataError: a split is missing, or has no faces to choose on.
        TrainingDiverged: the loss is not finite.
        OutputError: the run cannot be written.
    """
    inputs.expect_fit(recipe, dataset)
    device = compute_device(options.device)
    expect_choosable(dataset)
    run = open_run(recipe, dataset, out, inputs.facts(), resume=options.resume)
    with run.locked():
        run = TrainRun.open(out)
        if run.done:
            return run
        torch.manual_seed(recipe.seed)
        init = inputs.init
        model, probe = run.new_model() if init is None else initial_network(init, recipe, dataset)
        in_folds, soft = inputs.fold_teachers, None
        if in_folds:
            soft = soft_labels(in_folds, dataset, device=device, progress=options.progress)
        stages = Stages(
            run=run, dataset=dataset, device=device, options=options, soft=soft,
            teachers=load_teachers(inputs.teachers) if inputs.teachers and not in_folds else None,
        )  # fmt: skip
        if inputs.stage == "all":
            model.crowd = None  # it would not fit the new encoder
            stages.fit(model, probe)
        else:
            stages.fit_head(model)
    return run


def train_fold(
    recipe: TrainRecipe,
    dataset: Dataset,
    out: Path,
    *,
    folds: int,
    fold: int,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> TrainRun:
    """Train an encoder and its probes on all folds of the training split but one, or resume it; for `soft_labels`.

    Args:
        recipe: its heads are ``fer2013`` and ``crowd``.
        dataset: its training split is divided by `fold_dataset`.
        out: the run's folder.
        folds: number of folds.
        fold: the fold to hold out; the best epoch is chosen on it.

    Raises:
        InputError: no such fold, a head is missing, or the folder holds another run.
        DataError: the data has no FER+ votes.
        TrainingDiverged: the loss is not finite.
        OutputError: the run cannot be written.
    """
    if set(recipe.heads) != set(READINGS):
        raise InputError(f"heads: got {', '.join(recipe.heads)}, expected {', '.join(READINGS)} for a fold's teacher")
    part = fold_dataset(dataset, folds, fold)
    expect_votes(part)
    device = compute_device(options.device)
    run = open_run(recipe, part, out, {"fold": {"folds": folds, "fold": fold}}, resume=options.resume)
    with run.locked():
        run = TrainRun.open(out)
        if not run.done:
            torch.manual_seed(recipe.seed)
            Stages(run=run, dataset=part, device=device, options=options).fit_frames(*run.new_model())
    return run


def expect_choosable(dataset: Dataset) -> None:
    """Refuse data without faces to train on or to choose an epoch on.

    Raises:
        DataError: a split is missing, or every face to choose on is in the training split too.
    """
    dataset.split("train")
    choose = dataset.split("choose")
    if leaked_rows(dataset, choose).all():
        raise DataError(f"{dataset.source}: every face of {choose.name} is in the training split too; expected others")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stages:
    """The stages of one run; each method leaves a finished run.

    Attributes:
        run: the run's folder and recipe.
        dataset: its data.
        device: where to compute.
        options: callbacks.
        teachers: followed by the frame stage.
        soft: soft labels of the training rows, part of the frame stage's targets.
        rows: the training rows to use; all by default.
    """

    run: TrainRun
    dataset: Dataset
    device: torch.device
    options: RunOptions
    teachers: Teachers | None = None
    soft: SoftLabels | None = None
    rows: StillSet | None = None
    _started: float = field(default_factory=time.monotonic, init=False)

    @cached_property
    def splits(self) -> DeviceSplits:
        """The splits on this process's device; with the crowd's targets where the recipe has a head for them."""
        recipe, stills = self.run.recipe, self.rows or self.dataset.split("train")
        splits = DeviceSplits.load(self.dataset, recipe, self.device, train=self.rows)
        if "crowd" in recipe.heads:
            splits = replace(splits, train=with_crowd(splits.train, stills, recipe))
        if self.soft is not None:
            splits = replace(splits, train=softened(splits.train, self.soft, recipe.loss.soft_weight))
        return splits

    @cached_property
    def _seconds_before(self) -> float:
        """Seconds of the epochs before a resume."""
        return float(sum(epoch["seconds"] for epoch in self.run.record["history"]))

    def fit(self, model: AttentionCnnBiLstm, probe: nn.Linear) -> None:
        """Run both stages."""
        best = self.frames(self._classifier(model, probe))
        self.head(best)
        self.crowd(best.model)
        self.finish(best)

    def fit_frames(self, model: AttentionCnnBiLstm, probe: nn.Linear) -> None:
        """Run the frame stage alone: a run to continue from, whose head does not fit its encoder."""
        best = self.frames(self._classifier(model, probe))
        top1 = self.run.record["history"][-1]["best_score"]
        self.run.finish(best.model, probe_of(best), best.crowd, frames_top1=top1, seconds=self._seconds())

    def _classifier(self, model: AttentionCnnBiLstm, probe: nn.Linear) -> FrameClassifier:
        return FrameClassifier(model, probe, dropout=self.run.recipe.loss.dropout, crowd=self.crowd_probe(model))

    def crowd_probe(self, model: AttentionCnnBiLstm) -> nn.Linear | None:
        """Make the probe for the votes where the recipe has a head for them: fitted to a trained encoder, else new."""
        recipe = self.run.recipe
        if "crowd" not in recipe.heads:
            return None
        if {"init", "parent"} & self.run.record.keys():
            return probe_of_votes(model, self.dataset, recipe)
        return nn.Linear(recipe.model.feature_size, recipe.model.crowd.classes)

    def fit_head(self, model: AttentionCnnBiLstm) -> None:
        """Run the sequence stage alone."""
        classifier = FrameClassifier(model).to(self.device).eval()
        clips = self._clips(model)
        if "fer2013" in self.run.recipe.heads:
            tune_head(self._head_stage(classifier, clips))
        self.crowd(model)
        classifier.probe = probe_of_features(model, clips.stills, clips.labels)
        self.finish(classifier)

    def frames(self, classifier: FrameClassifier) -> FrameClassifier:
        """Run the frame stage and return the best epoch's classifier."""
        _ = self._seconds_before
        task = FrameTask(
            module=classifier,
            splits=self.splits,
            recipe=self.run.recipe,
            device=self.device,
            teachers=self.teachers,
            progress=self.options.progress,
        )
        return fit_frames(self.run, task, self.options.on_epoch)

    def head(self, classifier: FrameClassifier) -> None:
        """Run the sequence stage behind a trained classifier, in place."""
        clips = self._clips(classifier.model)
        fit_head(self._head_stage(classifier.eval(), clips), probe_of(classifier))

    def crowd(self, model: AttentionCnnBiLstm) -> None:
        """Train the head `crowd` behind a trained encoder, in place, where the recipe has one."""
        if "crowd" not in self.run.recipe.heads:
            return
        recipe, stills = crowd_recipe(self.run.recipe), self.rows or self.dataset.split("train")
        assert stills.votes is not None
        extractor = FeatureExtractor(model, self.run.recipe, self.device, self.options.progress)
        made = training_negatives(stills, share=recipe.sequence.negatives, seed=recipe.seed)
        faces = extractor.training_clips(stills)
        clips = crowd_clips(faces, stills.votes, extractor(made), seed=recipe.seed)
        model.crowd = new_crowd_head(model.head, recipe).to(self.device)
        probe = distribution_probe(clips, model.crowd)
        soft = FrameProbabilities.of(clips, probe_logits(model.crowd, probe))
        fit_head(
            HeadStage(head=model.crowd, clips=clips, soft=soft, recipe=recipe, progress=self.options.progress), probe
        )

    def _clips(self, model: AttentionCnnBiLstm) -> ClipFeatures:
        extractor = FeatureExtractor(model, self.run.recipe, self.device, self.options.progress)
        return extractor.training_clips(self.rows or self.dataset.split("train"))

    def _head_stage(self, classifier: FrameClassifier, clips: ClipFeatures) -> HeadStage:
        soft = FrameProbabilities.of(clips, classifier.classify)
        head, recipe = classifier.model.head, self.run.recipe
        return HeadStage(head=head, clips=clips, soft=soft, recipe=recipe, progress=self.options.progress)

    def finish(self, classifier: FrameClassifier, *, on_clips: bool = True, **facts: Any) -> None:
        """Evaluate the final model on the ``choose`` split, in FP32, and close the run.

        Args:
            classifier: the model and its probe.
            on_clips: also evaluate it on clips, which takes as long as a window has frames.
            facts: to record.
        """
        model = classifier.to(self.device).eval().model
        figures = still_accuracy(self.run, model, self.splits)
        if model.crowd is not None:
            facts["crowd"] = vote_accuracy(self.run, model, self.splits)
        facts["class_frequencies"] = class_frequencies(self.dataset)
        if on_clips:
            figures["top1_by_window"] |= clip_accuracy(self.run, model, self.splits, self.options.progress)
        self.run.finish(model, probe_of(classifier), **figures, seconds=self._seconds(), **facts)

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started + self._seconds_before, 1)


def probe_of(classifier: FrameClassifier) -> nn.Linear:
    """Return the classifier's probe, which must exist."""
    assert classifier.probe is not None
    return classifier.probe
