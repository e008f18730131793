"""Quantization-aware training: fine-tune a trained network with its encoder rounding as INT8 does.

The encoder starts with the ranges that NNCF calibrates and rounds as the INT8 graph will
(`fer_edge.model.fake_quantization`). Batch normalisations stay folded, and the one behind the attention keeps its
statistics, so that weights and ranges are those of the graph. The float network is the teacher. The result is a run
like any other, with the learnt ranges beside its weights.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.core.errors import InputError, require
from fer_edge.core.int8_forms import Form
from fer_edge.core.json import encode
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.telemetry import without_telemetry
from fer_edge.data import Dataset, StillSet
from fer_edge.data.sampling import RowSample, draw_sample
from fer_edge.data.statistics import leaked_rows
from fer_edge.model.fake_quantization import plain_state, quantised
from fer_edge.model.network import AttentionCnnBiLstm, FrameEncoder
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.distillation import Teachers
from fer_edge.train.distributed import Processes, processes
from fer_edge.train.evaluation import final_figures
from fer_edge.train.feature_cache import encode_clips
from fer_edge.train.frame_stage import FrameClassifier, FrameStage, StillClassifier, single_contexts
from fer_edge.train.progress import Reporter, Silent
from fer_edge.train.prune import open_parent
from fer_edge.train.recipe import QatRecipe, TrainRecipe
from fer_edge.train.run_folder import TrainRun
from fer_edge.train.sequence_stage import Guide, fit_head
from fer_edge.train.train import Origin, finish_run, open_run

__all__ = ["QUANTISED_FILE", "load_quantised", "qat_run"]

QUANTISED_FILE: Final = "quantised.safetensors"
"""In a run's folder: the encoder as it was trained, with its ranges."""


