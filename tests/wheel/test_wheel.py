"""The built wheel, installed in an environment of its own outside the repository; `make wheel` runs these there."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import skimage.data

import fer_edge
from fer_edge.cli import COMMANDS
from fer_edge.core.bundle import Bundle, zoo_names
from fer_edge.core.recipes import recipe_names
from fer_edge.runtime.haar_detector import HaarDetector

SOURCE = Path(__file__).parents[2] / "fer_edge"
INSTALLED = Path(fer_edge.__file__).parent


def _fer_edge(*arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "fer-edge", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _files(package: Path) -> set[str]:
    """Every file of the package but the tools' caches."""
    files = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {path.as_posix() for path in files if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


def test_it_is_the_wheel_that_is_tested() -> None:
    assert INSTALLED.is_relative_to(sys.prefix)
    assert not INSTALLED.is_relative_to(SOURCE.parent)


def test_it_holds_every_file_of_the_package_and_no_other() -> None:
    assert _files(INSTALLED) == _files(SOURCE)
    assert "py.typed" in _files(INSTALLED)


def test_it_brings_both_licences() -> None:
    files = {Path(str(path)).name for path in importlib.metadata.files("fer-edge") or ()}
    assert {"LICENSE", "LICENSE-WEIGHTS.md"} <= files


def test_its_version_is_the_packages() -> None:
    assert importlib.metadata.version("fer-edge") == fer_edge.__version__
    assert _fer_edge("--version").split()[-1] == fer_edge.__version__


def test_torch_stays_below_the_cuda_only_wheels() -> None:
    pins = [line for line in importlib.metadata.requires("fer-edge") or () if line.startswith("torch<")]
    assert pins
    assert all(pin.startswith("torch<2.14,>=2.6") for pin in pins)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_answers(command: str) -> None:
    assert f"Usage: fer-edge {command} " in _fer_edge(command, "--help")


@pytest.mark.parametrize("folder", sorted(SOURCE.glob("*/recipes")), ids=lambda folder: folder.parent.name)
def test_recipes_are_found(folder: Path) -> None:
    assert recipe_names(folder.parent.name) == tuple(sorted(path.stem for path in folder.glob("*.toml")))


def test_the_zoo_is_found() -> None:
    assert set(zoo_names()) == {path.parent.name for path in SOURCE.glob("zoo/*/manifest.json")}


@pytest.mark.parametrize("name", zoo_names())
def test_shipped_bundles_are_whole(name: str) -> None:
    assert Bundle.open(name).path.is_relative_to(INSTALLED)
    _fer_edge("verify", name)


def test_faces_are_found() -> None:
    image = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    assert len(HaarDetector().detect(image)) >= 1


def test_the_doctor_knows_the_extras() -> None:
    report = json.loads(_fer_edge("doctor", "--json"))
    brought = {package["name"]: package["extras"] for package in report["packages"]}
    assert brought["torch"] == ["train"]
    assert brought["numpy"] == []
