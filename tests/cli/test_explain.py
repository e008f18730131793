from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_bundle, tiny_frames

from fer_edge.cli import main


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle").path


@pytest.fixture
def face(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), tiny_frames(1)[0])
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def test_a_photograph_in_the_terminal(bundle: Path, face: Path) -> None:
    result = run(bundle, face, "--whole-frame", "--occlusion")
    assert result.exit_code == 0, result.output
    for line in ("label", "attention, % of each of 2x2 regions", "entropy of it", "lost by covering it"):
        assert line in result.stdout


def test_json_alone_on_stdout(bundle: Path, face: Path) -> None:
    result = run(bundle, face, "--whole-frame", "--json", "-")
    held = json.loads(result.stdout)
    assert (held["grid"], len(held["frames"])) == (2, 1)
    assert held["frames"][0]["face"]["occlusion_drop"] is None
    assert held["info"]["variant"] == "fp32"


def test_a_video_with_its_window(bundle: Path, tmp_path: Path) -> None:
    out, record = tmp_path / "strip.png", tmp_path / "weights.json"
    result = run(bundle, "synthetic:happy", "--until", "0.6", "--out", out, "--json", record)
    assert result.exit_code == 0, result.output
    assert "weights of its frames, %, oldest first" in result.stdout
    assert out.exists()
    assert json.loads(record.read_text())["frames"][-1]["window"]["weights"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "Missing argument"),
        (("missing.png",), 1, "got 'missing.png', expected a file that exists"),
    ],
)
def test_bad_input(bundle: Path, arguments: tuple[str, ...], status: int, message: str) -> None:
    result = run(bundle, *arguments)
    assert result.exit_code == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
