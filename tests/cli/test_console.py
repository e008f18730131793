from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys

import pytest

from fer_edge.cli.console import console, emit_json, print_table, progress


def test_json_goes_to_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", total=2) as bar:
        console.print("half done")
        bar("writing", 1, 2)
        emit_json({"label": "überrascht", "top1": 0.5})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"label": "überrascht", "top1": 0.5}
    assert captured.err == "half done\n"


def test_json_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        emit_json({"top1": float("nan")})


def test_a_table_in_a_pipe_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    print_table(("name", "figure"), [("pip install 'fer-edge[cpu]' :smile:", 1), (long, None)], right=("figure",))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4
    assert lines[2].startswith("pip install 'fer-edge[cpu]' :smile:")
    assert lines[2].endswith("     1")
    assert lines[3].startswith(long.rstrip())
    assert lines[3].endswith("–")


def test_messages_keep_their_brackets_and_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    message = "written: " + "/long" * 60 + " [bold]"
    console.print(message)
    assert capsys.readouterr().err == message + "\n"


def test_a_terminal_shows_a_bar() -> None:
    controller, terminal = pty.openpty()
    code = "from fer_edge.cli.console import progress\nwith progress('reading') as bar: bar('reading', 3, 7)"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, env=environment, timeout=60, check=True)
    os.close(terminal)
    shown = io.BytesIO()
    try:
        while chunk := os.read(controller, 4096):
            shown.write(chunk)
    except OSError:  # Linux says EIO when the other end is closed and all is read
        pass
    os.close(controller)
    assert b"reading" in shown.getvalue()
    assert b"3/7" in shown.getvalue()
