"""The committed files of calibrate/ follow the code, and its README says what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fer_edge.calibrate.candidates import CandidateResult, ranked
from fer_edge.calibrate.recipe import CalibrationRecipe
from fer_edge.calibrate.sensitivity import SensitivityReport
from fer_edge.core.files import read_json
from fer_edge.core.json import decode

WORKBENCH = Path(__file__).parents[2] / "calibrate"


def files(folder: str) -> list[Path]:
    found = sorted((WORKBENCH / folder).glob("*.json"))
    if not found:
        pytest.skip(f"there is no result in calibrate/{folder}")
    return found


def readme() -> str:
    return (WORKBENCH / "README.md").read_text("utf-8")


def candidate_row(each: dict[str, Any]) -> str:
    return (
        f"| {each['name']} | {each['form']} | {each['top1']:.2%} | {each['flip_rate']:.2%} | {each['mcnemar_p']:.2f} | "
        f"{each['ece']:.4f} | {each['ece_rise']:+.4f} | {each['agreement']:.1%} |"
    )


def test_committed_costs_are_read_and_drawn() -> None:
    for file in files("sensitivity"):
        report = SensitivityReport.read(file)
        assert file.stem == f"{report.bundle['name']}-{report.form}"
        assert file.with_suffix(".png").is_file(), file
        assert read_json(file)["command"].startswith("fer-edge calibrate")


def test_the_committed_choice_is_the_rules() -> None:
    for file in files("candidates"):
        record = read_json(file)
        recipe = decode(CalibrationRecipe, record["recipe"])
        results = [decode(CandidateResult, each) for each in record["results"]]
        for form in recipe.forms:
            names = [each.name for each in ranked([each for each in results if each.form == form], recipe.choice)]
            left = [name for name in names if name not in record["passed_over"][form]]
            assert record["chosen"].get(form) == (left[0] if left else None), (file, form)


def test_the_readme_shows_every_candidate_with_its_figures() -> None:
    text = readme()
    for file in files("candidates"):
        for each in read_json(file)["results"]:
            assert candidate_row(each) in text, (file, each["name"])


def test_the_readme_shows_what_quantization_aware_training_gave() -> None:
    result = read_json(WORKBENCH / "results" / "nano-qat.json")
    parent = result["parent"]["accuracy"]["top1_without_leaked"]
    rows = [f"| the run of `fer-edge qat`: fp32 | {parent:.2%} | – | – |"]
    for form in result["forms"]:
        measured = {check["name"]: check["measured"] for check in reversed(form["gate"]["checks"])}  # T = 1 comes first
        top1 = form["accuracy"]["top1_without_leaked"]
        drop, flips = measured["max_top1_drop"], measured["max_flip_rate"]
        rows.append(f"| {form['name']}, trained so | {top1:.2%} | {drop:+.2%} | {flips:.2%} |")
    assert "\n".join(rows) in readme()
