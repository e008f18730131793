from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fer_edge.core.errors import InputError, OutputError
from fer_edge.core.files import (
    claimed,
    expect_new,
    output_folder,
    read_json,
    scratch_file,
    sha256_bytes,
    sha256_file,
    user_path,
    write_atomic,
    write_json,
)


def _leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def _child(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints that runs `code`; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


class TestWriteAtomic:
    def test_writes_and_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "graph.onnx"
        write_atomic(path, b"old")
        write_atomic(path, b"new")
        assert path.read_bytes() == b"new"
        assert _leftovers(path.parent) == []

    def test_the_umask_holds(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write_atomic(tmp_path / "file", b"")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640

    def test_a_full_disk_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "graph.onnx"
        path.write_bytes(b"good")
        message = _child(
            """
import resource, sys
from pathlib import Path
from fer_edge.core.errors import OutputError
from fer_edge.core.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), bytes(5000))
except OutputError as error:
    print(error)
""",
            path,
        )
        assert f"cannot write {path}: File too large" in message
        assert path.read_bytes() == b"good"
        assert _leftovers(tmp_path) == []

    def test_a_read_only_folder_leaves_the_old_file(self, shared_folder: Path) -> None:
        path = shared_folder / "graph.onnx"
        path.write_bytes(b"good")
        message = _child(_AS_NOBODY.format(action="write_atomic(path, b'new')"), path)
        assert f"cannot write {path}: Permission denied" in message
        assert path.read_bytes() == b"good"
        assert _leftovers(shared_folder) == []

    def test_an_interrupt_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(descriptor: int) -> None:
            raise KeyboardInterrupt

        path = tmp_path / "graph.onnx"
        path.write_bytes(b"good")
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(path, b"new")
        assert path.read_bytes() == b"good"
        assert _leftovers(tmp_path) == []

    def test_a_file_in_the_folders_place_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"good")
        with pytest.raises(OutputError, match="cannot write"):
            write_atomic(tmp_path / "file" / "graph.onnx", b"new")


class TestScratch:
    def test_is_private_while_it_is_written(self, tmp_path: Path) -> None:
        with scratch_file(tmp_path / "drive.mp4") as scratch:
            assert scratch.stat().st_mode & 0o777 == 0o600
            assert scratch.suffix == ".mp4"
        with output_folder(tmp_path / "run") as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
        before = os.umask(0)
        os.umask(before)
        assert (tmp_path / "drive.mp4").stat().st_mode & 0o777 == 0o666 & ~before
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o777 & ~before

    def test_of_a_killed_run_is_removed_when_the_output_is_written_again(self, tmp_path: Path) -> None:
        for name in ("drive.mp4", "run"):
            kind = "scratch_file" if name == "drive.mp4" else "output_folder"
            _kill_while_writing(kind, tmp_path / name)
        _kill_while_writing("scratch_file", tmp_path / "other.mp4")
        assert len(_leftovers(tmp_path)) == 3
        write_atomic(tmp_path / "drive.mp4", b"whole")
        with output_folder(tmp_path / "run"):
            pass
        assert [name.split(".fer-edge-")[0] for name in _leftovers(tmp_path)] == [".other.mp4"]

    def test_of_a_run_that_still_writes_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "drive.mp4"
        with scratch_file(path) as scratch:
            _child(_WRITE_ANOTHER, path)
            assert scratch.exists()
            scratch.write_bytes(b"ours")
        assert path.read_bytes() == b"ours"
        assert _leftovers(tmp_path) == []

    @pytest.mark.parametrize("before", [False, True])
    def test_of_two_writers_of_one_new_folder_one_wins(self, tmp_path: Path, before: bool) -> None:
        path = tmp_path / "edge"
        if before:
            path.mkdir()
        with contextlib.ExitStack() as stack:
            (stack.enter_context(output_folder(path)) / "name").write_text("slow")
            with output_folder(path) as fast:
                (fast / "name").write_text("fast")
            with pytest.raises(OutputError, match="another process"):
                stack.close()
        assert (path / "name").read_text() == "fast"
        assert _leftovers(tmp_path) == []
        with output_folder(path, overwrite=True) as last:
            (last / "name").write_text("last")
        assert (path / "name").read_text() == "last"

    def test_a_folder_that_was_being_replaced_comes_back(self, tmp_path: Path) -> None:
        path = tmp_path / "edge"
        path.mkdir()
        (path / "old").write_bytes(b"good")
        path.rename(tmp_path / ".edge.fer-edge-0123.old")
        with pytest.raises(OutputError, match="already holds files"), output_folder(path):
            pass
        assert (path / "old").read_bytes() == b"good"


def _kill_while_writing(kind: str, path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from fer_edge.core.files import {kind}
with {kind}(Path(sys.argv[1])) as scratch:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


_WRITE_ANOTHER = """
import sys
from pathlib import Path
from fer_edge.core.files import write_atomic
write_atomic(Path(sys.argv[1]), b"theirs")
"""


class TestExpectNew:
    def test_gives_the_path_with_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert expect_new("~/card.md") == tmp_path / "card.md" == user_path("~/card.md")
        with pytest.raises(InputError, match="nobody-of-this-name"):
            user_path("~nobody-of-this-name/card.md")

    @pytest.mark.parametrize(
        ("name", "folder", "message"),
        [
            ("file", False, "exists; choose another name or pass --overwrite"),
            ("file", True, "got a file, expected a folder"),
            ("full", False, "got a folder, expected a file"),
            ("full", True, "already holds files; choose another name or pass --overwrite"),
        ],
    )
    def test_refuses_what_exists(self, tmp_path: Path, name: str, folder: bool, message: str) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=message):
            expect_new(tmp_path / name, folder=folder)
        if "--overwrite" in message:
            expect_new(tmp_path / name, folder=folder, overwrite=True)
        else:
            with pytest.raises(OutputError, match=message):
                expect_new(tmp_path / name, folder=folder, overwrite=True)

    def test_accepts_what_is_new_and_an_empty_folder(self, tmp_path: Path) -> None:
        expect_new(tmp_path / "new")
        expect_new(tmp_path, folder=True)

    def test_never_overwrites_an_input(self, tmp_path: Path) -> None:
        (tmp_path / "drive.mp4").touch()
        (tmp_path / "link.mp4").symlink_to(tmp_path / "drive.mp4")
        with pytest.raises(OutputError, match="is an input"):
            expect_new(tmp_path / "link.mp4", overwrite=True, inputs=[str(tmp_path / "drive.mp4"), 0])


# Run as an unprivileged user, for root may write everywhere; all is imported before, for nobody may read root's home.
_AS_NOBODY = """
import os, sys
from pathlib import Path
from fer_edge.core.errors import OutputError
from fer_edge.core.files import output_folder, write_atomic
path = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
else:
    path.parent.chmod(0o555)
try:
    {action}
except OutputError as error:
    print(error)
"""


class TestOutputFolder:
    def test_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "runs" / "edge"
        with output_folder(path) as scratch:
            (scratch / "weights").write_bytes(b"w")
            assert not path.exists()
        assert (path / "weights").read_bytes() == b"w"
        assert _leftovers(path.parent) == []

    @pytest.mark.parametrize("cause", [KeyboardInterrupt, InputError, ZeroDivisionError])
    def test_a_block_that_fails_leaves_nothing_new(self, tmp_path: Path, cause: type[BaseException]) -> None:
        path = tmp_path / "edge"
        path.mkdir()
        (path / "weights").write_bytes(b"good")

        def fill_half() -> None:
            with output_folder(path, overwrite=True) as scratch:
                (scratch / "weights").write_bytes(b"half")
                raise cause

        with pytest.raises(cause):
            fill_half()
        assert (path / "weights").read_bytes() == b"good"
        assert _leftovers(tmp_path) == []

    def test_an_empty_folder_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "edge").mkdir()
        with output_folder(tmp_path / "edge") as scratch:
            (scratch / "weights").write_bytes(b"w")
        assert (tmp_path / "edge" / "weights").exists()

    def test_overwrite_replaces_the_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "edge"
        path.mkdir()
        (path / "old").write_bytes(b"")
        with output_folder(path, overwrite=True) as scratch:
            (scratch / "new").write_bytes(b"")
        assert [entry.name for entry in path.iterdir()] == ["new"]
        assert _leftovers(tmp_path) == []

    def test_a_read_only_parent_is_an_error(self, shared_folder: Path) -> None:
        message = _child(_AS_NOBODY.format(action="output_folder(path).__enter__()"), shared_folder / "edge")
        assert "Permission denied" in message
        assert list(shared_folder.iterdir()) == []


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    value = {"name": "Überraschung", "figures": [1, 2.5, None]}
    write_json(tmp_path / "report.json", value)
    assert read_json(tmp_path / "report.json") == value
    assert "Überraschung" in (tmp_path / "report.json").read_text("utf-8")


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "report.json", {"top1": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=r"report\.json is not valid JSON"):
        read_json(tmp_path / "report.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*report\.json: No such file"):
        read_json(tmp_path / "report.json")


def test_hashes(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_folder_is_claimed_by_one_at_a_time_and_let_go_of(tmp_path: Path) -> None:
    with claimed(tmp_path) as first:
        with claimed(tmp_path) as second:
            assert (first, second) == (True, False)
        with claimed(tmp_path) as third:
            assert not third, "who was refused let go of nothing"
    with claimed(tmp_path) as again:
        assert again
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="nowhere"), claimed(tmp_path / "nowhere"):
        pass
