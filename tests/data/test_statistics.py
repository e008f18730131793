from __future__ import annotations

import json

import numpy as np
import pytest
from trees import noise

from fer_edge.core.errors import DataError
from fer_edge.data import Dataset, StillSet, describe, leaked_rows


def split(name: str, faces: list[int], labels: list[int], **columns: object) -> StillSet:
    images = noise(10, size=(6, 4))[faces]
    return StillSet(name=name, images=images, labels=np.array(labels), rows=np.arange(len(faces)), **columns)


@pytest.fixture
def dataset() -> Dataset:
    splits = [
        split("train", [0, 1, 2, 1, 1, 3], [0, 1, 2, 1, 4, 3], groups=np.array(["A", "A", "B", "B", "B", "C"])),
        split("val", [1, 5, 5], [1, 5, 5]),
        split("test", [0, 3, 7, 0], [6, 3, 0, 6], votes=np.zeros((4, 10), np.uint8)),
    ]
    return Dataset(
        name="folder",
        source="folder:x",
        layout="class per folder",
        splits={s.name: s for s in splits},
        roles={"train": "train", "choose": "val", "report": "test"},
    )


def test_leaked_rows_are_those_of_identical_pixels(dataset: Dataset) -> None:
    assert leaked_rows(dataset, dataset.split("choose")).tolist() == [True, False, False]
    assert leaked_rows(dataset, dataset.split("report")).tolist() == [True, True, False, True]
    near = dataset.split("report").images.copy()
    near[:, 0, 0] ^= 1
    moved = StillSet(name="test", images=near, labels=np.zeros(4, np.int64), rows=np.arange(4))
    assert not leaked_rows(dataset, moved).any()


def test_without_a_training_split_nothing_can_leak(dataset: Dataset) -> None:
    alone = Dataset(
        name="folder", source="folder:x", layout="", splits={"test": dataset.split("report")}, roles={"report": "test"}
    )
    with pytest.raises(DataError, match="no split to train on"):
        leaked_rows(alone, alone.split("report"))
    assert describe(alone).splits[0].leaked is None


def test_everything_is_counted(dataset: Dataset) -> None:
    report = describe(dataset)
    train, val, test = report.splits
    assert (train.n, train.role, train.repeated, train.contradictory, train.leaked) == (6, "train", 2, 1, None)
    assert (val.n, val.role, val.repeated, val.contradictory, val.leaked) == (3, "choose", 1, 0, 1)
    assert (test.n, test.role, test.repeated, test.contradictory, test.leaked) == (4, "report", 1, 0, 3)
    assert list(train.classes.values()) == [1, 2, 1, 1, 1, 0, 0]
    assert (train.subjects, val.subjects) == (3, None)
    assert (train.with_votes, test.with_votes) == (False, True)
    assert report.contradictory == 2
    assert report.image_size == (4, 6)


def test_the_report_is_json(dataset: Dataset) -> None:
    value = json.loads(json.dumps(describe(dataset).to_json()))
    assert value["sha256"] == dataset.sha256
    assert value["splits"][2]["classes"]["neutral"] == 2
    assert value["splits"][1]["leaked"] == 1
