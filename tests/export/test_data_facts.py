"""Licence, limits and intended use come from the data that a training record names."""

from __future__ import annotations

from typing import Any

import pytest

from fer_edge.core.manifest import NOT_STATED
from fer_edge.export.data_facts import intended_use, used_data, weights_licence

FER2013 = {"dataset": "fer2013", "sha256": "f" * 64, "splits": {"Training": {"rows": 3, "sha256": "a" * 64}}}
FOLDER = {"dataset": "folder", "sha256": "0" * 64, "splits": {"train": {"rows": 2, "sha256": "b" * 64}}}


def test_a_run_on_a_folder_states_no_licence_and_no_limits_of_other_data() -> None:
    [facts] = used_data({"data": FOLDER})
    assert (facts.dataset, facts.used_for, dict(facts.splits)) == ("folder", "training", {"train": 2})
    assert (facts.licence, facts.limits, weights_licence([facts])) == (NOT_STATED, (), NOT_STATED)


@pytest.mark.parametrize(
    ("origin", "use"),
    [
        ({"init": {"bundle": "base", "training": {"data": FER2013}}}, "initial weights"),
        ({"teacher": [{"training": {"data": FOLDER, "init": {"training": {"data": FER2013}}}}]}, "initial weights"),
        ({"teacher": [{"weights_sha256": "1" * 64, "choose": {"dataset": "fer2013", "n": 3}}]}, "teacher"),
        ({"pruned": {"from": {"init": {"training": {"data": FER2013}}}}}, "initial weights"),
    ],
)
def test_data_of_the_networks_behind_a_run_count(origin: dict[str, Any], use: str) -> None:
    own, behind = used_data({"data": FOLDER, **origin})
    assert (own.dataset, own.used_for, behind.dataset, behind.used_for) == ("folder", "training", "fer2013", use)
    assert "FER2013" in weights_licence([own, behind])


def test_the_same_data_appear_once() -> None:
    record = {"data": FER2013, "teacher": {"choose": {"dataset": "fer2013"}, "training": {"data": FER2013}}}
    assert [(facts.dataset, facts.used_for) for facts in used_data(record)] == [("fer2013", "training")]


def test_drawn_faces_are_for_demonstrations() -> None:
    drawn = used_data({"data": {"dataset": "synthetic"}})
    assert intended_use(("happy", "sad"), drawn).startswith("Tests and demonstrations")
    assert "one of 2 (happy, sad)" in intended_use(("happy", "sad"), used_data({"data": FOLDER}))
