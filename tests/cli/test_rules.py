"""One rule each, for every command: outputs, numbers, texts, errors, signals, encodings and help."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from tiny import tiny_bundle

from fer_edge.cli import COMMANDS, main, options
from fer_edge.cli.console import show
from fer_edge.core.errors import DataError, FerEdgeError, GateError
from fer_edge.core.files import scratch_file
from fer_edge.core.tables import Table

Body = Callable[[], object]


def command_named(name: str) -> click.Command:
    command: click.Command = importlib.import_module(f"fer_edge.cli.{name.replace('-', '_')}").command
    return command


def cases(wanted: Callable[[click.Parameter], bool]) -> list[pytest.ParameterSet]:
    return [
        pytest.param(name, each, id=f"{name} {(each.opts or [each.name])[0]}")
        for name in COMMANDS
        for each in command_named(name).params
        if wanted(each)
    ]


def run(name: str, *arguments: object, but: click.Parameter | None = None) -> Result:
    """Run a command with a value for everything that it requires, except `but`."""
    given: list[str] = []
    for each in command_named(name).params:
        if each.required and each is not but:
            given += [each.opts[0], "new"] if isinstance(each, click.Option) else ["new"]
    return CliRunner().invoke(main, [name, *given, *map(str, arguments)])


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command with another body."""
    monkeypatch.chdir(tmp_path)

    def run_with(name: str, body: Body, *arguments: object) -> Result:
        monkeypatch.setattr(command_named(name), "callback", lambda *_, **given: body())
        return run(name, *arguments)

    return run_with


def raised(error: BaseException) -> Body:
    def body() -> None:
        raise error

    return body


