from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from fer_edge import __version__
from fer_edge.cli import COMMANDS, main
from fer_edge.core.errors import FerEdgeError, GateError


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> object:
    """Run `fer-edge verify` with the given body in place of the command's own."""

    def run(body: object, *arguments: str) -> Result:
        @click.command()
        @click.option("--count", type=int)
        def command(count: int | None) -> None:
            assert callable(body)
            body()

        monkeypatch.setitem(sys.modules, "fer_edge.cli.verify", SimpleNamespace(command=command))
        return CliRunner().invoke(main, ["verify", *arguments])

    return run


def _raise(error: BaseException) -> object:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize("error", [FerEdgeError("the gate [cpu] is shut"), GateError("the gate [cpu] is shut")])
def test_an_error_of_ours_is_one_line_and_exit_1(run_with, error: FerEdgeError) -> None:
    result = run_with(_raise(error))
    assert result.exit_code == 1
    assert result.stderr == "error: the gate [cpu] is shut\n"
    assert result.stdout == ""


def test_a_fault_of_the_program_is_not_dressed_up(run_with) -> None:
    assert isinstance(run_with(_raise(ZeroDivisionError())).exception, ZeroDivisionError)


def test_a_usage_error_is_exit_2(run_with) -> None:
    result = run_with(_raise(AssertionError()), "--count", "many")
    assert result.exit_code == 2
    assert "'many' is not a valid integer" in result.stderr


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
