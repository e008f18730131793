"""The CK+ protocol from a tree of images to its table, with a tiny network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from training import small_config, small_recipe  # noqa: E402
from trees import write_cropped_ckplus, write_drawn_ckplus  # noqa: E402

from fer_edge.core.errors import InputError  # noqa: E402
from fer_edge.core.labels import CKPLUS_EMOTIONS, EXPRESSIONS  # noqa: E402
from fer_edge.core.recipes import load_recipe  # noqa: E402
from fer_edge.data import load_dataset  # noqa: E402
from fer_edge.data.ckplus import split_by_subject  # noqa: E402
from fer_edge.paper.analysis import CKPLUS_SYSTEMS, NOT_RUN, ckplus_report  # noqa: E402
from fer_edge.paper.ckplus import CkPlusStudy, load_ckplus, plan_ckplus, read_ckplus  # noqa: E402
from fer_edge.paper.recipe import CkPlusSpec, StudyRecipe  # noqa: E402
from fer_edge.paper.report_tables import ckplus_table  # noqa: E402
from fer_edge.paper.results import RunResult, weights_path  # noqa: E402
from fer_edge.paper.systems import SYSTEMS  # noqa: E402
from fer_edge.paper.training import system_recipe, train_system  # noqa: E402
from fer_edge.train.recipe import OptimiserSpec  # noqa: E402

pytestmark = pytest.mark.train

COMPLETE = ("complete",)
FOLDS = 3


class Progress:
    """Counts, and presses Ctrl-C after so many runs."""

    def __init__(self, *, stop_after: int = 1000) -> None:
        self.plans: list[tuple[int, int]] = []
        self.runs: list[str] = []
        self._stop_after = stop_after

    def planned(self, *, finished: int, total: int) -> None:
        self.plans.append((finished, total))

    def step(self, what: str, done: int, total: int) -> None:
        assert done <= total

    def finished(self, run: str, result: RunResult) -> None:
        self.runs.append(run)
        if len(self.runs) == self._stop_after:
            raise KeyboardInterrupt


def recipe(**changed: Any) -> StudyRecipe:
    train = small_recipe(epochs=1)
    train = dataclasses.replace(
        train, sequence=dataclasses.replace(train.sequence, copies=1, classifier_epochs=1), model=small_config()
    )
    brief = OptimiserSpec(epochs=1, batch_size=8, warmup_epochs=0.1)
    spec = CkPlusSpec(
        folds=FOLDS, scratch=brief, transfer=brief, sequence=brief, window=4, copies=3, classifier_epochs=2,
        classifier_batch=8,
    )  # fmt: skip
    return StudyRecipe(seeds=(0,), train=train, ckplus=dataclasses.replace(spec, **changed))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with the weights that it left for FER2013."""
    folder = tmp_path_factory.mktemp("study")
    weights = weights_path(folder, system="complete", seed=0)
    train_system(
        system_recipe(SYSTEMS["complete"], recipe().train, 0),
        SYSTEMS["complete"],
        load_dataset("synthetic:70@3?size=24"),
        device=torch.device("cpu"),
        weights=weights,
    )
    return folder


def run(out: Path, data: str, progress: Progress, *, budget_s: float | None = None, **changed: Any) -> Any:
    stills, sequences = load_ckplus(data)
    study = CkPlusStudy(
        recipe=recipe(**changed), stills=stills, sequences=sequences, out=out, systems=COMPLETE, device="cpu"
    )
    return study.run(budget_s=budget_s, progress=progress)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn_ckplus(tmp_path_factory.mktemp("ckplus"), ["S005", "S010", "S501"], frames=5)


