"""The README: its commands exist, its links lead somewhere, its Python runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from fer_edge.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("*/*.md"))]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_options_exist(guide: Path) -> None:
    """In the indented blocks, where a line that ends in a backslash goes on in the next one."""
    text = guide.read_text("utf-8").replace("\\\n", " ")
    for name, rest in re.findall(r"^ {4}(?:\S+ )*?fer-edge ([\w-]+)([^#|\n]*)", text, flags=re.MULTILINE):
        assert name in COMMANDS, f"fer-edge {name}"
        command = importlib.import_module(f"fer_edge.cli.{name.replace('-', '_')}").command
        known = {opt for each in command.params for opt in each.opts} | {"--help"}
        assert set(re.findall(r"(?<!\S)--[\w-]+", rest)) <= known, f"fer-edge {name}{rest}"


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
