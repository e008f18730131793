"""The guides' tables are what the committed result files say, and the script that writes them."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from scripts import ROOT, load_script

from fer_edge.core.errors import InputError


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return load_script("bench/guides.py")


def test_every_table_is_what_its_result_says(script: ModuleType) -> None:
    found = set()
    for name in script.GUIDES:
        text = (ROOT / name).read_text("utf-8")
        assert script.filled(text) == text, f"{name} says otherwise than its results: python bench/guides.py"
        found |= set(re.findall(r"^<!-- ([\w-]+): \S+( \S+)? -->$", text, flags=re.MULTILINE))
    assert {kind for kind, _ in found} >= set(script.KINDS)


def test_a_table_that_says_otherwise_is_written_anew(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "calibrate" / "candidates" / "base-float-layers.json"
    result = f"<!-- candidates: {path} -->\n"
    (tmp_path / "guide.md").write_text(f"before\n\n{result}| typed by hand |\n<!-- /candidates -->\n\nafter\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "GUIDES", ("guide.md",))
    checked = CliRunner().invoke(script.main, ["--check"])
    assert checked.exit_code == 1
    assert "typed by hand" in (tmp_path / "guide.md").read_text()
    assert CliRunner().invoke(script.main, []).exit_code == 0
    text = (tmp_path / "guide.md").read_text()
    assert text.startswith(f"before\n\n{result}`base`, 3,309 rows")
    assert text.endswith("<!-- /candidates -->\n\nafter\n")
    assert "typed by hand" not in text
    assert CliRunner().invoke(script.main, ["--check"]).exit_code == 0


def test_a_table_without_an_end_is_refused(script: ModuleType) -> None:
    with pytest.raises(InputError, match="does not end"):
        script.filled("<!-- live: a.json -->\n| a row |\n\n<!-- check: base -->\n<!-- /check -->\n<!-- /live -->\n")


def test_a_result_that_is_missing_is_named(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guide.md").write_text("<!-- bench: gone.json -->\nold\n<!-- /bench -->\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "GUIDES", ("guide.md",))
    refused = CliRunner().invoke(script.main, [])
    assert refused.exit_code == 1
    assert "gone.json" in refused.output
    assert "old" in (tmp_path / "guide.md").read_text()
