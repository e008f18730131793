"""The README: its commands exist, its links lead somewhere, its Python runs."""

from __future__ import annotations

import importlib
import re
import time
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


def test_its_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A photo, a video and a camera that see a drawn driver stand in for the reader's."""
    cv2 = pytest.importorskip("cv2")
    import fer_edge.runtime
    from fer_edge.data.faces import synthetic_frames
    from fer_edge.runtime import SourceFrame, VideoSource, open_source

    monkeypatch.chdir(tmp_path)
    images = [
        frame.image for frame in synthetic_frames(("happy",), frames=20, frame_rate=10.0, seed=0, size=(480, 360))
    ]
    cv2.imwrite("photo.jpg", images[0])
    video = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, images[0].shape[1::-1])
    for image in images:
        video.write(image)
    video.release()
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    seen = (SourceFrame(image=image, timestamp_s=time.monotonic()) for image in images)
    camera = VideoSource(seen, name="0", kind="camera", frame_rate=10.0)
    monkeypatch.setattr(fer_edge.runtime, "open_source", lambda spec: camera if spec == "0" else open_source(spec))
    for block in blocks:
        exec(block, {})
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_the_runtime_guides_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "runtime" / "README.md").read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) > 1
    for block in blocks:
        exec(block, {})
    assert not list(tmp_path.iterdir())


def test_every_fault_of_the_runtime_guide_names_tests_that_exist() -> None:
    text = (ROOT / "runtime" / "README.md").read_text("utf-8")
    assert {name for name in re.findall(r"`(tests/[\w/.]+)`", text) if not (ROOT / name).is_file()} == set()