def qat_run(
    parent: Origin,
    out: Path,
    dataset: Dataset,
    *,
    recipe: QatRecipe | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> TrainRun:
    """Fine-tune a trained network while its encoder rounds as INT8 does.

    Args:
        parent: a finished run or a bundle; its network is also the teacher.
        out: folder of the new run.
        dataset: as for training; the same data as the parent's unless you mean otherwise.
        recipe: how to calibrate and to fine-tune.
        resume: go on with a fine-tuning that was broken off; a finished run is returned as it is.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: told of progress.

    Raises:
        InputError: the parent is not finished, is sparse, or has layers that nobody knows how to round; the data do not
            fit, or are too few; or `out` holds a run.
        MissingPackageError: NNCF is not installed.
        OutputError: the run cannot be written.
    """
    recipe = recipe or QatRecipe()
    dataset.expect_expressions(parent.labels, of=str(parent.path))
    if parent.sparsity is not None:
        raise InputError(
            f"{parent.path} was pruned to {parent.sparsity} zeros, which fine-tuning would fill; begin from one without"
        )
    drawn = recipe.sample
    rows, sample = _rows(dataset, recipe), draw_sample(dataset, size=drawn.size, seed=drawn.seed, choice=drawn.choice)
    with without_telemetry():
        nncf = require("nncf", needed_by="fer-edge qat", extra="calibrate")
    config = _config(parent, recipe)
    origin = open_parent(parent, dataset)
    facts = {
        "parent": parent.identity,
        "qat": {"nncf": str(nncf.__version__), "recipe": encode(recipe), "calibrated_on": sample.summary()},
    }
    with processes(device) as peers:
        run = open_run(config, dataset, out, facts, resume=resume, peers=peers)
        if not run.done:
            torch.manual_seed(config.seed)
            teacher = StillClassifier(origin.model) if recipe.head == "keep" else origin.judge
            student = _RoundingClassifier(
                _calibrated(origin.model, sample, config, recipe),
                copy.deepcopy(origin.temporary),
                dropout=config.loss.dropout,
                keep_head=recipe.head == "keep",
            )
            _fit(run, student, teacher, dataset, rows, peers, recipe=recipe, report=report or Silent())
    return run


def load_quantised(run: TrainRun, form: Form) -> FrameEncoder:
    """The encoder of a run that `qat_run` made, rounding as `form` does: frames uint8 (N, S, S) -> features, attention.

    Raises:
        InputError: the run is not finished, was not trained so, or its file is damaged.
    """
    model, _ = run.load_model()
    tensors, _ = load_checkpoint(run.path / QUANTISED_FILE)
    encoder = quantised(model.encoder, form=form)
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{run.path / QUANTISED_FILE} does not fit the run's recipe: {error}") from error
    return encoder.eval()


def _rows(dataset: Dataset, recipe: QatRecipe) -> StillSet:
    train = dataset.split("train")
    if recipe.rows > len(train):
        raise InputError(f"rows: got {recipe.rows:,}, but {train.name} of {dataset.source} holds {len(train):,}")
    return draw_sample(dataset, size=recipe.rows, seed=recipe.sample.seed).stills if recipe.rows else train


def _config(parent: Origin, recipe: QatRecipe) -> TrainRecipe:
    """The parent's recipe as far as it holds for the fine-tuning."""
    # What a student is taught besides logits, and the kept views, are for one that is far from its teachers.
    loss = replace(
        parent.recipe.loss,
        distil_weight=recipe.distil_weight,
        distil_views=0,
        distil_consensus=0.0,
        distil_features=0.0,
        distil_regions=0.0,
        distil_maps=0.0,
    )
    if recipe.head == "keep":  # nothing may draw the contexts away from where the head looks for them
        loss = replace(loss, centre_weight=0.0, dropout=0.0)
    return replace(parent.recipe, loss=loss, optimiser=recipe.optimiser, precision=recipe.precision)


class _RoundingClassifier(FrameClassifier):
    """A `FrameClassifier` whose batch normalisations stand still, with the head's own classifier where that is kept."""

    def __init__(self, model: AttentionCnnBiLstm, temporary: nn.Linear, *, dropout: float, keep_head: bool) -> None:
        super().__init__(model, temporary, dropout=dropout)
        self.keep_head = keep_head
        if keep_head:
            for parameter in (*model.head.parameters(), *temporary.parameters()):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> _RoundingClassifier:
        """As ever, but for the statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eval()
        return self

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Single frames' features (N, F) -> logits (N, classes) and contexts (N, F)."""
        if not self.keep_head:
            return super().read(features)
        context = single_contexts(self.model, features)
        return self.model.head.classify(context), context


def _fit(
    run: TrainRun,
    student: _RoundingClassifier,
    teacher: nn.Module,
    dataset: Dataset,
    rows: StillSet,
    peers: Processes,
    *,
    recipe: QatRecipe,
    report: Reporter,
) -> None:
    """Fine-tune, refit the head, measure with and without rounding, close the run (process 0 writes it)."""
    config, device, stills = run.recipe, peers.device, dataset.split("choose")
    classes = config.model.classes
    train = DeviceFaces.load(rows, replace(config.preprocess, median=0), config.loss, device, classes=classes)
    choose = DeviceFaces.load(stills, config.preprocess, config.loss, device, classes=classes)
    leaked = torch.from_numpy(leaked_rows(dataset, stills)).to(device)
    stage = FrameStage(run=run, spec=config.optimiser, module=student, peers=peers, teachers=Teachers.of(teacher))
    best = stage.fit(train, choose, ~leaked, report)
    if not peers.leads:
        return
    if recipe.head == "refit":
        bank = encode_clips(best.model, rows, config, device, report)
        fit_head(best.model, best.temporary, bank, Guide.of(bank, best.eval().classify), config, report)
    rounded = {"form": recipe.form, **final_figures(run, best.model, stills, choose, leaked)}
    save_checkpoint(run.path / QUANTISED_FILE, best.model.encoder.state_dict(), {"form": recipe.form})
    plain = AttentionCnnBiLstm(config.model, normalisation=config.preprocess.normalisation).to(device)
    plain.encoder.load_state_dict(dict(plain_state(best.model.encoder)))
    plain.head.load_state_dict(best.model.head.state_dict())
    final = FrameClassifier(plain.eval(), best.temporary, dropout=0.0)
    # A head that was not taught here is not judged by clips either.
    judged = recipe.head == "refit"
    finish_run(run, final, stills, choose, leaked, report=report, judge_clips=judged, quantised=rounded)


def _calibrated(
    model: AttentionCnnBiLstm, sample: RowSample, config: TrainRecipe, recipe: QatRecipe
) -> AttentionCnnBiLstm:
    """A copy whose encoder rounds, in the ranges that NNCF finds on the sample."""
    from fer_edge.train.nncf_ranges import calibrate_ranges

    student = copy.deepcopy(model)
    student.encoder = quantised(model.encoder, form=recipe.form)
    frames = prepare_stills(np.asarray(sample.stills.images), config.preprocess)
    calibrate_ranges(
        model.encoder, student.encoder, frames, activation_range=recipe.activation_range, batch=recipe.batch
    )
    return student
