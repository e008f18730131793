"""The training loop: every training in torch runs through `Loop.fit`.

A `Task` defines what is trained: the module, its batches and its loss. The loop does the rest, every epoch:

    batches -> learning rate (warm-up, cosine) -> loss under autocast -> backward
            -> gradient clipping -> AdamW -> Task.after_step -> moving average
    then    -> Task.score of the averaged weights -> checkpoint -> on_epoch

`fit` returns the averaged weights of the epoch with the best score, or of the last epoch for a task without a score.
With a checkpoint path a broken-off training resumes after its last complete epoch and draws the same batches as an
unbroken one.

Example:
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> from fer_edge.train.loop import Loop, Task
    >>> from fer_edge.train.recipe import OptimiserSpec
    >>> class Regression(Task[torch.Tensor]):
    ...     def batches(self, epoch, generator):
    ...         return 8, torch.randn(8, 32, 1, generator=generator)  # number of batches, and the batches
    ...     def loss(self, batch):
    ...         return (self.module(batch) - 3 * batch).square().mean(), None
    ...     def score(self, average):
    ...         return -abs(average.weight.item() - 3)
    >>> spec = OptimiserSpec(epochs=5, batch_size=32, learning_rate=0.3, ema_decay=0.5, weight_decay=0.0)
    >>> fitted = Loop(spec=spec, precision="fp32").fit(Regression(torch.nn.Linear(1, 1)))
    >>> [epoch.epoch for epoch in fitted.history], round(fitted.module.weight.item())
    ([1, 2, 3, 4, 5], 3)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fer_edge.core.errors import InputError, TrainingDiverged
from fer_edge.core.types import Progress
from fer_edge.train.batches import seeded
from fer_edge.train.checkpoint import (
    join,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    split,
)
from fer_edge.train.device import CPU, autocast
from fer_edge.train.recipe import OptimiserSpec, Precision

__all__ = ["EpochReport", "Fit", "Loop", "OnEpoch", "Task", "learning_rate", "no_progress"]

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Figures of one finished epoch.

    Attributes:
        stage: name of the training, for example ``"frames"``.
        epoch: number of the epoch, from 1.
        loss: mean training loss.
        score: of the averaged weights; None for a task without a score.
        best_score: best score so far.
        seconds: wall time of the epoch, evaluation included.
    """

    stage: str
    epoch: int
    loss: float
    score: float | None
    best_score: float | None
    seconds: float


OnEpoch: TypeAlias = Callable[[EpochReport], None]
"""Called after every epoch; an exception raised in it ends the training."""


def no_progress(what: str, done: int, total: int) -> None:
    """Ignore progress: the default `Progress` callback."""


class Task(Generic[B]):
    """What a `Loop` trains. `batches` and `loss` must be overridden; the other methods have defaults.

    Attributes:
        module: the module that is trained, averaged and returned.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters to optimise."""
        return (parameter for parameter in self.module.parameters() if parameter.requires_grad)

    def train(self) -> None:
        """Set the module's mode at the start of every epoch."""
        self.module.train()

    def batches(self, epoch: int, generator: torch.Generator) -> tuple[int, Iterable[B]]:
        """Return the number of batches of an epoch and the batches, this process's rows only.

        Args:
            epoch: from 0.
            generator: on the loop's device, seeded by the epoch; the same in every process.
        """
        raise NotImplementedError

    def loss(self, batch: B) -> tuple[Tensor, Any]:
        """Return the scalar loss of a batch and anything that `after_step` needs.

        Args:
            batch: one of `batches`.
        """
        raise NotImplementedError

    def after_step(self, batch: B, output: Any) -> None:
        """Run after every optimiser step, before the moving average; `output` is the second value of `loss`."""

    def score(self, average: nn.Module) -> float | None:
        """Return a score of the averaged module, higher is better; None to keep the last epoch. Process 0 only."""
        return None

    def state(self) -> dict[str, Tensor]:
        """Return further tensors that a checkpoint must hold."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Result of `Loop.fit`.

    Attributes:
        module: averaged weights of the best epoch, in evaluation mode.
        history: one report an epoch, those before a resume included.
    """

    module: Any
    history: tuple[EpochReport, ...]


