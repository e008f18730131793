"""A whole training run: frames first, then sequences; resumable at every epoch. Or sequences alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.core.files import claimed
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data import Dataset, StillSet
from fer_edge.data.ckplus import CkPlusSequence
from fer_edge.data.statistics import leaked_rows
from fer_edge.model.network import AttentionCnnBiLstm
from fer_edge.train.batch_norm import refit_folded
from fer_edge.train.batches import DeviceFaces
from fer_edge.train.bundle_weights import BundleOrigin
from fer_edge.train.distillation import Teachers
from fer_edge.train.distributed import Processes, processes
from fer_edge.train.evaluation import clip_figures, final_figures
from fer_edge.train.feature_cache import encode_clips, encode_sequences
from fer_edge.train.frame_stage import FrameClassifier, FrameStage, StillClassifier
from fer_edge.train.linear_probe import classifier_of_features, temporary_classifier
from fer_edge.train.progress import Reporter, Silent
from fer_edge.train.recipe import OptimiserSpec, TrainRecipe
from fer_edge.train.run_folder import TrainRun, data_facts
from fer_edge.train.sequence_stage import Guide, fit_head, tune_head
from fer_edge.train.weight_transfer import grown, grows_from, shrinks_to, shrunk

__all__ = [
    "Origin",
    "finish_run",
    "finish_untrained",
    "fit_stages",
    "open_origin",
    "open_run",
    "open_teachers",
    "teacher_facts",
    "teacher_list",
    "train_model",
]

Origin: TypeAlias = TrainRun | BundleOrigin
"""What a run can begin from or follow: another run, or a bundle."""

ORIGINS: Final = ("init", "teacher", "parent", "pruning", "sparsity", "qat", "stage", "sequences")
"""What a run's record may say of where it began, and of how it differs from a whole training."""


def open_origin(name: str) -> Origin:
    """A run's folder, or else a bundle's folder or a shipped bundle's name.

    Raises:
        InputError: a run of another schema.
        BundleError: neither is there.
    """
    if (Path(name) / "run.json").is_file():
        return TrainRun.open(Path(name))
    return BundleOrigin(bundle=Bundle.open(name))


def train_model(
    recipe: TrainRecipe,
    dataset: Dataset,
    out: Path,
    *,
    init: Origin | None = None,
    teacher: Origin | Sequence[Origin] | None = None,
    stage: Literal["all", "sequence"] = "all",
    sequences: tuple[CkPlusSequence, ...] = (),
    resume: bool = False,
    device: str = "auto",
    report: Reporter | None = None,
) -> TrainRun:
    """Train a model, or go on with a run that was broken off.

    Args:
        recipe: what to train; when resuming it must be the run's own.
        dataset: its ``train`` split is trained on, its ``choose`` split chooses the epoch.
        out: the run's folder.
        init: a finished run or a bundle whose weights are the starting point, of the same shape, of one with fewer
            residual blocks, or of a wider one, which is narrowed; random weights without it. A bundle has no temporary
            classifier: it gets one that is fitted to its contexts.
        teacher: a finished run or a bundle whose predictions the model is drawn toward (`loss.distil_weight`), or
            several, whose probabilities are averaged; of any shape that sees the same prepared faces.
        stage: ``"sequence"`` trains the head alone, on the encoder of `init` as it is.
        sequences: real ones, which the head is trained on beside the clips.
        resume: go on with the run in `out`; a finished run is returned as it is.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        report: told of progress.

    Raises:
        InputError: the folder holds another run, the data differ from the run's, their labels mean something else than
            a teacher's, a teacher's faces are prepared otherwise, a split is missing, or the head alone is to be
            trained and no encoder is given, or a teacher.
        OutputError: the run cannot be written.
    """
    if stage == "sequence" and (init is None or teacher):
        raise InputError(
            "training the head alone takes its encoder from --init, and no --teacher: only frames have one"
        )
    if recipe.model.classes != len(dataset.expressions):
        raise InputError(
            f"{dataset.source} is labelled with {len(dataset.expressions)} expressions, and the recipe's model.classes "
            f"is {recipe.model.classes}; they must agree"
        )
    if sequences and (dataset.name == "ckplus" or dataset.expressions != EXPRESSIONS):
        raise InputError(
            f"sequences of CK+ go beside stills of another data set with the seven expressions; {dataset.source} would "
            "be trained on its own faces to choose and report on, or has other labels"
        )
    teachers = teacher_list(teacher, dataset, recipe)
    if init is not None:
        _expect_fit(init, recipe)
        if stage == "sequence":
            dataset.expect_expressions(init.labels, of=f"the network {init.path}")
    with processes(device) as peers:
        origins: dict[str, Any] = {} if init is None else {"init": init.identity}
        if teachers:
            origins["teacher"] = teacher_facts(teachers)
        if stage != "all":
            origins["stage"] = stage
        if sequences:
            origins["sequences"] = {"dataset": "ckplus", "sequences": len(sequences)}
        open_run(recipe, dataset, out, origins, resume=resume, peers=peers)
        with _alone_in(out, peers) as run:
            if run.done:
                return run
            torch.manual_seed(recipe.seed)
            model, temporary = run.new_model() if init is None else _loaded(init, run, dataset)
            fit_stages(
                run,
                model,
                temporary,
                dataset,
                peers,
                spec=recipe.optimiser if stage == "all" else None,
                report=report or Silent(),
                teacher=open_teachers(teachers) if teachers else None,
                sequences=sequences,
            )
    return run