@pytest.fixture(scope="module")
def results(out: Path, tree: Path) -> Any:
    """Run in two goes: broken off after four runs, then finished."""
    progress = Progress(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        run(out, f"ckplus:{tree}", progress)
    resumed = Progress()
    found = run(out, f"ckplus:{tree}", resumed)
    assert progress.plans == [(0, 18)]
    assert resumed.plans == [(4, 18)]
    assert len(resumed.runs) == 14
    return found


def test_every_fold_start_and_input_is_there(results: Any, tree: Path) -> None:
    assert set(results) == set(plan_ckplus(recipe(), systems=COMPLETE, whole=True))
    whole = load_dataset(f"ckplus:{tree}")
    for (system, start, number), result in results.items():
        fold = split_by_subject(whole, fold=number, folds=FOLDS)
        sequences = system != "complete"
        assert result.report is not None
        assert len(result.report.labels) == (6 if sequences else len(fold.split("report")))
        assert result.report.classes == EXPRESSIONS
        assert result.settings["ckplus"]["start"] == start
        assert (result.settings["ckplus"]["init_sha256"] is None) == (start == "scratch")


def test_nothing_is_trained_twice_and_nothing_is_mixed(results: Any, out: Path, tree: Path) -> None:
    again = Progress()
    run(out, f"ckplus:{tree}", again)
    assert again.plans == [(18, 18)]
    assert again.runs == []
    with pytest.raises(InputError, match="got a run of another recipe, other data or other FER2013 weights"):
        run(out, f"ckplus:{tree}", again, copies=4)


def test_the_table_counts_every_subject_once(results: Any, out: Path) -> None:
    report = ckplus_report(results, folds=FOLDS, systems=["complete"])
    assert report.status == "run"
    rows = {(row.system, row.start): row for row in report.rows}
    stills, sequences = rows["complete", "fer2013"], rows["complete-sequence", "fer2013"]
    assert (stills.n, stills.folds) == (3 * 6 * 4, FOLDS)
    assert (sequences.n, sequences.folds) == (18, FOLDS)
    right = sum(int(each.report.right.sum()) for key, each in results.items() if key[:2] == ("complete", "fer2013"))
    assert stills.top1 == pytest.approx(right / stills.n)
    assert read_ckplus(out) == (report,)
    text = ckplus_table(report).to_markdown()
    assert "| Proposed (complete) | neutral to peak | FER2013 weights |" in text
    assert "not run" not in text


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "ckplus.json").write_text('{"status": "run"}')
    with pytest.raises(InputError, match=r"ckplus.json: folds: missing; remove it"):
        read_ckplus(tmp_path)


def test_without_the_data_every_row_says_so() -> None:
    report = ckplus_report({}, folds=10, systems=CKPLUS_SYSTEMS)
    assert report.status == NOT_RUN
    assert all(row.top1 is None and row.missing == NOT_RUN for row in report.rows)
    table = ckplus_table(report)
    assert len(table.rows) == 2 * (8 + 2)
    assert all(row[3] == NOT_RUN and not any(row[4:-1]) for row in table.rows)


def test_ck48_with_contempt_and_a_budget(out: Path, tmp_path: Path) -> None:
    names = ["anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"]
    tree = write_cropped_ckplus(
        tmp_path, {f"S{10 + person:03}_{1 + place:03}": name for person in range(3) for place, name in enumerate(names)}
    )
    spec, progress = f"ckplus:{tree}?labels=official", Progress(stop_after=2)
    assert run(out, spec, progress, budget_s=0) == {}
    with pytest.raises(KeyboardInterrupt):
        run(out, spec, progress)
    found = run(out, spec, progress, budget_s=0)
    assert list(found) == [("complete", "scratch", 0), ("complete", "fer2013", 0)]
    assert all(result.choose.classes == CKPLUS_EMOTIONS for result in found.values())
    report = ckplus_report(found, folds=FOLDS, systems=["complete"], whole=False)
    assert report.status == "partly run"
    assert {row.missing for row in report.rows if row.system != "complete"} == {"not run: CK+48 holds peaks alone"}
    assert report in read_ckplus(out)
    assert "1 of 3" in ckplus_table(report).to_markdown()


def test_ck48_without_contempt_has_six_expressions(out: Path, tmp_path: Path) -> None:
    names = ["anger", "disgust", "fear", "happy", "sadness", "surprise"]
    tree = write_cropped_ckplus(
        tmp_path, {f"S{10 + person:03}_{1 + place:03}": name for person in range(3) for place, name in enumerate(names)}
    )
    other = tmp_path / "study"
    other.mkdir()
    weights = weights_path(out, system="complete", seed=0)
    weights_path(other, system="complete", seed=0).write_bytes(weights.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        run(other, f"ckplus:{tree}", Progress(stop_after=2))


def test_what_cannot_be_run_is_said_before_anything_is(out: Path, tree: Path, tmp_path: Path) -> None:
    progress = Progress()
    with pytest.raises(InputError, match=r"complete-seed0.safetensors: missing, .* --only complete"):
        run(tmp_path, f"ckplus:{tree}", progress)
    with pytest.raises(InputError, match="every fold is run"):
        run(out, f"ckplus:{tree}?fold=1", progress)
    with pytest.raises(InputError, match=r"expected ckplus:PATH"):
        run(out, "synthetic:70", progress)
    assert progress.runs == []


def test_the_shipped_protocol_covers_tables_1_and_2() -> None:
    shipped = load_recipe(StudyRecipe, "stills", room="paper")
    plan = plan_ckplus(shipped, whole=True)
    assert shipped.ckplus.folds == 10
    assert len(plan) == 10 * 2 * (8 + 2)
    assert {system for system, _, _ in plan} >= {"complete", "no-features", "cnn-lstm", "dscnn-lstm", "acnn-lstm"}
