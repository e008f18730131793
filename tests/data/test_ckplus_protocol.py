"""CK+ in its full extent, by its own seven emotions, and as whole sequences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from trees import (
    CKPLUS_COUNTS,
    ckplus_subjects,
    read_error,
    touch_official_ckplus,
    write_cropped_ckplus,
    write_whole_ckplus,
)

from fer_edge.core.errors import DataError, InputError
from fer_edge.core.labels import CKPLUS_EMOTIONS, EXPRESSIONS
from fer_edge.data import describe, load_dataset
from fer_edge.data.ckplus import SequenceSet, ckplus_sequences, load_sequences, split_by_subject, subject_folds
from fer_edge.data.dataset import StillSet
from fer_edge.data.specs import DataSpec

WHOLE = {"S005_001": 3, "S010_002": 2, "S010_004": 7, "S011_001": None, "S501_001": 5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_ckplus(tmp_path_factory.mktemp("ckplus"), WHOLE)


@pytest.fixture
def cropped(tmp_path: Path) -> Path:
    names = {f"S{10 + place:03}_{1 + place:03}": name for place, name in enumerate(CKPLUS_COUNTS)}
    return write_cropped_ckplus(tmp_path / "cropped", names)


def test_the_full_tree_is_counted_as_its_authors_count_it(tmp_path: Path) -> None:
    sequences = ckplus_sequences(touch_official_ckplus(tmp_path))
    assert len(sequences) == 593
    assert sorted({sequence.subject for sequence in sequences}) == sorted(ckplus_subjects())
    assert Counter(sequence.expression for sequence in sequences) == {None: 593 - 327, **CKPLUS_COUNTS}


def test_folds_are_balanced_deterministic_and_without_a_common_subject() -> None:
    subjects = np.array(ckplus_subjects())
    rows = np.random.default_rng(1).choice(subjects, 2000)
    folds = subject_folds(rows)
    assert np.array_equal(folds, subject_folds(rows))
    held = [set(rows[folds == fold].tolist()) for fold in range(10)]
    assert sum(map(len, held)) == len(set.union(*held)) == len(np.unique(rows))
    assert max(map(len, held)) - min(map(len, held)) <= 1
    # Which rows there are of a subject changes nothing, as long as the subjects are the same.
    assert dict(zip(rows.tolist(), folds.tolist(), strict=True)) == dict(
        zip(subjects.tolist(), subject_folds(subjects).tolist(), strict=True)
    )


def test_the_official_seven_hold_contempt_and_no_neutral(whole: Path, cache: Path) -> None:
    dataset = load_dataset(f"ckplus:{whole}?labels=official", cache=cache)
    split = dataset.split("report")
    assert dataset.expressions == CKPLUS_EMOTIONS
    assert [CKPLUS_EMOTIONS[label] for label in split.labels] == (
        ["disgust"] * 3 + ["contempt"] * 3 + ["surprise"] * 3 + ["happy"] * 3
    )
    assert dataset.note.startswith("Of 5 sequences 1 without a label are left out. Add ?fold=0")
    assert describe(dataset).splits[0].classes["contempt"] == 3
    assert load_dataset(f"ckplus:{whole}?labels=seven", cache=cache).expressions == EXPRESSIONS


def test_what_labels_mean_outlives_the_cache_and_a_fold(cropped: Path, cache: Path) -> None:
    spec = f"ckplus:{cropped}?labels=official"
    first, again = load_dataset(spec, cache=cache), load_dataset(spec, cache=cache)
    assert again.cache is not None
    assert first.expressions == again.expressions == CKPLUS_EMOTIONS
    assert first.sha256 == again.sha256
    assert len(first.split("report")) == 21
    fold = split_by_subject(first, fold=1, folds=3)
    assert fold.expressions == CKPLUS_EMOTIONS


def test_the_same_numbers_with_another_meaning_are_other_data() -> None:
    given = {"name": "x", "images": np.zeros((1, 4, 4), np.uint8), "rows": np.arange(1)}
    ours = StillSet(labels=np.array([1]), **given)  # type: ignore[arg-type]
    theirs = StillSet(labels=np.array([1]), expressions=CKPLUS_EMOTIONS, **given)  # type: ignore[arg-type]
    assert ours.sha256 != theirs.sha256


def test_another_network_is_refused(cropped: Path, cache: Path) -> None:
    dataset = load_dataset(f"ckplus:{cropped}?labels=official", cache=cache)
    dataset.expect_expressions(CKPLUS_EMOTIONS, of="a network")
    with pytest.raises(DataError, match=r"got labels angry, contempt, .* expected those of the bundle edge: .*neutral"):
        dataset.expect_expressions(EXPRESSIONS, of="the bundle edge")


def test_a_word_that_is_none() -> None:
    assert DataSpec.parse("ckplus:x?labels=official&fold=2").options == {"labels": "official", "fold": 2}
    with pytest.raises(DataError, match=r"for ckplus: size=16 to 512; fold=0 to 9; labels=seven or official"):
        DataSpec.parse("ckplus:x?labels=eight")
    with pytest.raises(DataError, match="got the option 'labels=official', expected for folder"):
        DataSpec.parse("folder:x?labels=official")


class TestSequences:
    def test_run_from_neutral_to_the_peak(self, whole: Path, cache: Path) -> None:
        found = load_sequences(whole, size=48, cache=cache)
        assert found.frames.shape == (3 * 6, 48, 48)
        assert found.starts.tolist() == [0, 6, 12, 18]
        assert [EXPRESSIONS[label] for label in found.labels] == ["disgust", "surprise", "happy"]
        assert found.subjects.tolist() == ["S005", "S010", "S501"]
        again = load_sequences(whole, size=48, cache=cache)
        assert again.sha256 == found.sha256
        assert np.array_equal(again.frames, found.frames)

    def test_with_contempt(self, whole: Path, cache: Path) -> None:
        found = load_sequences(whole, size=48, expressions=CKPLUS_EMOTIONS, cache=cache)
        assert [CKPLUS_EMOTIONS[label] for label in found.labels] == ["disgust", "contempt", "surprise", "happy"]

    def test_one_length_for_all(self) -> None:
        sequences = numbered(9, 3, 5)
        frames, lengths = sequences.windows(5)
        assert frames[:, :, 0, 0].tolist() == [[0, 2, 4, 6, 8], [10, 10, 10, 11, 12], [20, 21, 22, 23, 24]]
        assert lengths.tolist() == [5, 3, 5]
        assert sequences.windows(2, rows=np.array([2]))[0][:, :, 0, 0].tolist() == [[20, 24]]
        with pytest.raises(InputError, match="steps: got 1"):
            sequences.windows(1)

    def test_folds_are_those_of_the_stills(self) -> None:
        sequences = numbered(*[2] * 8)
        rows = sequences.fold(1, folds=4)
        parted = subject_folds(sequences.subjects, folds=4)
        assert rows["test"].tolist() == np.flatnonzero(parted == 1).tolist()
        assert rows["val"].tolist() == np.flatnonzero(parted == 2).tolist()
        assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(8))

    def test_ck48_has_none(self, cropped: Path, cache: Path) -> None:
        with pytest.raises(DataError, match="is CK\\+48, which holds the last three frames"):
            load_sequences(cropped, cache=cache)


def numbered(*lengths: int) -> SequenceSet:
    """Sequences whose frames carry their place: 0, 1, ... then 10, 11, ..."""
    frames = np.concatenate([10 * row + np.arange(length) for row, length in enumerate(lengths)]).astype(np.uint8)
    return SequenceSet(
        frames=np.broadcast_to(frames[:, None, None], (len(frames), 4, 4)),
        starts=np.cumsum([0, *lengths]),
        labels=np.zeros(len(lengths), np.int64),
        subjects=np.array([f"S{row:03}" for row in range(len(lengths))]),
        expressions=EXPRESSIONS,
        sha256="",
    )


def test_a_tree_of_contempt_alone(tmp_path: Path, cache: Path) -> None:
    write_cropped_ckplus(tmp_path, {"S010_001": "contempt"})
    assert "holds no sequence labelled with one of angry" in read_error(f"ckplus:{tmp_path}", cache)
    assert len(load_dataset(f"ckplus:{tmp_path}?labels=official", cache=cache).split("report")) == 3