class TestOptions:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_parameter_is_of_a_shared_type(self, name: str) -> None:
        shared = (type(options.TEXT), options.Number, click.Choice, type(click.BOOL))
        foreign = [each.name for each in command_named(name).params if not isinstance(each.type, shared)]
        assert foreign == []

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_json_and_overwrite(self, name: str) -> None:
        named = {opt for each in command_named(name).params for opt in each.opts}
        assert {"--json", "--overwrite"} <= named

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_help_of_an_option_is_one_line(self, name: str) -> None:
        text = CliRunner().invoke(main, [name, "--help"], terminal_width=100).stdout
        listed = text.partition("Options:\n")[2].splitlines()
        assert [line for line in listed if not line.startswith("  -")] == []

    @pytest.mark.parametrize(("name", "parameter"), cases(lambda each: isinstance(each.type, options.Number)))
    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + 400 * "0", "-1", "", "many"])
    def test_numbers_are_finite_and_in_range(self, name: str, parameter: click.Parameter, value: str) -> None:
        result = run(name, f"{parameter.opts[0]}={value}", but=parameter)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "expected a" in result.stderr or "No such option '-" in result.stderr

    @pytest.mark.parametrize(
        ("name", "parameter"), cases(lambda each: isinstance(each.type, type(options.TEXT)) and each.name != "json_out")
    )
    def test_no_value_is_empty(self, name: str, parameter: click.Parameter) -> None:
        value = f"{parameter.opts[0]}=" if isinstance(parameter, click.Option) else ""
        result = run(name, value, but=parameter)
        assert (result.exit_code, "got an empty value" in result.stderr) == (2, True)

    @pytest.mark.parametrize("kind", [options.TEXT, options.INPUT_PATH, options.OUTPUT_FILE, options.OUTPUT_FOLDER])
    def test_the_home_folder_is_expanded(
        self, kind: click.ParamType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert str(kind.convert("~/new", None, None)) == str(tmp_path / "new")
        assert options.DATA_SPEC.convert("folder:~/faces?size=48", None, None) == f"folder:{tmp_path}/faces?size=48"

    def test_an_argument_is_not_taken_for_the_file_of_json(self) -> None:
        result = CliRunner().invoke(main, ["verify", "--json", "base"])
        assert (result.exit_code, "expected - or a file that ends in .json" in result.stderr) == (2, True)


def is_output(parameter: click.Parameter) -> bool:
    return isinstance(parameter.type, type(options.OUTPUT_FILE))


class TestOutputs:
    @pytest.mark.parametrize(("name", "parameter"), cases(is_output))
    def test_what_exists_is_refused_before_any_work(
        self, name: str, parameter: click.Parameter, tmp_path: Path, doing: Callable[..., Result]
    ) -> None:
        folder = parameter.type is options.OUTPUT_FOLDER
        target = tmp_path / ("taken" if folder else "taken.json")
        if folder:
            target.mkdir()
        kept = target / "letters.txt" if folder else target
        kept.write_text("mine")
        done: list[str] = []
        refused = doing(name, lambda: done.append("work"), parameter.opts[0], target)
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"error: {target} ")
        assert "--overwrite" in refused.stderr
        assert (done, kept.read_text()) == ([], "mine")
        allowed = doing(name, lambda: done.append("work"), parameter.opts[0], target, "--overwrite")
        assert (allowed.exit_code, done) == (0, ["work"]), allowed.output

    @pytest.mark.parametrize("name", ["train", "prune", "qat"])
    def test_a_run_goes_into_no_folder_that_holds_files(
        self, name: str, tmp_path: Path, doing: Callable[..., Result]
    ) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "letters.txt").write_text("mine")
        done: list[str] = []
        refused = doing(name, lambda: done.append("work"), "--overwrite", "--out", tmp_path / "run")
        assert (refused.exit_code, "with --resume" in refused.stderr, done) == (1, True, [])
        assert doing(name, lambda: done.append("work"), "--out", tmp_path / "run", "--resume").exit_code == 0
        assert done == ["work"]

    def test_pareto_replaces_no_front(self, tmp_path: Path) -> None:
        (tmp_path / "pareto.md").write_text("mine")
        result = CliRunner().invoke(main, ["pareto", str(tmp_path / "pareto.json"), "--out", str(tmp_path)])
        assert (result.exit_code, "pareto.md exists" in result.stderr) == (1, True)

    @pytest.mark.parametrize("place", ["file/inside.json", "folder.json", "pipe.json"])
    def test_a_place_that_cannot_be_written_is_refused(self, place: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "folder.json").mkdir()
        os.mkfifo(tmp_path / "pipe.json")
        result = CliRunner().invoke(main, ["targets", "--overwrite", "--json", str(tmp_path / place)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "expected a" in result.stderr


class TestEnds:
    @pytest.mark.parametrize("name", COMMANDS)
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (FerEdgeError("the gate [cpu] is shut"), "the gate [cpu] is shut"),
            (DataError("no faces"), "no faces"),
            (GateError("flips"), "flips"),
            (OSError(28, "No space left on device"), "No space left on device"),
            (MemoryError(), "out of memory"),
            (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "invalid start byte"),
        ],
    )
    def test_an_error_is_one_line_and_status_1(
        self, name: str, error: Exception, message: str, doing: Callable[..., Result]
    ) -> None:
        result = doing(name, raised(error))
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("name", COMMANDS)
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_cleans_up(
        self, name: str, number: signal.Signals, tmp_path: Path, doing: Callable[..., Result]
    ) -> None:
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)

        def body() -> None:
            with scratch_file(tmp_path / "video.mp4") as scratch:
                scratch.write_bytes(b"the driver")
                os.kill(os.getpid(), number)
                time.sleep(5)

        try:
            result = doing(name, body)
        finally:
            signal.signal(signal.SIGINT, previous)
        assert result.exit_code == 128 + number
        assert result.stderr == f"interrupted by {number.name}; no partial output is left\n"
        assert list(tmp_path.iterdir()) == []
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def test_json_nested_beyond_the_stack_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "deep.json").write_text("[" * 100_000)
        result = CliRunner().invoke(main, ["pareto", str(tmp_path / "deep.json"), "--out", str(tmp_path / "new")])
        assert (result.exit_code, "is not valid JSON" in result.stderr) == (1, True)

    def test_a_fault_of_the_program_keeps_its_traceback(self, doing: Callable[..., Result]) -> None:
        assert isinstance(doing("verify", raised(ZeroDivisionError())).exception, ZeroDivisionError)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_process_that_is_ended_leaves_no_video(self, number: signal.Signals, tmp_path: Path) -> None:
        bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
        out.mkdir()
        arguments = ["run", str(bundle.path), "--source", "synthetic", "--annotate", str(out / "clip.mp4")]
        child = subprocess.Popen(
            [sys.executable, "-m", "fer_edge", *arguments, "--json", str(out / "clip.jsonl")],
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a test run under nohup ignores SIGHUP
        )
        limit = time.monotonic() + 60
        modes: set[int] = set()
        while modes != {0o600} and child.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
            modes = {each.stat().st_mode & 0o777 for each in out.iterdir()}
        assert modes == {0o600}
        child.send_signal(number)
        stderr = child.communicate(timeout=60)[1].decode()
        assert (child.returncode, stderr.splitlines()[-1].startswith("interrupted by")) == (128 + number, True)
        assert list(out.iterdir()) == []


TABLE = Table(columns=("name", "Δ top-1"), rows=[("× −", "±0.5"), ("überrascht → 怒", None)])


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
    @pytest.mark.parametrize("arguments", [["targets"], ["card", "BUNDLE"], ["--help"], ["verify", "BUNDLE", "--json"]])
    def test_any_stdout_will_do(self, encoding: str, arguments: list[str], tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "größe-怒").path
        given = [str(bundle) if each == "BUNDLE" else each for each in arguments]
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run(
            [sys.executable, "-m", "fer_edge", *given], env=environment, capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode(encoding)

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
    def test_characters_are_substituted(self, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command_named("doctor"), "callback", lambda **_: show({}, None, [TABLE]))
        done = CliRunner(charset=encoding).invoke(main, ["doctor"])
        assert done.exit_code == 0, done.output
        assert "0.5" in done.output


@pytest.mark.parametrize("arguments", [["targets"], ["doctor"], ["verify", "bundle"], ["check", "bundle"]])
def test_tables_fit_80_columns(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("bundle"))
    result = CliRunner().invoke(main, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
