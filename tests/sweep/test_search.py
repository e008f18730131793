"""The search, with real Optuna and an instant training: resumed, shared, pruned, bounded, refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from fer_edge.cli import main
from fer_edge.core.errors import InputError
from fer_edge.data import Dataset, load_dataset
from fer_edge.sweep.build import Builder, SweepFolder
from fer_edge.sweep.queue import run_trials, running
from fer_edge.sweep.recipe import SearchSpec, SweepRecipe
from fer_edge.sweep.report import SweepReport
from fer_edge.sweep.search import Search, best_units, open_search
from fer_edge.train.loop import EpochReport
from fer_edge.train.recipe import TrainRecipe
from fer_edge.train.run_folder import RunOptions

from .conftest import BRIEF

pytest.importorskip("optuna")
pytest.importorskip("torch")

pytestmark = pytest.mark.train
SPACE = {"optimiser.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "tokens": {"choices": [1, 4]}}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("synthetic:70@3")


@pytest.fixture
def recipe(preset: Path) -> SweepRecipe:
    return SweepRecipe(search=SearchSpec(preset=str(preset), space=SPACE, trials=4, startup=2, pruner="none"))


@dataclass
class Trainings:
    """Replaces `train_model`: accuracy by learning rate, at once; interrupts the training of that number."""

    accuracy: Callable[[TrainRecipe], float] = lambda recipe: min(1.0, 60 * recipe.optimiser.learning_rate)
    breaks_at: int | None = None
    places: list[Path] = field(default_factory=list)

    def __call__(self, recipe: TrainRecipe, dataset: Dataset, out: Path, *, options: RunOptions, **given: Any) -> Any:
        assert options.resume
        self.places.append(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text("{}")
        if len(self.places) == self.breaks_at:
            raise KeyboardInterrupt
        value = self.accuracy(recipe)
        for epoch in range(1, 4):
            score = value * epoch / 3
            assert options.on_epoch is not None
            options.on_epoch(
                EpochReport(stage="frames", epoch=epoch, loss=1.0, score=score, best_score=score, seconds=0.0)
            )
        return SimpleNamespace(record={"choose": {"top1": 0.9, "top1_without_leaked": value}})


@dataclass
class Latency:
    """Replaces the measurement of a shape."""

    def x(self, recipe: TrainRecipe) -> float:
        return 0.1 * recipe.model.tokens


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    replacement = Trainings()
    monkeypatch.setattr("fer_edge.train.train.train_model", replacement)
    return replacement


def search(recipe: SweepRecipe, dataset: Dataset, out: Path, *, storage: str | None = None) -> Search:
    folder = SweepFolder.open(out, recipe, recipe_name="own.toml", dataset=dataset)
    builder = Builder(
        folder=folder,
        recipe=recipe,
        dataset=dataset,
        options=lambda work: RunOptions(resume=True, device="cpu", on_epoch=lambda report: None),
        progress=lambda what, done, total: None,
    )
    return Search(
        study=open_search(folder, recipe, dataset, storage),
        builder=builder,
        latency=Latency(),  # type: ignore[arg-type]
    )


def changed(recipe: SweepRecipe, **given: Any) -> SweepRecipe:
    assert recipe.search is not None
    return replace(recipe, search=replace(recipe.search, **given))


def states(work: Search) -> list[str]:
    return [trial.state.name for trial in work.study.get_trials()]


def run_path(out: Path, number: int) -> Path:
    return out / "networks" / f"small-trial{number}" / "run"


def best(work: Search) -> Any:
    return best_units(work.study, work.builder.folder, work.builder.recipe)


def test_the_best_trial_becomes_a_network(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    work = search(recipe, dataset, tmp_path / "out")
    work.run(deadline_s=None)
    trials = work.study.get_trials()
    assert states(work) == ["COMPLETE"] * 4
    top = max(trials, key=lambda trial: trial.values[0])
    assert top.values[0] == pytest.approx(60 * top.params["optimiser.learning_rate"]), "without leaked rows"
    (unit,), notes = best(work)
    assert (unit.name, notes) == (f"small-trial{top.number}", [])
    assert work.builder.folder.run_path(unit) == run_path(tmp_path / "out", top.number)
    assert unit.recipe is not None
    assert unit.recipe.optimiser.learning_rate == top.params["optimiser.learning_rate"]
    assert unit.networks[0].axes.tokens == top.params["tokens"]
    assert unit.networks[0].axes.trial == top.number


def test_an_interrupted_trial_is_resumed(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    trainings.breaks_at = 2
    work = search(recipe, dataset, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        work.run(deadline_s=None)
    assert states(work) == ["COMPLETE", "FAIL", "WAITING"]
    again = search(recipe, dataset, tmp_path / "out")
    again.run(deadline_s=None)
    assert states(again) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trainings.places[1] == trainings.places[2] == run_path(tmp_path / "out", 1)
    first, repeated = again.study.get_trials()[1:3]
    assert repeated.params == first.params


def test_a_killed_trial_is_repeated_once_its_heartbeat_is_stale(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    work = search(recipe, dataset, tmp_path / "out")
    with pytest.warns(UserWarning, match="Heartbeat"):
        killed = work.study.ask()
    killed.suggest_float("optimiser.learning_rate", 1e-4, 1e-2, log=True)
    storage: Any = work.study._storage
    storage.record_heartbeat(killed._trial_id)
    search(recipe, dataset, tmp_path / "out").run(deadline_s=None)
    assert states(work) == ["RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert running(work.study) == ["trial 0"]
    with storage._backend.engine.begin() as connection:
        long_ago = (datetime.now() - timedelta(days=1)).isoformat(sep=" ")
        connection.exec_driver_sql(f"update trial_heartbeats set heartbeat = '{long_ago}'")
    search(recipe, dataset, tmp_path / "out").run(deadline_s=None)
    assert states(work) == ["FAIL", *4 * ["COMPLETE"]]
    assert trainings.places[-1] == run_path(tmp_path / "out", 0)
    assert running(work.study) == []
    repeated = work.study.get_trials()[4]
    assert repeated.params["optimiser.learning_rate"] == killed.params["optimiser.learning_rate"]


def test_another_folder_joins_through_the_storage(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    first = search(changed(recipe, trials=2), dataset, tmp_path / "one", storage=storage)
    first.run(deadline_s=None)
    trainings.accuracy = lambda recipe: 1.0
    second = search(changed(recipe, trials=3), dataset, tmp_path / "two", storage=storage)
    second.run(deadline_s=None)
    assert states(first) == ["COMPLETE"] * 3
    assert not (tmp_path / "one" / "study.db").exists()
    assert best(first) == ([], ["trial 2 is one of the best; its run is in another folder"])
    assert [unit.name for unit in best(second)[0]] == ["small-trial2"]


def test_processes_draw_different_values_and_their_number_changes_none(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    first, second = (search(recipe, dataset, tmp_path / "two") for _ in range(2))
    for trials, work in enumerate((first, second, first, second), start=1):
        run_trials(work.study, work._value, trials=trials, deadline_s=None)
    drawn = [trial.params for trial in first.study.get_trials()]
    assert len({each["optimiser.learning_rate"] for each in drawn}) == 4
    alone = search(recipe, dataset, tmp_path / "one")
    alone.run(deadline_s=None)
    assert [trial.params for trial in alone.study.get_trials()] == drawn


def test_more_trials_are_added_and_none_after_the_deadline(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    search(recipe, dataset, tmp_path / "out").run(deadline_s=0.0)
    assert trainings.places == []
    search(changed(recipe, trials=1), dataset, tmp_path / "out").run(deadline_s=None)
    assert len(trainings.places) == 1
    search(changed(recipe, trials=2), dataset, tmp_path / "out").run(deadline_s=None)
    assert len(trainings.places) == 2


def test_poor_trials_are_pruned(recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings) -> None:
    trainings.accuracy = lambda recipe: 0.5 if len(trainings.places) <= 2 else 0.1
    work = search(changed(recipe, pruner="median"), dataset, tmp_path / "out")
    work.run(deadline_s=None)
    assert states(work) == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert "pruned after epoch" in work.study.get_trials()[2].user_attrs["reason"]
    assert not run_path(tmp_path / "out", 2).exists()


def test_a_shape_that_is_too_slow_is_not_trained(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    work = search(changed(recipe, x_at_most=0.25, trials=8), dataset, tmp_path / "out")
    work.run(deadline_s=None)
    slow = [trial for trial in work.study.get_trials() if trial.params["tokens"] == 4]
    assert 0 < len(slow) < 8
    assert {trial.state.name for trial in slow} == {"PRUNED"}
    assert {trial.user_attrs["reason"] for trial in slow} == {"x = 0.400 is above 0.25"}
    assert len(trainings.places) == 8 - len(slow)


def test_two_objectives_give_a_front(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    trainings.accuracy = lambda recipe: 0.5 + 0.01 * recipe.model.tokens + recipe.optimiser.learning_rate
    work = search(changed(recipe, objective="top1-x", trials=8), dataset, tmp_path / "out")
    work.run(deadline_s=None)
    units, _ = best(work)
    assert sorted(unit.networks[0].axes.tokens or 0 for unit in units) == [1, 4]


def test_a_trial_that_cannot_be_trained_fails_and_the_search_goes_on(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    def diverges(recipe: TrainRecipe) -> float:
        raise InputError("the loss became nan")

    trainings.accuracy = diverges
    work = search(recipe, dataset, tmp_path / "out")
    work.run(deadline_s=None)
    assert states(work) == ["FAIL"] * 4
    assert best(work) == ([], [])


class TestForeignStudies:
    def test_no_database(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        SweepFolder.open(tmp_path / "out", recipe, recipe_name="own.toml", dataset=dataset)
        (tmp_path / "out" / "study.db").write_text("notes of mine " * 100)
        with pytest.raises(InputError, match=r"storage: got sqlite:.*study\.db \("):
            search(recipe, dataset, tmp_path / "out")

    def test_another_search(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings) -> None:
        search(changed(recipe, seed=5), dataset, tmp_path / "one")
        SweepFolder.open(tmp_path / "two", recipe, recipe_name="own.toml", dataset=dataset)
        (tmp_path / "two" / "study.db").write_bytes((tmp_path / "one" / "study.db").read_bytes())
        with pytest.raises(InputError, match="got the study of another search"):
            search(recipe, dataset, tmp_path / "two")
        with pytest.raises(InputError, match="with another search"):
            search(recipe, dataset, tmp_path / "one")

    def test_a_storage_that_is_not_to_be_had(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        for storage in ("abacus://nowhere", f"sqlite:///{tmp_path}/no/such/folder/study.db"):
            with pytest.raises(InputError, match="storage: got "):
                search(recipe, dataset, tmp_path / "out", storage=storage)


def test_a_whole_search_on_drawn_faces(preset: Path, tmp_path: Path) -> None:
    (tmp_path / "search.toml").write_text(
        f'precisions = ["fp32"]\ntrain_settings = ["optimiser.epochs=1"]\n[search]\npreset = "{preset}"\ntrials = 1\n'
        f"x_at_most = 1000.0\nspace.tokens = {{ choices = [1, 4] }}\n{BRIEF}"
    )
    arguments = ["--data", "synthetic:140@3", "--out", str(tmp_path / "out"), "--device", "cpu"]
    result = CliRunner().invoke(main, ["sweep", str(tmp_path / "search.toml"), *arguments])
    assert result.exit_code == 0, result.output
    (point,) = SweepReport.read(tmp_path / "out" / "pareto.json").points
    assert point.name == "small-trial0/fp32"
    assert point.axes.trial == 0
    assert point.front
