"""The training loop: schedule, moving average, best epoch, resume, divergence, SAM."""

from __future__ import annotations

import doctest
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fer_edge.train.loop
from fer_edge.core.errors import InputError, TrainingDiverged
from fer_edge.train.loop import EpochReport, Loop, Task, learning_rate
from fer_edge.train.recipe import OptimiserSpec

pytestmark = pytest.mark.train

SPEC = OptimiserSpec(epochs=4, batch_size=8, learning_rate=0.05, warmup_epochs=1.0, ema_decay=0.5)


class Regression(Task[Tensor]):
    """Fits y = 3x; the score is the negative error, or what a test gives."""

    def __init__(self, scores: Iterable[float] | None = None) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.2), nn.Linear(4, 1)))
        self.scores, self.steps = iter(scores or ()), 0

    def batches(self, epoch: int, generator: torch.Generator) -> tuple[int, Tensor]:
        return 6, torch.randn(6, 8, 1, generator=generator)

    def loss(self, batch: Tensor) -> tuple[Tensor, Any]:
        return (self.module(batch) - 3 * batch).square().mean(), len(batch)

    def after_step(self, batch: Tensor, output: Any) -> None:
        assert output == len(batch)
        self.steps += 1

    def score(self, average: nn.Module) -> float | None:
        return next(self.scores, None)

    def state(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.steps = int(tensors["steps"])


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def test_the_example_runs() -> None:
    assert doctest.testmod(fer_edge.train.loop).failed == 0


def test_the_rate_warms_up_and_ends_at_a_hundredth() -> None:
    rates = [learning_rate(SPEC, step, 10) for step in range(40)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[9] == pytest.approx(0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(SPEC, 40, 10) == pytest.approx(0.0005)


def test_the_epoch_with_the_best_score_is_returned() -> None:
    reports: list[EpochReport] = []
    seen: list[Tensor] = []

    class Noting(Regression):
        def score(self, average: nn.Module) -> float | None:
            seen.append(weights(average).clone())
            return super().score(average)

    fitted = Loop(spec=SPEC, on_epoch=reports.append).fit(Noting([0.1, 0.5, 0.5, 0.2]))
    assert torch.equal(weights(fitted.module), seen[2])  # of equal scores the later
    assert [report.best_score for report in reports] == [0.1, 0.5, 0.5, 0.5]
    assert fitted.history == tuple(reports)
    assert not fitted.module.training


def test_without_a_score_the_last_average_is_returned_and_without_decay_the_weights() -> None:
    task = Regression()
    fitted = Loop(spec=SPEC).fit(task)
    assert fitted.module is not task.module
    assert fitted.history[-1].score is None
    plain = Regression()
    assert Loop(spec=replace(SPEC, ema_decay=0.0)).fit(plain).module is plain.module
    assert torch.equal(weights(plain.module), weights(task.module))  # the average does not touch the training


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_resumed_training_equals_an_unbroken_one(tmp_path: Path, decay: float) -> None:
    spec = replace(SPEC, ema_decay=decay)
    unbroken = Loop(spec=spec, seed=(3,)).fit(Regression([1.0, 4.0, 3.0, 2.0]))

    def stop(what: str, done: int, total: int) -> None:
        if done == 15:  # in the third epoch
            raise KeyboardInterrupt

    loop = Loop(spec=spec, seed=(3,), checkpoint=tmp_path / "checkpoint.safetensors", progress=stop)
    with pytest.raises(KeyboardInterrupt):
        loop.fit(Regression([1.0, 4.0]))
    resumed = Regression([3.0, 2.0])
    fitted = replace(loop, progress=lambda *_: None).fit(resumed)
    assert torch.equal(weights(fitted.module), weights(unbroken.module))
    assert resumed.steps == 24
    assert [each.loss for each in fitted.history] == [each.loss for each in unbroken.history]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Loop(spec=replace(SPEC, epochs=1), checkpoint=path).fit(Regression())
    other = Regression()
    other.module = nn.Linear(1, 1)
    with pytest.raises(InputError, match="not a checkpoint of this training"):
        Loop(spec=SPEC, checkpoint=path).fit(other)


def test_a_loss_that_is_not_finite_is_named() -> None:
    class Diverging(Regression):
        def loss(self, batch: Tensor) -> tuple[Tensor, Any]:
            return self.module(batch).mean() * torch.inf, len(batch)

    with pytest.raises(TrainingDiverged, match="epoch 1 of frames"):
        Loop(spec=SPEC, stage="frames").fit(Diverging())
