"""Every look at PrivateTest is on record."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fer_edge.bench.private_log import append_private, find_private_log
from fer_edge.core.errors import InputError, OutputError
from fer_edge.core.machine import repository_commit


def test_the_repository_is_found_from_inside(tmp_path: Path) -> None:
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "fer_edge" / "bench").mkdir(parents=True)
    expected = tmp_path / "bench" / "results" / "private_test.jsonl"
    assert find_private_log(tmp_path) == expected
    assert find_private_log(tmp_path / "fer_edge" / "bench") == expected


def test_elsewhere_a_place_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--private-log"):
        find_private_log(tmp_path)


def test_lines_are_added_and_none_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.jsonl"
    append_private(log, variant="fp32")
    append_private(log, variant="int8")
    assert [json.loads(line)["variant"] for line in log.read_text().splitlines()] == ["fp32", "int8"]


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        append_private(tmp_path)


def test_the_commit_is_known_inside_a_repository_only(tmp_path: Path) -> None:
    assert repository_commit(tmp_path / "none") is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    assert repository_commit(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert repository_commit(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert repository_commit(tmp_path) == f"{commit}-dirty"
