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
from torch import nn

from fer_edge.core.errors import InputError, require
from fer_edge.core.int8_forms import Form
from fer_edge.core.json import encode
from fer_edge.core.preprocess import prepare_stills
from fer_edge.core.telemetry import without_telemetry
from fer_edge.data import Dataset, StillSet
from fer_edge.data.sampling import RowSample, draw_sample
from fer_edge.model.fake_quantization import plain_state, quantised
from fer_edge.model.network import AttentionCnnBiLstm, FrameEncoder
from fer_edge.train.checkpoint import load_checkpoint, save_checkpoint
from fer_edge.train.device import compute_device
from fer_edge.train.distillation import Teachers
from fer_edge.train.evaluation import still_accuracy
from fer_edge.train.frame_classifier import FrameClassifier
from fer_edge.train.pretrained import Pretrained, TrainedNetwork, load_network
from fer_edge.train.recipe import QatRecipe, TrainRecipe
from fer_edge.train.run_folder import RunOptions, TrainRun, open_run
from fer_edge.train.train import Stages, expect_choosable

__all__ = ["QUANTISED_FILE", "load_quantised", "qat_run"]

QUANTISED_FILE: Final = "quantised.safetensors"
"""In a run's folder: the encoder as it was trained, with its ranges."""


def qat_run(
    parent: Pretrained,
    out: Path,
    dataset: Dataset,
    *,
    recipe: QatRecipe = QatRecipe(),  # noqa: B008 - frozen
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
) -> TrainRun:
    """Fine-tune a trained network while its encoder rounds as INT8 does.

    Args:
        parent: a finished run or a bundle; its network is also the teacher.
        out: folder of the new run.
        recipe: calibration and fine-tuning.
        options: resume, device, callbacks.

    Raises:
        InputError: the parent is not finished, its labels differ, or `out` holds another run.
        MissingPackageError: NNCF is not installed.
        TrainingDiverged: the loss is not finite.
        OutputError: the run cannot be written.
    """
    dataset.expect_expressions(parent.labels, of=str(parent.path))
    drawn = recipe.sample
    rows, sample = _rows(dataset, recipe), draw_sample(dataset, size=drawn.size, seed=drawn.seed, choice=drawn.choice)
    with without_telemetry():
        nncf = require("nncf", needed_by="fer-edge qat", extra="calibrate")
    config, network = _training(parent, recipe), load_network(parent, dataset)
    facts = {
        "parent": parent.identity,
        "qat": {"nncf": str(nncf.__version__), "recipe": encode(recipe), "calibrated_on": sample.summary()},
    }
    device = compute_device(options.device)
    expect_choosable(dataset)
    run = open_run(config, dataset, out, facts, resume=options.resume)
    if not run.done:
        torch.manual_seed(config.seed)
        teacher = FrameClassifier(network.model).eval() if recipe.head == "keep" else network.classifier
        stages = Stages(
            run=run, dataset=dataset, device=device, options=options, teachers=Teachers([teacher]), rows=rows
        )
        _fit(stages, network, sample, recipe)
    return run


def load_quantised(run: TrainRun, form: Form) -> FrameEncoder:
    """Load the encoder of a run of `qat_run`, rounding as `form`: frames uint8 (N, S, S) -> features, attention.

    Raises:
        InputError: the run is not finished, is no QAT run, or its file is damaged.
    """
    model, _ = run.load_model()
    tensors, _ = load_checkpoint(run.path / QUANTISED_FILE)
    encoder = quantised(model.encoder, form=form)
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{run.path / QUANTISED_FILE}: does not fit the run's recipe ({error})") from error
    return encoder.eval()


def _rows(dataset: Dataset, recipe: QatRecipe) -> StillSet:
    train = dataset.split("train")
    if recipe.rows > len(train):
        raise InputError(f"rows: got {recipe.rows:,}, expected at most the {len(train):,} of {dataset.source}")
    return draw_sample(dataset, size=recipe.rows, seed=recipe.sample.seed).stills if recipe.rows else train


def _training(parent: Pretrained, recipe: QatRecipe) -> TrainRecipe:
    """Derive the fine-tuning's recipe from the parent's."""
    loss = replace(parent.recipe.loss, distil_weight=recipe.distil_weight)
    if recipe.head == "keep":  # the contexts must stay where the head expects them
        loss = replace(loss, centre_weight=0.0, dropout=0.0)
    return replace(parent.recipe, loss=loss, optimiser=recipe.optimiser, precision=recipe.precision)


class _QatClassifier(FrameClassifier):
    """A `FrameClassifier` whose batch normalisations keep their statistics."""

    def train(self, mode: bool = True) -> _QatClassifier:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eval()
        return self


def _fit(stages: Stages, network: TrainedNetwork, sample: RowSample, recipe: QatRecipe) -> None:
    """Fine-tune, refit the head, evaluate with and without rounding, close the run."""
    run, config = stages.run, stages.run.recipe
    keep = recipe.head == "keep"
    model, probe = _calibrated(network.model, sample, config, recipe), copy.deepcopy(network.probe)
    crowd = None if keep else stages.crowd_probe(network.model)
    student = _QatClassifier(model, None if keep else probe, dropout=config.loss.dropout, crowd=crowd)
    if keep:
        for parameter in model.head.parameters():
            parameter.requires_grad_(False)
    best = stages.frames(student)
    if keep:
        best.probe = probe.to(stages.device)
    else:
        stages.head(best)
        stages.crowd(best.model)
    rounded = {"form": recipe.form, **still_accuracy(run, best.model, stages.splits)}
    save_checkpoint(run.path / QUANTISED_FILE, best.model.encoder.state_dict(), {"form": recipe.form})
    plain = AttentionCnnBiLstm(config.model, normalisation=config.preprocess.normalisation)
    plain.encoder.load_state_dict(dict(plain_state(best.model.encoder)))
    plain.head.load_state_dict(best.model.head.state_dict())
    plain.crowd = best.model.crowd
    # A head that was not trained here is not evaluated on clips either.
    stages.finish(FrameClassifier(plain, best.probe), on_clips=not keep, quantised=rounded)


def _calibrated(
    model: AttentionCnnBiLstm, sample: RowSample, config: TrainRecipe, recipe: QatRecipe
) -> AttentionCnnBiLstm:
    """Copy a model whose encoder rounds, in the ranges that NNCF finds on the sample."""
    from fer_edge.train.nncf_ranges import calibrate_ranges  # imports nncf at its top

    student = copy.deepcopy(model)
    student.encoder = quantised(model.encoder, form=recipe.form)
    frames = prepare_stills(np.asarray(sample.stills.images), config.preprocess)
    calibrate_ranges(
        model.encoder, student.encoder, frames, activation_range=recipe.activation_range, batch=recipe.batch
    )
    return student
