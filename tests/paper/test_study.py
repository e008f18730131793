"""Whole small studies: plan, resume, several at a time, budget, Ctrl-C, the log of PrivateTest."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import small_config, small_dataset, small_recipe

from fer_edge.core.errors import InputError
from fer_edge.core.recipes import load_recipe
from fer_edge.data import Dataset
from fer_edge.paper.recipe import StudyRecipe
from fer_edge.paper.results import RunResult
from fer_edge.paper.study import StudyOptions, plan_runs, read_runs, run_study
from fer_edge.paper.systems import SYSTEMS, chosen_systems
from fer_edge.paper.training import system_recipe, train_system
from fer_edge.train.recipe import AugmentSpec, OptimiserSpec, TrainRecipe

pytestmark = pytest.mark.train

DATA = "synthetic:300@3"
CPU = torch.device("cpu")


def recipe(*, epochs: int = 1) -> StudyRecipe:
    return StudyRecipe(seeds=(0, 1), extra_seeds=(0,), train=small_recipe(epochs=epochs))


class Watch:
    """Notes what it is told, and presses Ctrl-C once a run has ended, if asked."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.plan: tuple[int, int] = (-1, -1)
        self.ended: list[str] = []
        self._stop_after = stop_after

    def planned(self, *, finished: int, total: int) -> None:
        self.plan = (finished, total)

    def step(self, what: str, done: int, total: int) -> None:
        if self._stop_after is not None and len(self.ended) >= self._stop_after:
            raise KeyboardInterrupt

    def finished(self, run: str, result: RunResult) -> None:
        self.ended.append(f"{result.system}-seed{result.seed}")


def train(name: str, seed: int, base: TrainRecipe, dataset: Dataset) -> RunResult:
    system = SYSTEMS[name]
    return train_system(system_recipe(system, base, seed), system, dataset, device=CPU)


class TestRun:
    @pytest.mark.parametrize("name", ["complete", "no-lda", "cnn-svm", "cnn-lstm"])
    def test_predicts_both_splits(self, name: str) -> None:
        dataset = small_dataset()
        result = train(name, 0, small_recipe(), dataset)
        assert len(result.choose.labels) == len(dataset.split("choose"))
        assert result.report is not None
        assert result.report.split == dataset.split("report").name
        assert result.parameters > 0

    def test_learns_what_it_is_shown(self) -> None:
        """On the very faces that it is trained on, unchanged: far above the seventh that chance gives."""
        dataset, still = small_dataset(), AugmentSpec(**dict.fromkeys(AugmentSpec.__dataclass_fields__, 0.0))
        shown = dataclasses.replace(dataset, roles={**dataset.roles, "choose": dataset.roles["train"]})
        plan = small_recipe(epochs=10, batch_size=16)
        plan = dataclasses.replace(
            plan, augment=still, sequence=dataclasses.replace(plan.sequence, classifier_epochs=20)
        )
        assert train("complete", 0, plan, shown).choose.right.mean() > 0.5

    def test_a_seed_gives_the_same_run_and_another_gives_another(self) -> None:
        dataset = small_dataset()
        first, second, other = (train("cnn-bilstm", seed, small_recipe(epochs=1), dataset) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first.choose.probabilities, second.choose.probabilities)
        assert np.abs(first.choose.probabilities - other.choose.probabilities).max() > 1e-3

    def test_weights_are_the_moving_average(self) -> None:
        dataset, base = small_dataset(), small_recipe(epochs=2)

        def probabilities(ema_decay: float) -> Any:
            optimiser = dataclasses.replace(base.optimiser, ema_decay=ema_decay)
            return train("cnn-lstm", 0, dataclasses.replace(base, optimiser=optimiser), dataset).choose.probabilities

        last, averaged = probabilities(0.0), probabilities(0.9)
        assert np.abs(last - averaged).max() > 1e-3
        np.testing.assert_allclose(probabilities(1e-9), last, atol=1e-5)


class TestStudy:
    def test_plans_the_tables_seed_by_seed_and_the_rest_after_them(self) -> None:
        names = [run.name for run in plan_runs(chosen_systems(["cnn-lstm", "hidden-32", "complete"]), recipe())]
        expected = ["complete-seed0", "cnn-lstm-seed0", "complete-seed1", "cnn-lstm-seed1", "hidden-32-seed0"]
        assert names == expected

    def test_goes_on_where_it_was_broken_off(self, tmp_path: Path) -> None:
        plan = plan_runs(chosen_systems(["cnn-lstm", "cnn-bilstm"]), recipe())
        with pytest.raises(KeyboardInterrupt):
            run_study(plan, recipe(), DATA, tmp_path, StudyOptions(), progress=Watch(stop_after=1))
        assert {path.name for path in tmp_path.glob("*.npz")} == {"cnn-lstm-seed0.npz"}
        watch = Watch()
        results = run_study(plan, recipe(), DATA, tmp_path, StudyOptions(), progress=watch)
        assert watch.plan == (1, 4)
        assert watch.ended == ["cnn-bilstm-seed0", "cnn-lstm-seed1", "cnn-bilstm-seed1"]
        assert set(results) == {run.name for run in plan}

    def test_a_spent_budget_begins_nothing_more(self, tmp_path: Path) -> None:
        plan = plan_runs(chosen_systems(["cnn-lstm"]), recipe())
        assert run_study(plan, recipe(), DATA, tmp_path, StudyOptions(budget_s=0.0), progress=Watch()) == {}

    def test_another_protocols_runs_are_refused(self, tmp_path: Path) -> None:
        plan = plan_runs(chosen_systems(["cnn-lstm"]), dataclasses.replace(recipe(), seeds=(0,)))
        run_study(plan, recipe(), DATA, tmp_path, StudyOptions(), progress=Watch())
        with pytest.raises(InputError, match="got a run of another recipe or other data"):
            read_runs(tmp_path, plan, recipe(epochs=2), small_dataset())

    def test_a_setting_younger_than_a_run_does_not_make_it_another_protocol(self, tmp_path: Path) -> None:
        plan = plan_runs(chosen_systems(["cnn-lstm"]), dataclasses.replace(recipe(), seeds=(0,)))
        run_study(plan, recipe(), DATA, tmp_path, StudyOptions(), progress=Watch())
        path = tmp_path / "cnn-lstm-seed0.npz"
        run = RunResult.read(path)
        older = copy.deepcopy(dict(run.settings))
        del older["recipe"]["optimiser"]["ema_decay"], older["recipe"]["loss"]["dropout"]
        dataclasses.replace(run, settings=older).write(path)
        usual = dataclasses.replace(recipe().train.optimiser, ema_decay=OptimiserSpec().ema_decay)
        same = dataclasses.replace(recipe(), train=dataclasses.replace(recipe().train, optimiser=usual))
        assert set(read_runs(tmp_path, plan, same, small_dataset())) == {"cnn-lstm-seed0"}

    def test_a_damaged_run_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "cnn-lstm-seed0.npz").write_bytes(b"PK\x03\x04 cut off")
        with pytest.raises(InputError, match=r"cnn-lstm-seed0\.npz: not a run"):
            run_study(
                plan_runs(chosen_systems(["cnn-lstm"]), recipe()),
                recipe(),
                DATA,
                tmp_path,
                StudyOptions(),
                progress=Watch(),
            )


def test_the_shipped_protocol_fits_every_system() -> None:
    shipped = load_recipe(StudyRecipe, "stills", room="paper")
    assert len(shipped.seeds) >= 3
    assert shipped.train.model != small_config()
    for run in plan_runs(tuple(SYSTEMS.values()), shipped):
        assert run.system.name in run.name
