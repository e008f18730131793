"""The search, with real Optuna and a training that takes no time: gone on with, shared, given up, bounded, refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from fer_edge.cli import main
from fer_edge.core.errors import InputError
from fer_edge.core.files import claimed
from fer_edge.data import Dataset, load_dataset
from fer_edge.sweep.folder import SweepFolder
from fer_edge.sweep.recipe import SearchSpec, SweepRecipe
from fer_edge.sweep.report import SweepReport
from fer_edge.sweep.search import Searcher, best_units, open_study, trials_in_other_hands
from fer_edge.train.progress import Silent
from fer_edge.train.recipe import TrainRecipe

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
    """Stands for `train_model`: accuracy by learning rate, at once; breaks off in the training of that number."""

    accuracy: Callable[[TrainRecipe], float] = lambda recipe: min(1.0, 60 * recipe.optimiser.learning_rate)
    breaks_at: int | None = None
    places: list[Path] = field(default_factory=list)

    def __call__(self, recipe: TrainRecipe, dataset: Dataset, out: Path, *, report: Any, **given: Any) -> Any:
        assert given["resume"]
        self.places.append(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "run.json").write_text("{}")
        if len(self.places) == self.breaks_at:
            raise KeyboardInterrupt
        value = self.accuracy(recipe)
        for epoch in range(1, 4):
            report.epoch("frames", {"epoch": epoch, "choose_top1": value * epoch / 3, "best_top1": value})
        return SimpleNamespace(record={"choose": {"top1": 0.9, "top1_without_leaked": value}})


@dataclass
class Speed:
    """Stands for the measurement of a shape."""

    def x(self, recipe: TrainRecipe) -> float:
        return 0.1 * recipe.model.tokens


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    stand_in = Trainings()
    monkeypatch.setattr("fer_edge.train.train.train_model", stand_in)
    return stand_in


def searcher(recipe: SweepRecipe, dataset: Dataset, out: Path, *, storage: str | None = None) -> Searcher:
    folder = SweepFolder.open(out, recipe, recipe_name="own.toml", dataset=dataset)
    return Searcher(
        study=open_study(folder, recipe, dataset, storage),
        folder=folder,
        recipe=recipe,
        dataset=dataset,
        speed=Speed(),  # type: ignore[arg-type]
        device="cpu",
        reporter=lambda work: Silent(),
    )


def changed(recipe: SweepRecipe, **search: Any) -> SweepRecipe:
    assert recipe.search is not None
    return replace(recipe, search=replace(recipe.search, **search))


def states(work: Searcher) -> list[str]:
    return [trial.state.name for trial in work.study.get_trials()]


def test_the_best_trial_becomes_a_network(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    work = searcher(recipe, dataset, tmp_path / "out")
    work.work(deadline_s=None)
    trials = work.study.get_trials()
    assert states(work) == ["COMPLETE"] * 4
    best = max(trials, key=lambda trial: trial.values[0])
    assert best.values[0] == pytest.approx(60 * best.params["optimiser.learning_rate"]), "without leaked rows"
    (unit,), notes = best_units(work.study, work.folder, recipe)
    assert (unit.name, notes) == (f"small-trial{best.number}", [])
    assert unit.run == tmp_path / "out" / "trials" / str(best.number) / "run"
    assert unit.networks[0].axes.tokens == best.params["tokens"]
    assert unit.networks[0].axes.trial == best.number


def test_a_trial_that_was_broken_off_is_gone_on_with(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    trainings.breaks_at = 2
    work = searcher(recipe, dataset, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        work.work(deadline_s=None)
    assert states(work) == ["COMPLETE", "RUNNING"]
    begun = work.study.get_trials()[1].params
    again = searcher(recipe, dataset, tmp_path / "out")
    again.work(deadline_s=None)
    assert states(again) == ["COMPLETE"] * 4
    assert trainings.places[1] == trainings.places[2] == tmp_path / "out" / "trials" / "1" / "run"
    assert again.study.get_trials()[1].params == begun


def test_a_trial_in_another_process_is_left_to_it(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    trainings.breaks_at = 1
    work = searcher(recipe, dataset, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        work.work(deadline_s=None)
    with claimed(tmp_path / "out" / "trials" / "0") as ours:
        assert ours
        searcher(recipe, dataset, tmp_path / "out").work(deadline_s=None)
        assert states(work) == ["RUNNING", "COMPLETE", "COMPLETE", "COMPLETE"]
        assert trials_in_other_hands(work.study, work.folder) == ["trial 0"]
    assert trials_in_other_hands(work.study, work.folder) == []


def test_another_folder_joins_by_the_storage_and_takes_no_trial_of_the_first(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    trainings.breaks_at = 2
    first = searcher(recipe, dataset, tmp_path / "one", storage=storage)
    with pytest.raises(KeyboardInterrupt):
        first.work(deadline_s=None)
    second = searcher(recipe, dataset, tmp_path / "two", storage=storage)
    second.work(deadline_s=None)
    assert states(first) == ["COMPLETE", "RUNNING", "COMPLETE", "COMPLETE"]
    assert not (tmp_path / "one" / "study.db").exists()
    trainings.accuracy = lambda recipe: 1.0
    searcher(recipe, dataset, tmp_path / "one", storage=storage).work(deadline_s=None)
    units, notes = best_units(second.study, second.folder, recipe)
    assert (units, notes) == ([], ["trial 1 is one of the best, and its run lies in another folder"])


def test_no_two_processes_draw_alike_and_one_draws_what_two_do(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    first, second = (searcher(recipe, dataset, tmp_path / "two") for _ in range(2))
    for work in (first, second, first, second):
        with work._next_trial() as trial:
            assert trial is not None
            work._run(trial)
    drawn = [trial.params for trial in first.study.get_trials()]
    assert len({each["optimiser.learning_rate"] for each in drawn}) == 4
    alone = searcher(recipe, dataset, tmp_path / "one")
    alone.work(deadline_s=None)
    assert [trial.params for trial in alone.study.get_trials()] == drawn


def test_more_trials_are_added_and_none_after_the_deadline(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    searcher(recipe, dataset, tmp_path / "out").work(deadline_s=0.0)
    assert trainings.places == []
    searcher(changed(recipe, trials=1), dataset, tmp_path / "out").work(deadline_s=None)
    assert len(trainings.places) == 1
    searcher(changed(recipe, trials=2), dataset, tmp_path / "out").work(deadline_s=None)
    assert len(trainings.places) == 2


def test_poor_trials_are_given_up(recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings) -> None:
    trainings.accuracy = lambda recipe: 0.5 if len(trainings.places) <= 2 else 0.1
    work = searcher(changed(recipe, pruner="median"), dataset, tmp_path / "out")
    work.work(deadline_s=None)
    assert states(work) == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert "given up after epoch" in work.study.get_trials()[2].user_attrs["why"]
    assert not (tmp_path / "out" / "trials" / "2" / "run").exists()


def test_a_shape_that_is_too_slow_is_not_trained(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    work = searcher(changed(recipe, x_at_most=0.25, trials=8), dataset, tmp_path / "out")
    work.work(deadline_s=None)
    slow = [trial for trial in work.study.get_trials() if trial.params["tokens"] == 4]
    assert 0 < len(slow) < 8
    assert {trial.state.name for trial in slow} == {"PRUNED"}
    assert {trial.user_attrs["why"] for trial in slow} == {"x = 0.400 is above 0.25"}
    assert len(trainings.places) == 8 - len(slow)


def test_two_objectives_give_a_front(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    trainings.accuracy = lambda recipe: 0.5 + 0.01 * recipe.model.tokens + recipe.optimiser.learning_rate
    work = searcher(changed(recipe, objective="top1-x", trials=8), dataset, tmp_path / "out")
    work.work(deadline_s=None)
    units, _ = best_units(work.study, work.folder, recipe=changed(recipe, objective="top1-x", trials=8))
    assert sorted(unit.networks[0].axes.tokens or 0 for unit in units) == [1, 4]


def test_a_trial_that_cannot_be_trained_fails_and_the_search_goes_on(
    recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings
) -> None:
    def diverges(recipe: TrainRecipe) -> float:
        raise InputError("the loss became nan")

    trainings.accuracy = diverges
    work = searcher(recipe, dataset, tmp_path / "out")
    work.work(deadline_s=None)
    assert states(work) == ["FAIL"] * 4
    assert best_units(work.study, work.folder, recipe) == ([], [])


class TestForeignStudies:
    def test_no_database(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        SweepFolder.open(tmp_path / "out", recipe, recipe_name="own.toml", dataset=dataset)
        (tmp_path / "out" / "study.db").write_text("notes of mine " * 100)
        with pytest.raises(InputError, match=r"study\.db cannot be used for the search"):
            searcher(recipe, dataset, tmp_path / "out")

    def test_another_programs_database(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        SweepFolder.open(tmp_path / "out", recipe, recipe_name="own.toml", dataset=dataset)
        with closing(sqlite3.connect(tmp_path / "out" / "study.db")) as database:
            database.execute("create table birds (name text)")
            database.commit()
        with pytest.raises(InputError, match="none of Optuna's"):
            searcher(recipe, dataset, tmp_path / "out")

    def test_another_search(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path, trainings: Trainings) -> None:
        searcher(changed(recipe, seed=5), dataset, tmp_path / "one")
        SweepFolder.open(tmp_path / "two", recipe, recipe_name="own.toml", dataset=dataset)
        (tmp_path / "two" / "study.db").write_bytes((tmp_path / "one" / "study.db").read_bytes())
        with pytest.raises(InputError, match="holds another search"):
            searcher(recipe, dataset, tmp_path / "two")
        with pytest.raises(InputError, match="with another search"):
            searcher(recipe, dataset, tmp_path / "one")

    def test_a_storage_that_is_not_to_be_had(self, recipe: SweepRecipe, dataset: Dataset, tmp_path: Path) -> None:
        for storage in ("abacus://nowhere", f"sqlite:///{tmp_path}/no/such/folder/study.db"):
            with pytest.raises(InputError, match="cannot be used for the search"):
                searcher(recipe, dataset, tmp_path / "out", storage=storage)


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
