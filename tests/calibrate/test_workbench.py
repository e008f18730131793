"""The committed files of calibrate/ follow the code, and its README says what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_edge.calibrate.sensitivity import SensitivityReport
from fer_edge.core.files import read_json

WORKBENCH = Path(__file__).parents[2] / "calibrate"


def files(folder: str) -> list[Path]:
    found = sorted((WORKBENCH / folder).glob("*.json"))
    if not found:
        pytest.skip(f"there is no result in calibrate/{folder}")
    return found


def test_committed_costs_are_read_and_drawn() -> None:
    for file in files("sensitivity"):
        report = SensitivityReport.read(file)
        assert file.stem == f"{report.bundle['name']}-{report.form}"
        assert read_json(file)["command"].startswith("fer-edge calibrate")
