"""`fer-edge paper` on drawn faces: a study of two small systems, broken off, gone on with, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fer_edge.cli import main
from fer_edge.paper.report import StudyReport

pytest.importorskip("torch")

pytestmark = pytest.mark.train

RECIPE = """
seeds = [0, 1]
extra_seeds = [0]

[train]
precision = "fp32"

[train.model]
input_size = 16
channels = [8, 8, 8, 8]
blocks = [[], [], [], []]
stem_kernel = 3
token_grid = 2
spatial_hidden = 8
temporal_hidden = 8
attention_size = 8
dense_growth = 8

[train.preprocess]
size = 16
median = 3

[train.optimiser]
epochs = 1
batch_size = 32

[train.sequence]
copies = 1
classifier_epochs = 1
batch_size = 64
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    (folder / "small.toml").write_text(RECIPE)
    return folder


def paper(place: Path, *arguments: str, data: str = "synthetic:200@3") -> Result:
    fixed = ["--data", data, "--out", str(place / "study"), "--recipe", str(place / "small.toml"), "--device", "cpu"]
    return CliRunner().invoke(main, ["paper", *fixed, *arguments])


class TestStudy:
    def test_is_broken_off_and_gone_on_with(self, place: Path) -> None:
        nothing = paper(place, "--only", "tables", "--budget", "0", "--json")
        assert nothing.exit_code == 0, nothing.output
        assert json.loads(nothing.stdout)["finished"] == 0

        first = paper(place, "--only", "complete", "--only", "no-median")
        assert first.exit_code == 0, first.output
        assert "3 trainings, 0 of them finished already" in first.stderr
        assert "Proposed (complete)" in first.stdout

        again = paper(place, "--only", "complete", "--only", "no-median", "--json")
        assert "3 trainings, 3 of them finished already" in again.stderr
        said = json.loads(again.stdout)
        assert [row["name"] for row in said["systems"]] == ["complete", "no-median"]
        (pair,) = said["pairs"]
        assert pair["report"]["low"] <= pair["report"]["difference"] <= pair["report"]["high"]

        report = StudyReport.read(place / "study" / "report" / "study.json")
        assert report.systems[0].seeds == (0, 1)
        page = (place / "study" / "report" / "README.md").read_text("utf-8")
        assert "| CNN-SVM | not run yet |" in page

    def test_a_report_elsewhere_holds_what_other_commands_trained(self, place: Path, tmp_path: Path) -> None:
        done = paper(place, "--only", "no-lda", "--report", str(tmp_path / "results"))
        assert done.exit_code == 0, done.output
        names = [row.name for row in StudyReport.read(tmp_path / "results" / "study.json").systems]
        assert names == ["complete", "no-lda", "no-median"]


class TestRefusals:
    def test_another_protocol_in_the_same_folder(self, place: Path) -> None:
        result = paper(place, "--only", "complete", "--set", "train.optimiser.epochs=2")
        assert result.exit_code == 1
        assert "another recipe or other data" in result.stderr

    def test_another_protocol_is_told_before_any_training(self, place: Path) -> None:
        before = sorted((place / "study").glob("*.npz"))
        result = paper(place, "--only", "cnn-lstm", "--set", "train.optimiser.epochs=2")
        assert (result.exit_code, "another recipe" in result.stderr) == (1, True)
        assert sorted((place / "study").glob("*.npz")) == before

    def test_an_unknown_system(self, place: Path) -> None:
        result = paper(place, "--only", "transformer")
        assert (result.exit_code, "system: got 'transformer'" in result.stderr) == (1, True)

    def test_a_report_folder_that_is_a_file(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "taken").write_text("")
        result = paper(place, "--only", "complete", "--report", str(tmp_path / "taken" / "results"))
        assert (result.exit_code, "cannot write" in result.stderr) == (1, True)
        assert "Traceback" not in result.output
