"""Grids with real trainings: interrupted and resumed, and networks that fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fer_edge.cli import main
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import InputError
from fer_edge.data import Dataset, load_dataset
from fer_edge.sweep.recipe import SweepRecipe
from fer_edge.sweep.report import SweepReport
from fer_edge.sweep.run import SweepOptions, load_sweep, run_sweep, write_sweep

from .conftest import BRIEF, PRESET, Notes

pytest.importorskip("torch")

pytestmark = pytest.mark.train
DATA = "synthetic:200@3"
# Limits that pass everything: the gate has tests of its own.
GRID = """
keep = [1.0, 0.7]
prune_settings = ["round_to=4", "optimiser.epochs=1", "optimiser.batch_size=32", "optimiser.ema_decay=0.5"]
calibrate_settings = ["sample.size=14", "gate.agreement_rows=30", "gate.max_top1_drop=1", "gate.max_flip_rate=1",
    "gate.max_ece_rise=1", "gate.min_agreement=0"]

[grid]
presets = ["PRESET"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.toml").write_text(PRESET)
    (folder / "grid.toml").write_text(GRID.replace("PRESET", str(folder / "small.toml")) + BRIEF)
    return folder


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(DATA)


def sweep(place: Path, recipe: SweepRecipe, dataset: Dataset, out: str, notes: Notes) -> SweepReport | None:
    options = SweepOptions(recipe_name="grid.toml", device="cpu")
    return run_sweep(recipe, dataset, place / out, options, progress=lambda what, done, total: None, note=notes)


def command(place: Path, *arguments: str) -> Result:
    fixed = ["sweep", str(place / "grid.toml"), "--data", DATA, "--out", str(place / "out"), "--device", "cpu"]
    return CliRunner().invoke(main, [*fixed, *arguments])


class TestGrid:
    """One folder, in the order of the work."""

    def test_nothing_is_begun_after_the_budget(self, place: Path) -> None:
        pytest.importorskip("nncf")
        result = command(place, "--budget", "0", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) is None
        assert "1 networks or trainings, 0 of them finished already" in result.stderr
        assert "nothing to measure yet" in result.stderr

    def test_a_broken_off_training_is_gone_on_with(self, place: Path, dataset: Dataset) -> None:
        recipe = load_sweep(str(place / "grid.toml"))
        with pytest.raises(KeyboardInterrupt):
            sweep(place, recipe, dataset, "out", Notes(until="small: epoch 1"))
        notes = Notes()
        report = sweep(place, recipe, dataset, "out", notes)
        assert [line for line in notes.lines if line.startswith("small: epoch")] == [
            line for line in notes.lines if line.startswith("small: epoch 2")
        ]
        assert report is not None
        assert {each.name for each in report.points} == {
            "small/fp32",
            "small/int8",
            "small-k0.7/fp32",
            "small-k0.7/int8",
        }
        axes = {each.network: each.axes for each in report.points}
        assert (axes["small"].keep, axes["small-k0.7"].keep) == (1.0, 0.7)
        assert axes["small"].tokens == 4
        parameters = {each.network: each.parameters for each in report.points}
        assert parameters["small-k0.7"] < parameters["small"]
        assert report.missing == ()
        assert report.peers == ()
        write_sweep(report, place / "out", plot=False)

    def test_a_finished_sweep_is_only_drawn_again(self, place: Path) -> None:
        before = json.loads((place / "out" / "pareto.json").read_text())
        result = command(place)
        assert result.exit_code == 0, result.output
        assert "1 networks or trainings, 1 of them finished already" in result.stderr
        assert "small-k0.7/int8" in result.stdout
        assert json.loads((place / "out" / "pareto.json").read_text())["points"] == before["points"]
        assert "| small/int8 |" in (place / "out" / "pareto.md").read_text("utf-8")

    def test_its_json_can_be_drawn_elsewhere(self, place: Path, tmp_path: Path) -> None:
        file = place / "out" / "pareto.json"
        result = CliRunner().invoke(main, ["pareto", str(file), "--out", str(tmp_path / "page"), "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == json.loads(file.read_text())
        assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["pareto.json", "pareto.md"]
        assert (tmp_path / "page" / "pareto.json").read_text() == file.read_text()

    def test_other_settings_are_refused(self, place: Path, dataset: Dataset) -> None:
        (place / "small.toml").write_text(PRESET.replace("epochs = 2", "epochs = 3"))
        with pytest.raises(InputError, match="got other training settings"):
            sweep(place, load_sweep(str(place / "grid.toml")), dataset, "out", Notes())
        (place / "small.toml").write_text(PRESET)

    def test_what_cannot_be_pruned_or_quantized_is_told_and_the_rest_goes_on(
        self, place: Path, dataset: Dataset
    ) -> None:
        recipe = load_sweep(str(place / "grid.toml"))
        run = place / "out" / "networks" / "small" / "run"
        strict = replace(
            recipe,
            grid=None,
            runs=(str(run),),
            keep=(1.0, 0.001),
            calibrate_settings=(*recipe.calibrate_settings[:2], "gate.max_flip_rate=0", "gate.min_agreement=1"),
        )
        report = sweep(place, strict, dataset, "strict", Notes())
        assert report is not None
        assert [each.name for each in report.points] == ["run/fp32"]
        pruned, quantized = sorted(report.missing)
        assert (pruned.startswith("run-k0.001: "), "out of reach" in pruned) == (True, True)
        assert quantized.startswith("run/int8: rejected by the gate: ")
        assert [
            variant.name for variant in Bundle.open(place / "strict/networks/run/bundles/run").manifest.variants
        ] == ["fp32"]

    def test_a_training_that_diverges_is_told_and_the_rest_goes_on(self, place: Path, dataset: Dataset) -> None:
        (place / "wild.toml").write_text(PRESET.replace("[optimiser]", "[optimiser]\nlearning_rate = 1e30"))
        recipe = load_sweep(str(place / "grid.toml"))
        assert recipe.grid is not None
        presets = (str(place / "wild.toml"), str(place / "small.toml"))
        both = replace(recipe, keep=(1.0,), precisions=("fp32",), grid=replace(recipe.grid, presets=presets))
        report = sweep(place, both, dataset, "both", Notes())
        assert report is not None
        assert [each.name for each in report.points] == ["small/fp32"]
        (missing,) = report.missing
        assert missing.startswith("wild: ")
        assert "training loss: got nan" in missing

    def test_a_run_that_is_not_finished_is_refused_and_not_taken_for_a_failure(
        self, place: Path, dataset: Dataset
    ) -> None:
        from training import small_recipe

        from fer_edge.train.run_folder import TrainRun

        TrainRun.create(place / "begun", small_recipe(), dataset)
        recipe = replace(load_sweep(str(place / "grid.toml")), grid=None, runs=(str(place / "begun"),))
        with pytest.raises(InputError, match=r"begun: got an unfinished run; finish it first: fer-edge train --resume"):
            sweep(place, recipe, dataset, "unfinished", Notes())
        assert not list((place / "unfinished").glob("networks/*/*.json"))


def test_a_grid_needs_data_and_says_so(place: Path) -> None:
    result = CliRunner().invoke(main, ["sweep", str(place / "grid.toml"), "--out", str(place / "none")])
    assert (result.exit_code, "Missing option '--data'" in result.stderr) == (2, True)
    assert not (place / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "grid.presets=['egde']"], "did you mean 'edge'"),
        (["--set", "grid.presets=[]"], "presets"),
        (["--set", "grid.teachers=['nobody']"], "got 'nobody', which does not exist"),
        (["--set", "calibrate_settings=['sample.sise=3']"], "did you mean 'size'"),
    ],
)
def test_a_users_error_is_one_line_and_comes_first(place: Path, arguments: list[str], message: str) -> None:
    result = command(place, *arguments, "--budget", "0")
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output