@contextlib.contextmanager
def _alone_in(out: Path, peers: Processes) -> Iterator[TrainRun]:
    """The run in a folder that no other training works in while the block runs.

    Raises:
        InputError: one does.
    """
    if not peers.leads:
        yield TrainRun.open(out)
        return
    with claimed(out) as ours:
        if not ours:
            raise InputError(f"another process is training in {out}; let it end, or choose another --out")
        yield TrainRun.open(out)


def _expect_fit(init: Origin, recipe: TrainRecipe) -> None:
    """Refuse weights of another shape before anything is written."""
    if isinstance(init, BundleOrigin):
        config, preprocess = init.config, init.preprocess
    else:
        config, preprocess = init.recipe.model, init.recipe.preprocess
    fits = grows_from(recipe.model, config) or shrinks_to(recipe.model, config)
    if not fits or preprocess != recipe.preprocess:
        raise InputError(
            f"{init.path} has another shape or preprocessing than the recipe; start from one that fits: at the "
            "end of a stage residual blocks may be more or fewer, and either layers are narrower or the CNN's are wider"
        )


def teacher_list(given: Origin | Sequence[Origin] | None, dataset: Dataset, recipe: TrainRecipe) -> tuple[Origin, ...]:
    """The teachers to follow, none, one or several, each of which fits the data and sees the recipe's faces.

    Raises:
        InputError: one does not.
    """
    teachers = (given,) if isinstance(given, TrainRun | BundleOrigin) else tuple(given or ())
    for each in teachers:
        dataset.expect_expressions(each.labels, of=f"the teacher {each.path}")
        _expect_same_faces(each, recipe)
    return teachers


def teacher_facts(teachers: Sequence[Origin]) -> Any:
    """What a run records of its teachers: one identity, or a list of several."""
    told = [each.identity for each in teachers]
    return told[0] if len(told) == 1 else told


def open_teachers(teachers: Sequence[Origin]) -> Teachers:
    """Load teachers: bundles with their own head at T = 1, runs with their temporary classifier."""
    return Teachers([_guide(each) for each in teachers])


def _expect_same_faces(teacher: Origin, recipe: TrainRecipe) -> None:
    """A teacher sees the student's prepared faces; only what happens inside its own network may differ."""
    given = teacher.preprocess if isinstance(teacher, BundleOrigin) else teacher.recipe.preprocess
    if replace(given, normalisation=recipe.preprocess.normalisation) != recipe.preprocess:
        raise InputError(
            f"the teacher {teacher.path} sees faces prepared otherwise than the recipe does: got {given}, expected "
            f"{recipe.preprocess}; follow a teacher of the same preprocessing, or change the recipe's"
        )


def _loaded(init: Origin, run: TrainRun, dataset: Dataset) -> tuple[AttentionCnnBiLstm, nn.Linear]:
    """The weights to begin with; where no temporary classifier is there, or one of other expressions, one is fitted.

    A bundle's batch normalisations get their statistics back, also where the encoder stays as it is: what is trained
    on from this run may not know any more that it began with a bundle.
    """
    config = run.recipe.model
    if isinstance(init, BundleOrigin):
        model, temporary = init.load_model(), None
        refit_folded(model, dataset, run.recipe.preprocess)
    else:
        model, temporary = init.load_model()
        temporary = temporary if init.labels == run.labels else None
    if grows_from(config, model.config):
        model = grown(model, config)
    else:
        smaller = shrunk(model, temporary or nn.Linear(model.config.feature_size, config.classes), config)
        model, temporary = smaller.model, None if temporary is None else smaller.temporary
    return model, temporary or temporary_classifier(model, dataset, run.recipe)


