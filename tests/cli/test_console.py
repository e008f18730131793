from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fer_edge.cli.console import console, progress, show
from fer_edge.cli.options import STDOUT
from fer_edge.core.tables import Table

TABLE = Table(columns=("name", "figure"), rows=[("pip install 'fer-edge[cpu]' :smile:", 1)])


def test_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading") as bar:
        console.print("half done")
        bar("reading", 1, 2)
        show({"label": "überrascht", "top1": 0.5}, STDOUT, [TABLE])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"label": "überrascht", "top1": 0.5}
    assert captured.err == "half done\n"


def test_json_in_a_file_is_beside_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show({"top1": 0.5}, tmp_path / "x.json", [TABLE, "a line"])
    captured = capsys.readouterr()
    assert "pip install 'fer-edge[cpu]' :smile:" in captured.out
    assert captured.out.endswith("a line\n")
    assert captured.err == f"written: {tmp_path / 'x.json'}\n"
    assert json.loads((tmp_path / "x.json").read_text()) == {"top1": 0.5}


def test_json_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        show({"top1": float("nan")}, STDOUT, [])


def test_messages_keep_their_brackets_and_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    message = "written: " + "/long" * 60 + " [bold]"
    console.print(message)
    assert capsys.readouterr().err == message + "\n"


def test_a_terminal_shows_a_bar() -> None:
    controller, terminal = pty.openpty()
    code = "from fer_edge.cli.console import progress\nwith progress('reading') as bar: bar('faces', 3, 7)"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run([sys.executable, "-c", code], stderr=terminal, env=environment, timeout=60, check=True)
    os.close(terminal)
    shown = io.BytesIO()
    try:
        while chunk := os.read(controller, 4096):
            shown.write(chunk)
    except OSError:  # Linux raises EIO once the other end is closed and all is read
        pass
    os.close(controller)
    assert b"faces" in shown.getvalue()
    assert b"3/7" in shown.getvalue()
