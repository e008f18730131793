from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fer_edge import __version__
from fer_edge.cli import COMMANDS, main


@pytest.mark.parametrize(("word", "hint"), [("benhc", "Did you mean 'bench'?"), ("xyzzy", ", ".join(COMMANDS))])
def test_an_unknown_command_is_exit_2_with_a_hint(word: str, hint: str) -> None:
    result = CliRunner().invoke(main, [word])
    assert result.exit_code == 2
    assert f"No such command {word!r}. " in result.stderr
    assert hint in result.stderr


def test_help_lists_every_command_without_importing_one() -> None:
    result = CliRunner().invoke(main, ["-h"], terminal_width=100)
    assert result.exit_code == 0
    for name, line in COMMANDS.items():
        assert f"  {name} " in result.stdout
        assert line in result.stdout


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"fer-edge, version {__version__}\n"


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fer_edge", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"fer-edge, version {__version__}\n"


def test_a_reader_that_goes_away_is_no_noise() -> None:
    """`fer-edge ... | head` ends without a traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fer_edge", "--help"],
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write_end)
    assert done.stderr == b""


def test_priors_of_the_place_of_use_change_the_labels_and_bad_ones_are_named(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    face = tmp_path / "face.png"
    cv2.imwrite(str(face), np.full((96, 96), 127, np.uint8))

    def run(priors: str) -> tuple[int, str, str]:
        arguments = ["run", "nano", "--source", str(face), "--whole-frame", "--any-quality", "--priors", priors]
        done = CliRunner().invoke(main, [*arguments, "--json", "-"])
        return done.exit_code, done.stdout, done.stderr

    def neutral(output: str) -> float:
        [frame] = [each for each in map(json.loads, output.splitlines()) if each.get("record") == "frame"]
        return float(frame["estimates"][0]["probabilities"]["neutral"])

    (code, rare, _), (_, frequent, _) = run("neutral=0.01"), run("neutral=0.95")
    assert code == 0
    assert neutral(rare) < neutral(frequent)
    for text, message in (("neutral=much", "--priors: got 'neutral=much'"), ("asleep=0.5", "priors: got 'asleep'")):
        code, _, said = run(text)
        assert (code, message in said) == (1, True)
