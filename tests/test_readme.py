"""The README: its commands exist, its links lead somewhere, its Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fer_edge.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_its_commands_exist() -> None:
    used = set(re.findall(r"^    fer-edge (\w+)", README, flags=re.MULTILINE))
    assert used
    assert used <= set(COMMANDS)


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / target).exists(), target


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    from fer_edge.data.faces import synthetic_stills

    faces = synthetic_stills(3, seed=0)[0]
    camera = [(index / 10, np.asarray(face)) for index, face in enumerate(faces)]
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(block, {"camera": camera})
    assert len(capsys.readouterr().out.splitlines()) == 3
