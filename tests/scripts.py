"""Python files outside the package, loaded as modules: the scripts of bench/, the examples, a package's single file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

__all__ = ["ROOT", "load_file", "load_script"]

ROOT = Path(__file__).parents[1]


def load_file(path: Path) -> ModuleType:
    """The file as a module under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def load_script(path: str) -> ModuleType:
    """A script by its path in the repository; the source distribution has none, and skips the test."""
    if not (ROOT / path).is_file():
        pytest.skip(f"{path.split('/')[0]}/ is not part of the source distribution")
    folder = str((ROOT / path).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as Python does for a script, which imports what is beside it
    return load_file(ROOT / path)
