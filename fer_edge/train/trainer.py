"""A whole training run: frames first, then sequences; resumable at every epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from fer_edge.data import Dataset
from fer_edge.data.report import leaked_rows
from fer_edge.errors import InputError
from fer_edge.metrics import accuracy_report, fit_temperature, softmax
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.distributed import Processes, processes
from fer_edge.train.faces import DeviceFaces
from fer_edge.train.frame_stage import FrameClassifier, FrameStage
from fer_edge.train.progress import Reporter, Silent
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe
from fer_edge.train.run import TrainRun
from fer_edge.train.sequence_stage import FeatureBank, fit_head, window_logits

__all__ = ["finish_run", "fit_stages", "open_run", "train_model"]

ORIGINS: Final = ("init", "teacher", "parent", "pruning")
"""What a run's record may say of where it began."""

UNKNOWN_SHARE: Final = 0.05
"""Share of the ``choose`` split's faces that fall below the unknown threshold."""


def train_model(
    recipe: TrainRecipe,
    dataset: Dataset,
    out: Path,
    *,
    init: TrainRun | None = None,
    teacher: TrainRun | None = None,
    resume: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> TrainRun:
    """Train a model, or go on with a run that was broken off.

    Args:
        recipe: what to train; when resuming it must be the run's own.
        dataset: its ``train`` split is trained on, its ``choose`` split chooses the epoch.
        out: the run's folder.
        init: a finished run of the same shape whose weights are the starting point; random weights without it.
        teacher: a finished run whose predictions the model is drawn toward (`loss.distil_weight`).
        resume: go on with the run in `out`; a finished run is returned as it is.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: told of progress.

    Raises:
        InputError: the folder holds another run, the data differ from the run's, their labels mean something else than
            the teacher's, or a split is missing.
        OutputError: the run cannot be written.
    """
    if recipe.model.classes != len(dataset.expressions):
        raise InputError(
            f"{dataset.source} is labelled with {len(dataset.expressions)} expressions, and the recipe's model.classes "
            f"is {recipe.model.classes}; they must agree"
        )
    if teacher is not None:
        dataset.expect_expressions(teacher.labels, of=f"the teacher {teacher.path}")
    with processes(device) as peers:
        origins = {name: origin.identity for name, origin in (("init", init), ("teacher", teacher)) if origin}
        run = open_run(recipe, dataset, out, origins, resume=resume, peers=peers)
        if run.done:
            return run
        torch.manual_seed(recipe.seed)
        model, temporary = run.new_model() if init is None else _loaded(init, run)
        guide = None if teacher is None else FrameClassifier(*teacher.load_model(), dropout=0.0).to(peers.device).eval()
        fit_stages(
            run, model, temporary, dataset, peers, spec=recipe.optimiser, report=report or Silent(), teacher=guide
        )
    return run


def _loaded(init: TrainRun, run: TrainRun) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """The weights to begin with; a temporary classifier of other expressions is not among them."""
    recipe = run.recipe
    if init.recipe.model != recipe.model or init.recipe.preprocess != recipe.preprocess:
        raise InputError(f"{init.path} has another shape or preprocessing than the recipe; start from a run that fits")
    model, temporary = init.load_model()
    return model, temporary if init.labels == run.labels else run.new_model()[1]


def open_run(
    recipe: TrainRecipe, dataset: Dataset, out: Path, facts: Mapping[str, Any], *, resume: bool, peers: Processes
) -> TrainRun:
    """Begin a run, or find the one to go on with; process 0 writes, the others read what it wrote.

    Args:
        recipe: what to train.
        dataset: what to train on.
        out: the run's folder.
        facts: where the run begins, recorded with it: other runs' identities, a pruning.
        resume: go on with the run in `out`, if there is one.
        peers: this process among its peers.

    Raises:
        InputError: the folder holds a run that is not to be resumed, or that was begun otherwise.
    """
    if not peers.leads:
        torch.distributed.barrier()
        return TrainRun.open(out)
    if resume and (out / "run.json").exists():
        run = TrainRun.open(out)
        begun = {name: run.record[name] for name in ORIGINS if name in run.record}
        if run.recipe != recipe or begun != facts:
            raise InputError(f"{out} was begun with other settings; resume it with its own, or choose another --out")
        if run.record["data"]["sha256"] != dataset.sha256:
            raise InputError(f"{out} was trained on other data (sha256 {run.record['data']['sha256'][:12]}…)")
    else:
        run = TrainRun.create(out, recipe, dataset, **facts)
    if peers.world > 1:
        torch.distributed.barrier()
    return run


def fit_stages(
    run: TrainRun,
    model: AttentionCnnBiLstm,
    temporary: nn.Linear,
    dataset: Dataset,
    peers: Processes,
    *,
    spec: OptimiserSpec,
    report: Reporter,
    teacher: FrameClassifier | None = None,
) -> None:
    """Both stages on a model, from scratch or from given weights; leaves a finished run (process 0 writes it)."""
    recipe, choose_set = run.recipe, dataset.split("choose")
    classes, device = recipe.model.classes, peers.device
    unfiltered = replace(recipe.preprocess, median=0)
    train = DeviceFaces.load(dataset.split("train"), unfiltered, recipe.loss, device, classes=classes)
    choose = DeviceFaces.load(choose_set, recipe.preprocess, recipe.loss, device, classes=classes)
    leaked = torch.from_numpy(leaked_rows(dataset, choose_set)).to(device)
    started = time.monotonic()
    module = FrameClassifier(model, temporary, dropout=recipe.loss.dropout)
    stage = FrameStage(run=run, spec=spec, module=module, peers=peers, teacher=teacher)
    best = stage.fit(train, choose, ~leaked, report)
    if not peers.leads:
        return
    fit_head(best.model, best.temporary, train, recipe, report)
    seconds = round(time.monotonic() - started, 1)
    finish_run(run, best, choose, leaked, split=choose_set.name, report=report, seconds=seconds)


def finish_run(
    run: TrainRun,
    best: FrameClassifier,
    choose: DeviceFaces,
    leaked: Tensor,
    *,
    split: str,
    report: Reporter,
    **facts: Any,
) -> None:
    """Measure the final model on the ``choose`` split, in FP32, and close the run.

    The temperature minimises the likelihood loss on the rows that do not also stand in the training split (Guo et al.
    2017, arXiv 1706.04599); below the unknown threshold lie the twentieth of the faces that are least certain.
    """
    exact, kept = replace(run.recipe, precision="fp32"), ~leaked
    still = replace(exact, sequence=replace(exact.sequence, copies=1))
    moving = replace(exact, sequence=replace(exact.sequence, copies=exact.sequence.window))
    window = exact.sequence.window
    features = FeatureBank.encode(best.model, choose, still, report).features
    logits = window_logits(best.model, features)
    labels = choose.labels.cpu().numpy()
    temperature = fit_temperature(logits[kept].cpu().numpy(), labels[kept.cpu().numpy()])
    probabilities = softmax(logits.cpu().numpy(), temperature=temperature)
    accuracy = accuracy_report(
        probabilities,
        labels,
        dataset=run.record["data"]["dataset"],
        split=split,
        leaked=leaked.cpu().numpy(),
        classes=run.labels,
    )
    windows = {
        "still_1": logits,
        f"still_{window}": window_logits(best.model, features.expand(window, -1, -1)),
        f"augmented_{window}": window_logits(
            best.model, FeatureBank.encode(best.model, choose, moving, report).features
        ),
    }
    run.finish(
        best.model,
        best.temporary,
        choose=accuracy.to_json(),
        temperature=temperature,
        unknown_threshold=float(np.quantile(probabilities.max(axis=1), UNKNOWN_SHARE)),
        top1_by_window={
            name: float((found.argmax(dim=1) == choose.labels)[kept].float().mean()) for name, found in windows.items()
        },
        **facts,
    )
