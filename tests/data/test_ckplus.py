"""CK+ in both layouts, by both sets of labels, as stills, folds and whole sequences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from trees import (
    CKPLUS_COUNTS,
    FACE_BOX,
    ckplus_subjects,
    read_error,
    touch_official_ckplus,
    write_cropped_ckplus,
    write_image,
    write_whole_ckplus,
)

from fer_edge.core.errors import DataError
from fer_edge.core.label_sets import CKPLUS_EMOTIONS
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data import describe, load_dataset
from fer_edge.data.ckplus import ckplus_sequences, split_by_subject, subject_folds
from fer_edge.data.dataset import StillSet
from fer_edge.data.specs import DataSpec

WHOLE = {"S005_001": 3, "S010_002": 2, "S010_004": 7, "S011_001": None}
FIVE = {**WHOLE, "S501_001": 5}
CROPPED = {"S010_004": "surprise", "S010_002": "contempt", "S005_001": "disgust", "S011_006": "anger"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_ckplus(tmp_path_factory.mktemp("ckplus"), WHOLE)


def words(labels: np.ndarray) -> list[str]:
    return [EXPRESSIONS[label] for label in labels]


def test_the_authors_tree_gives_the_last_three_frames_and_a_neutral_first(whole: Path, cache: Path) -> None:
    dataset = load_dataset(f"ckplus:{whole}", cache=cache)
    split = dataset.split("report")
    assert dataset.layout == "cohn-kanade"
    assert words(split.labels) == ["neutral", *["disgust"] * 3, "neutral", *["surprise"] * 3]
    assert split.groups is not None
    assert split.groups.tolist() == ["S005"] * 4 + ["S010"] * 4
    assert split.images.shape == (8, 128, 128)
    assert dataset.note.startswith("Of 4 sequences 1 without a label and 1 of contempt are left out.")


def test_camera_images_are_cropped_to_the_face_in_grey_and_colour(whole: Path) -> None:
    grey, colour = (ckplus_sequences(whole)[place].read_faces(size=96) for place in (0, 1))
    assert grey.shape == (6, 96, 96)
    assert np.abs(grey.astype(int) - colour).max() <= 1
    # The frames differ in a far corner alone, so one box for the sequence makes the crops equal.
    assert np.array_equal(grey[0], grey[5])
    background = float((grey[0] == 90).mean())
    assert background < 0.1, f"{background:.0%} of the crop is not the face pasted at {FACE_BOX}"


@pytest.mark.parametrize("size", [(640, 490), (640, 480)])
def test_both_camera_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    (sequence,) = ckplus_sequences(write_whole_ckplus(tmp_path, {"S132_003": 5}, size=size, frames=4))
    assert sequence.read_faces().shape == (4, 128, 128)


def test_sequences_name_subject_expression_and_frames(whole: Path) -> None:
    sequences = ckplus_sequences(whole)
    assert [(s.subject, s.number, s.expression) for s in sequences] == [
        ("S005", "001", "disgust"),
        ("S010", "002", "contempt"),
        ("S010", "004", "surprise"),
        ("S011", "001", None),
    ]
    assert [frame.stem[-2:] for frame in sequences[0].frames] == ["01", "02", "03", "04", "05", "06"]


def test_frames_behind_the_labelled_one_are_not_the_peak(tmp_path: Path) -> None:
    write_whole_ckplus(tmp_path, {"S005_001": 3})
    folder = tmp_path / "Emotion" / "S005" / "001"
    (folder / "S005_001_00000006_emotion.txt").rename(folder / "S005_001_00000005_emotion.txt")
    assert len(ckplus_sequences(tmp_path)[0].frames) == 5


@pytest.mark.parametrize("names", [("extended-cohn-kanade-images", "Emotion_labels"), (".", "Emotion_labels")])
def test_the_folders_as_the_archives_unpack(tmp_path: Path, whole: Path, names: tuple[str, str]) -> None:
    for name, held in zip(names, ("cohn-kanade-images", "Emotion"), strict=True):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / held).symlink_to(whole / held)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert len(ckplus_sequences(tmp_path)) == 4


@pytest.mark.parametrize("inside", [True, False])
def test_ck48_leaves_contempt_out_and_says_so(tmp_path: Path, cache: Path, inside: bool) -> None:
    root = write_cropped_ckplus(tmp_path, CROPPED)
    dataset = load_dataset(f"ckplus:{root / 'CK+48' if inside else root}", cache=cache)
    split = dataset.split("report")
    assert dataset.layout == "CK+48"
    assert words(split.labels) == ["disgust"] * 3 + ["surprise"] * 3 + ["angry"] * 3
    assert split.groups is not None
    assert split.groups.tolist() == ["S005"] * 3 + ["S010"] * 3 + ["S011"] * 3
    assert split.images.shape == (9, 48, 48)
    assert "1 of contempt are left out. This layout holds no neutral faces." in dataset.note
    assert [s.expression for s in ckplus_sequences(root)].count("contempt") == 1


def test_folds_never_share_a_subject(tmp_path: Path, cache: Path) -> None:
    names = [f"S{subject:03}_{sequence:03}" for subject in range(10, 35) for sequence in (1, 2)]
    root = write_cropped_ckplus(tmp_path, dict.fromkeys(names, "happy"))
    whole = load_dataset(f"ckplus:{root}", cache=cache)
    tested: list[str] = []
    for fold in range(10):
        parted = split_by_subject(whole, fold=fold)
        subjects = {role: set(parted.split(role).groups.tolist()) for role in ("train", "choose", "report")}
        assert sum(map(len, subjects.values())) == len(set.union(*subjects.values())) == 25
        assert sum(map(len, parted.splits.values())) == 150
        assert split_by_subject(whole, fold=(fold + 1) % 10).split("report").groups.tolist() == (
            parted.split("choose").groups.tolist()
        )
        tested += subjects["report"]
    assert sorted(tested) == sorted({name[:4] for name in names})
    by_spec = load_dataset(f"ckplus:{root}?fold=3", cache=cache)
    assert by_spec.sha256 == split_by_subject(whole, fold=3).sha256
    with pytest.raises(DataError, match="got the option 'fold=10', expected for ckplus"):
        load_dataset(f"ckplus:{root}?fold=10", cache=cache)
    with pytest.raises(DataError, match="got 26, expected 3 to 25 folds"):
        split_by_subject(whole, fold=0, folds=26)
    with pytest.raises(DataError, match=r"no split to train on; .* Add \?fold=0"):
        whole.split("train")


def test_a_data_set_without_subjects_is_not_parted_by_them(tmp_path: Path, cache: Path) -> None:
    write_image(tmp_path / "happy" / "1.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="has no subjects"):
        split_by_subject(load_dataset(f"folder:{tmp_path}", cache=cache), fold=0)


LABEL = "Emotion/S005/001/S005_001_00000006_emotion.txt"
FRAMES = "cohn-kanade-images/S005/001"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (LABEL, b"   8.0e+00\n", f"{LABEL}: expected one number (0 neutral, 1 angry, 2 contempt"),
        (LABEL, b"3.5", f"{LABEL}: expected one number"),
        (LABEL, b"", f"{LABEL}: expected one number"),
        (LABEL, b"happy", f"{LABEL}: expected one number"),
        ("Emotion/S005/001/S005_001_00000003_emotion.txt", b"3", "the sequence has another label in "),
        ("Emotion/S005/002/S005_002_00000006_emotion.txt", b"3", "labels a sequence that is missing in "),
        ("Emotion/S005/001/peak_emotion.txt", b"3", "expected a name such as S010_004_00000017_emotion.txt"),
        (f"{FRAMES}/S005_001_00000006.png", None, "labels frame 6, which is missing in "),
        (f"{FRAMES}/S005_001_00000001.png", b"x", "S005_001_00000001.png: 1 bytes that cannot be decoded"),
        (f"{FRAMES}/S005_002_00000001.png", b"x", "expected frames of S005_001 in this folder"),
        (f"{FRAMES}/first.png", b"x", "expected a name such as S010_004_00000017.png"),
        (f"{FRAMES}/notes.txt", b"x", "notes.txt: expected only images"),
    ],
)
def test_a_tree_that_is_not_as_it_should_be(
    tmp_path: Path, cache: Path, file: str, content: bytes | None, message: str
) -> None:
    write_whole_ckplus(tmp_path, {"S005_001": 3})
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    assert message in read_error(f"ckplus:{tmp_path}", cache)


def test_frames_without_a_face_or_of_different_sizes(tmp_path: Path, cache: Path) -> None:
    write_whole_ckplus(tmp_path, {"S005_001": 3}, frames=4)
    files = ckplus_sequences(tmp_path)[0].frames
    write_image(files[1], np.zeros((480, 640), np.uint8))
    assert "00000002.png: 640x480 pixels, expected 640x490" in read_error(f"ckplus:{tmp_path}", cache)
    for file in files:
        write_image(file, np.zeros((490, 640), np.uint8))
    assert f"no face found in {files[0]} nor in {files[3]}" in read_error(f"ckplus:{tmp_path}", cache)


def test_too_few_frames_for_a_neutral_one(tmp_path: Path, cache: Path) -> None:
    write_whole_ckplus(tmp_path, {"S005_001": 3}, frames=3)
    assert "3 frames, expected a neutral one and 3 of the peak" in read_error(f"ckplus:{tmp_path}", cache)


def test_no_labels_at_all(tmp_path: Path, cache: Path) -> None:
    write_whole_ckplus(tmp_path, {"S005_001": None})
    assert "no labels; expected the folder Emotion" in read_error(f"ckplus:{tmp_path}", cache)
    (tmp_path / "Emotion").mkdir()
    assert "holds no sequence labelled with one of angry" in read_error(f"ckplus:{tmp_path}", cache)


def test_a_ck48_tree_that_is_not_as_it_should_be(tmp_path: Path, cache: Path) -> None:
    spec = f"ckplus:{tmp_path}"
    assert "is empty; expected cohn-kanade-images/ and Emotion/, or CK+48/" in read_error(spec, cache)
    (tmp_path / "images").mkdir()
    assert "unknown expression 'images'" in read_error(spec, cache)
    (tmp_path / "images").rmdir()
    write_cropped_ckplus(tmp_path, {"S010_004": "surprise", "S011_001": "happy"})
    write_image(tmp_path / "CK+48" / "happy" / "S010_004_00000001.png", np.zeros((48, 48), np.uint8))
    assert "sequence S010_004 is in the folder of another expression too" in read_error(spec, cache)
    write_image(tmp_path / "CK+48" / "happy" / "S010_004_00000001.png", np.zeros((48, 48), np.uint8))
    (tmp_path / "CK+48" / "happy" / "S010_004_00000001.png").unlink()
    write_image(tmp_path / "CK+48" / "happy" / "S011_001_00000017.png", np.zeros((49, 48), np.uint8))
    assert "S011_001_00000017.png: 48x49 pixels, expected 48x48" in read_error(spec, cache)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_ckplus(tmp_path_factory.mktemp("ckplus"), FIVE)


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


def test_the_official_seven_hold_contempt_and_no_neutral(five: Path, cache: Path) -> None:
    dataset = load_dataset(f"ckplus:{five}?labels=official", cache=cache)
    split = dataset.split("report")
    assert dataset.expressions == CKPLUS_EMOTIONS
    assert [CKPLUS_EMOTIONS[label] for label in split.labels] == (
        ["disgust"] * 3 + ["contempt"] * 3 + ["surprise"] * 3 + ["happy"] * 3
    )
    assert dataset.note.startswith("Of 5 sequences 1 without a label are left out. Add ?fold=0")
    assert describe(dataset).splits[0].classes["contempt"] == 3
    assert load_dataset(f"ckplus:{five}?labels=seven", cache=cache).expressions == EXPRESSIONS


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


def test_a_tree_of_contempt_alone(tmp_path: Path, cache: Path) -> None:
    write_cropped_ckplus(tmp_path, {"S010_001": "contempt"})
    assert "holds no sequence labelled with one of angry" in read_error(f"ckplus:{tmp_path}", cache)
    assert len(load_dataset(f"ckplus:{tmp_path}?labels=official", cache=cache).split("report")) == 3