def learning_rate(spec: OptimiserSpec, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to a hundredth of the peak."""
    warmup = max(1, round(spec.warmup_epochs * steps_per_epoch))
    if step < warmup:
        return spec.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, spec.epochs * steps_per_epoch - warmup)
    return spec.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def _adamw(parameters: list[nn.Parameter], spec: OptimiserSpec) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels only."""
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Settings of one training.

    Attributes:
        spec: epochs, learning rate, weight decay, clipping, decay of the moving average (0 for none).
        seed: of everything random; include a number of the stage where one seed serves several.
        stage: name of the training in progress and reports.
        precision: as in `TrainRecipe`.
        device: where to compute.
        checkpoint: file to resume from and to write after every epoch; None for none.
        on_epoch: called after every epoch.
    """

    spec: OptimiserSpec
    seed: tuple[int, ...] = (0,)
    stage: str = "train"
    precision: Precision = "auto"
    device: torch.device = CPU
    checkpoint: Path | None = None
    progress: Progress = no_progress
    on_epoch: OnEpoch | None = None

    def fit(self, task: Task[B]) -> Fit:
        """Train to the last epoch.

        Raises:
            TrainingDiverged: the loss of an epoch is not finite.
            InputError: the checkpoint does not fit the task.
            OutputError: the checkpoint cannot be written.
        """
        spec, device = self.spec, self.device
        training = _State(task, spec, device)
        if self.checkpoint is not None and self.checkpoint.exists():
            training.load(self.checkpoint)
        for epoch in range(len(training.history), spec.epochs):
            started = time.monotonic()
            generator = seeded(device, *self.seed, epoch)
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator, device=device)))
            task.train()
            steps, batches = task.batches(epoch, generator)
            total = torch.zeros((), device=device)
            for step, batch in enumerate(batches, start=epoch * steps):
                total += self._step(training, batch, learning_rate(spec, step, steps))
                self.progress(self.stage, step + 1, spec.epochs * steps)
            loss = float(total) / steps
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"training loss: got {loss} in epoch {epoch + 1} of {self.stage}; lower the learning rate"
                )
            best = training.keep_best(task.score(training.average.eval()))
            seconds = round(time.monotonic() - started, 1)
            report = EpochReport(stage=self.stage, epoch=epoch + 1, loss=loss, seconds=seconds, **best)
            training.history.append(report)
            if self.checkpoint is not None:
                training.save(self.checkpoint)
            if self.on_epoch is not None:
                self.on_epoch(report)
        return training.result()

    def _step(self, training: _State[B], batch: B, rate: float) -> Tensor:
        """Take one optimiser step and return the loss."""
        for group in training.optimiser.param_groups:
            group["lr"] = rate
        training.optimiser.zero_grad(set_to_none=True)
        with autocast(self.precision, self.device):
            loss, output = training.task.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(training.parameters, self.spec.clip_norm)
        training.optimiser.step()
        training.task.after_step(batch, output)
        training.update_average()
        return loss.detach()


class _State(Generic[B]):
    """Everything that changes during a training, and its checkpoint."""

    def __init__(self, task: Task[B], spec: OptimiserSpec, device: torch.device) -> None:
        self.task, self.device = task, device
        module = task.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = list(task.parameters())
        self.optimiser = _adamw(self.parameters, spec)
        self._averaged: AveragedModel | None = None
        if spec.ema_decay:
            mean = get_ema_multi_avg_fn(spec.ema_decay)  # type: ignore[no-untyped-call]
            self._averaged = AveragedModel(module, multi_avg_fn=mean, use_buffers=True)
        self.history: list[EpochReport] = []
        self._best: dict[str, Tensor] = {}

    @property
    def average(self) -> nn.Module:
        """The module that is evaluated: the moving average, or the module itself without one."""
        return self.task.module if self._averaged is None else self._averaged.module

    def update_average(self) -> None:
        if self._averaged is not None:
            self._averaged.update_parameters(self.task.module)

    def keep_best(self, score: float | None) -> dict[str, float | None]:
        """Copy the averaged weights where the score is the best so far; return score and best score."""
        if score is None:
            return {"score": None, "best_score": None}
        best = max((each.best_score for each in self.history if each.best_score is not None), default=-math.inf)
        if score >= best:
            self._best = {name: value.detach().clone() for name, value in self.average.state_dict().items()}
        return {"score": score, "best_score": max(score, best)}

    def result(self) -> Fit:
        if self._best:
            self.average.load_state_dict(self._best)
        return Fit(module=self.average.eval(), history=tuple(self.history))

    def save(self, path: Path) -> None:
        parts = {
            "module": self.task.module.state_dict(),
            "average": {} if self._averaged is None else self._averaged.state_dict(),
            "optimiser": optimiser_tensors(self.optimiser),
            "best": self._best,
            "task": self.task.state(),
        }
        save_checkpoint(path, join(parts), {"history": [asdict(report) for report in self.history]})

    def load(self, path: Path) -> None:
        """Restore a checkpoint.

        Raises:
            InputError: it is damaged or belongs to another task.
        """
        tensors, facts = load_checkpoint(path)
        try:
            self.task.module.load_state_dict(split(tensors, "module"))
            if self._averaged is not None:
                self._averaged.load_state_dict(split(tensors, "average"))
            restore_optimiser(self.optimiser, split(tensors, "optimiser"))
            self.task.restore({name: value.to(self.device) for name, value in split(tensors, "task").items()})
            self.history = [EpochReport(**report) for report in facts["history"]]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a checkpoint of this training ({error}); choose another --out") from error
        self._best = {name: value.to(self.device) for name, value in split(tensors, "best").items()}