def _guide(teacher: Origin) -> nn.Module:
    if isinstance(teacher, BundleOrigin):
        return StillClassifier(teacher.load_model())
    return FrameClassifier(*teacher.load_model(), dropout=0.0)


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
        InputError: the folder holds a run that is not to be resumed, or that was begun otherwise; or the data have
            nothing to train on or to choose on.
    """
    if not peers.leads:
        torch.distributed.barrier()
        return TrainRun.open(out)
    _expect_judges(dataset)
    if resume and (out / "run.json").exists():
        run = TrainRun.open(out)
        begun = {name: run.record[name] for name in ORIGINS if name in run.record}
        if run.recipe != recipe or begun != facts:
            raise InputError(f"{out} was begun with other settings; resume it with its own, or choose another --out")
        if run.record["data"]["sha256"] != dataset.sha256:
            raise InputError(f"{out} was trained on other data (sha256 {run.record['data']['sha256'][:12]}…)")
        if run.record["data"] != data_facts(dataset):
            raise InputError(f"{out} was trained with other FER+ votes, or without; resume it with its own")
    else:
        run = TrainRun.create(out, recipe, dataset, **facts)
    if peers.world > 1:
        torch.distributed.barrier()
    return run


def _expect_judges(dataset: Dataset) -> None:
    """Refuse data that no epoch could be chosen on.

    Raises:
        InputError: a split is missing, or all faces to choose on stand in the training split too.
    """
    dataset.split("train")
    choose = dataset.split("choose")
    if leaked_rows(dataset, choose).all():
        raise InputError(
            f"{dataset.source}: every face of {choose.name} stands in the training split too, so nothing could be "
            "chosen on it; give it faces of its own"
        )


def fit_stages(
    run: TrainRun,
    model: AttentionCnnBiLstm,
    temporary: nn.Linear,
    dataset: Dataset,
    peers: Processes,
    *,
    spec: OptimiserSpec | None,
    report: Reporter,
    teacher: nn.Module | None = None,
    sequences: tuple[CkPlusSequence, ...] = (),
    frames_only: bool = False,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Both stages on a model, from scratch or from given weights; leaves a finished run (process 0 writes it).

    Without `spec` the frames' stage is left out: the head alone is trained. With `frames_only` the head's is: the run
    is one to go on from, with the best epoch's top-1 as `frames_top1` and a head that fits no longer. `after_step` is
    the frame stage's. `teacher` is a `Teachers`, or the one classifier to follow.
    """
    recipe, choose_set = run.recipe, dataset.split("choose")
    classes, device = recipe.model.classes, peers.device
    unfiltered = replace(recipe.preprocess, median=0)
    train = DeviceFaces.load(dataset.split("train"), unfiltered, recipe.loss, device, classes=classes)
    choose = DeviceFaces.load(choose_set, recipe.preprocess, recipe.loss, device, classes=classes)
    leaked = torch.from_numpy(leaked_rows(dataset, choose_set)).to(device)
    # A run that was broken off has spent the seconds of its whole epochs already.
    started = time.monotonic() - sum(epoch.get("seconds", 0.0) for epoch in run.record["history"])
    module = FrameClassifier(model, temporary, dropout=recipe.loss.dropout)
    best = module.to(device)
    if spec is not None:
        teachers = None if teacher is None else Teachers.of(teacher)
        stage = FrameStage(run=run, spec=spec, module=module, peers=peers, teachers=teachers, after_step=after_step)
        best = stage.fit(train, choose, ~leaked, report)
    if not peers.leads:
        return
    if frames_only:
        top1 = run.record["history"][-1]["best_top1"]
        run.finish(best.model, best.temporary, frames_top1=top1, seconds=round(time.monotonic() - started, 1))
        return
    bank = encode_clips(best.model, dataset.split("train"), recipe, device, report)
    if sequences:
        bank = bank.joined(encode_sequences(best.model, sequences, recipe, device, report))
    if spec is None:
        guide = Guide.of(bank, StillClassifier(best.model).eval().classify)
        tune_head(best.model, bank, guide, recipe, report)
        best.temporary = classifier_of_features(best.model, bank.stills, bank.labels)
    else:
        guide = Guide.of(bank, best.eval().classify)
        fit_head(best.model, best.temporary, bank, guide, recipe, report)
    seconds = round(time.monotonic() - started, 1)
    finish_run(run, best, choose_set, choose, leaked, report=report, seconds=seconds)


def finish_run(
    run: TrainRun,
    best: FrameClassifier,
    stills: StillSet,
    choose: DeviceFaces,
    leaked: Tensor,
    *,
    report: Reporter,
    judge_clips: bool = True,
    **facts: Any,
) -> None:
    """Measure the final model on the ``choose`` split, in FP32, and close the run.

    `judge_clips` also asks it about clips made of that split, which takes as long as a window has frames.
    """
    figures = final_figures(run, best.model, stills, choose, leaked)
    if judge_clips:
        figures["top1_by_window"] |= clip_figures(run, best.model, stills, choose, leaked, report)
    run.finish(best.model, best.temporary, **figures, **facts)


def finish_untrained(
    run: TrainRun,
    model: AttentionCnnBiLstm,
    temporary: nn.Linear,
    dataset: Dataset,
    peers: Processes,
    *,
    report: Reporter,
) -> None:
    """Close a run around a network that is to stay as it is (process 0 measures it)."""
    if not peers.leads:
        return
    recipe, stills = run.recipe, dataset.split("choose")
    classes, device = recipe.model.classes, peers.device
    choose = DeviceFaces.load(stills, recipe.preprocess, recipe.loss, device, classes=classes)
    leaked = torch.from_numpy(leaked_rows(dataset, stills)).to(device)
    module = FrameClassifier(model, temporary, dropout=0.0).to(device).eval()
    finish_run(run, module, stills, choose, leaked, report=report, seconds=0.0)
