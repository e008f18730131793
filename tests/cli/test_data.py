from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from trees import fer2013_sample, write_cropped_ckplus

from fer_edge.cli import main


@pytest.fixture
def spec(tmp_path: Path) -> str:
    return f"fer2013:{fer2013_sample().write_csv(tmp_path / 'fer2013.csv')}"


def test_prints_a_table(spec: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["data", spec, "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{spec} (csv, 48x48)"
    row = next(line for line in lines if line.startswith("PrivateTest")).split()
    assert row == ["PrivateTest", "report", "7", "1", "1", "1", "1", "1", "1", "1"]
    assert str(tmp_path / "cache") in lines[-1]


def test_as_json(spec: str) -> None:
    result = CliRunner().invoke(main, ["data", spec, "--json"])
    value = json.loads(result.stdout)
    assert (value["name"], value["layout"], len(value["splits"])) == ("fer2013", "csv", 3)


def test_says_what_was_left_out(tmp_path: Path) -> None:
    root = write_cropped_ckplus(tmp_path, {"S010_004": "surprise", "S010_002": "contempt"})
    result = CliRunner().invoke(main, ["data", f"ckplus:{root}"])
    assert "subjects: 1 in all" in result.stdout
    assert "1 of contempt are left out" in result.stdout


def test_a_bad_row_is_one_line_of_error(spec: str) -> None:
    path = Path(spec.partition(":")[2])
    path.write_text(path.read_text().replace("Training", "Trainign", 1))
    result = CliRunner().invoke(main, ["data", spec])
    assert result.exit_code == 1
    assert result.stderr == f"error: {path}:2: usage 'Trainign', expected one of Training, PublicTest, PrivateTest\n"
    assert result.stdout == ""
