from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fer_edge.core.errors import DataError
from fer_edge.data import Dataset, StillSet


def stills(name: str = "train", **replaced: object) -> StillSet:
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    fields = {"images": images, "labels": np.arange(5), "rows": np.arange(5) + 10} | replaced
    return StillSet(name=name, **fields)


def dataset(**replaced: object) -> Dataset:
    fields = {"splits": {"train": stills()}, "roles": {"train": "train"}, "note": "There is no val/ folder."} | replaced
    return Dataset(name="folder", source="folder:faces", layout="class per folder", **fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", np.zeros((5, 4, 4), np.float32)),
        ("images", np.zeros((5, 4, 4, 3), np.uint8)),
        ("images", np.zeros((5, 4), np.uint8)),
        ("labels", np.arange(4)),
        ("labels", np.arange(5, dtype=np.int32)),
        ("rows", np.arange(5.0)),
        ("votes", np.zeros((5, 7), np.uint8)),
        ("groups", np.zeros(5)),
    ],
)
def test_a_wrong_array_is_refused_by_name(field: str, value: np.ndarray) -> None:
    with pytest.raises(DataError, match=f"split 'train': {field}: got .*, expected"):
        stills(**{field: value})


@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_outside_the_seven_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=r"labels: got .*, expected 0 to 6"):
        stills(labels=np.array([0, 1, 2, 3, label]))


def test_arrays_are_read_only_and_the_callers_own_stay_writable() -> None:
    images = np.zeros((5, 4, 4), np.uint8)
    split = stills(images=images)
    with pytest.raises(ValueError, match="read-only"):
        split.images[0] = 1
    images[0] = 1


def test_the_hash_covers_images_labels_and_rows_and_not_the_name() -> None:
    reference = stills()
    assert stills(name="other").sha256 == reference.sha256
    changed = reference.images.copy()
    changed[4, 3, 3] += 1
    others = [
        stills(images=changed),
        stills(images=reference.images.reshape(5, 2, 8)),
        stills(labels=np.array([0, 1, 2, 3, 3])),
        stills(rows=np.arange(5)),
    ]
    assert len({reference.sha256, *(other.sha256 for other in others)}) == 5


def test_a_subset_takes_every_column() -> None:
    votes, groups = np.eye(5, 10, dtype=np.uint8), np.array(["S1", "S1", "S2", "S2", "S3"])
    split = stills(votes=votes, groups=groups).subset(np.array([False, True, False, False, True]))
    assert len(split) == 2
    assert split.labels.tolist() == [1, 4]
    assert split.rows.tolist() == [11, 14]
    assert split.groups is not None
    assert split.groups.tolist() == ["S1", "S3"]
    assert split.votes is not None
    assert split.votes.argmax(axis=1).tolist() == [1, 4]
    assert stills().subset(np.zeros(5, bool)).images.shape == (0, 4, 4)


def test_a_missing_role_is_named_with_what_there_is() -> None:
    assert dataset().split("train").rows[0] == 10
    with pytest.raises(DataError, match=r"no split to choose on; it holds train \(5\). There is no val/ folder"):
        dataset().split("choose")


def test_roles_and_names_must_fit_the_splits() -> None:
    with pytest.raises(DataError, match="role 'report': got 'test'"):
        dataset(roles={"report": "test"})
    with pytest.raises(DataError, match="got the name 'train', expected 'val'"):
        dataset(splits={"val": stills("train")}, roles={})


def test_the_data_sets_hash_follows_its_splits() -> None:
    reference = dataset().sha256
    assert dataclasses.replace(dataset(), source="elsewhere", note="").sha256 == reference
    assert dataset(splits={"train": stills(rows=np.arange(5))}).sha256 != reference
