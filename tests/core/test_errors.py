from __future__ import annotations

import platform
from pathlib import Path

import pytest

from fer_edge.core import errors
from fer_edge.core.errors import FerEdgeError, MissingPackageError, require


def test_every_error_has_the_one_base() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert len(kinds) >= 7
    assert all(issubclass(kind, FerEdgeError) for kind in kinds)


def test_every_error_is_in_the_drawn_tree() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name == "require" or name in errors.__doc__


def test_require_gives_the_module() -> None:
    assert require("json", needed_by="a test", extra="cpu").dumps([1]) == "[1]"


def test_a_missing_package_names_who_needs_it_and_the_command() -> None:
    with pytest.raises(MissingPackageError) as caught:
        require("fer_edge_no_such_package", needed_by="fer-edge calibrate", extra="calibrate")
    message = str(caught.value)
    assert "fer-edge calibrate needs the package 'fer_edge_no_such_package'" in message
    assert "pip install 'fer-edge[calibrate]'" in message


def test_a_package_that_is_there_but_broken_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fer_edge_broken.py").write_text("import fer_edge_missing_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match="fer_edge_missing_part"):
        require("fer_edge_broken", needed_by="a test", extra="cpu")


def test_an_error_of_the_package_itself_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fer_edge_failing.py").write_text("raise RuntimeError('bad build')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="bad build"):
        require("fer_edge_failing", needed_by="a test", extra="cpu")


@pytest.mark.parametrize(("module", "cure"), [("tensorrt", "apt-get install"), ("nncf", "pip install 'fer-edge[x]'")])
def test_on_a_jetson_its_own_packages_come_from_apt(module: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(Path, "exists", lambda self: str(self) == "/etc/nv_tegra_release")
    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(MissingPackageError) as caught:
        require(module, needed_by="a test", extra="x")
    assert cure in str(caught.value)
