from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import noise, read_error, write_image

from fer_edge.core.errors import DataError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data import load_dataset


def write(root: Path, *folders: str, size: tuple[int, int] = (30, 20)) -> Path:
    """Two images in each folder."""
    for place, folder in enumerate(folders):
        for number, image in enumerate(noise(2, seed=place, size=size)):
            write_image(root / folder / f"{number}.png", image)
    return root


def test_train_val_and_test_serve_their_roles(tmp_path: Path, cache: Path) -> None:
    write(tmp_path, "train/anger", "train/Happiness", "validation/sad", "test/surprised", "test/neutral")
    dataset = load_dataset(f"folder:{tmp_path}", cache=cache)
    words = {role: [EXPRESSIONS[label] for label in dataset.split(role).labels] for role in dataset.roles}
    assert words == {
        "train": ["angry", "angry", "happy", "happy"],
        "choose": ["sad", "sad"],
        "report": ["surprise", "surprise", "neutral", "neutral"],
    }
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert np.array_equal(dataset.split("train").images[:2], noise(2, seed=0, size=(30, 20)))
    assert np.array_equal(dataset.split("report").images[2:], noise(2, seed=4, size=(30, 20)))
    assert dataset.split("report").rows.tolist() == [0, 1, 2, 3]


def test_a_flat_set_is_only_reported_on(tmp_path: Path, cache: Path) -> None:
    dataset = load_dataset(f"folder:{write(tmp_path, *EXPRESSIONS)}", cache=cache)
    assert dataset.split("report").name == "all"
    assert dataset.split("report").labels.tolist() == sorted([*range(7)] * 2)
    with pytest.raises(DataError, match=r"no split to train on; it holds all \(14\). A flat set is only reported on"):
        dataset.split("train")


def test_a_missing_folder_is_named_when_its_role_is_asked_for(tmp_path: Path, cache: Path) -> None:
    dataset = load_dataset(f"folder:{write(tmp_path, 'train/sad', 'test/sad')}", cache=cache)
    with pytest.raises(DataError, match=r"no split to choose on; .* There is no val/ folder"):
        dataset.split("choose")


def test_sizes_that_differ_are_refused_or_resized_on_request(tmp_path: Path, cache: Path) -> None:
    write(tmp_path, "train/happy")
    write(tmp_path, "val/happy", size=(64, 48))
    error = read_error(f"folder:{tmp_path}", cache)
    assert "0.png: 48x64 pixels, expected 20x30, the size of " in error
    assert "add ?size=N to the spec" in error
    dataset = load_dataset(f"folder:{tmp_path}?size=40", cache=cache)
    assert dataset.split("choose").images.shape == (2, 40, 40)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("extra/happy/0.png", "extra: expected only train/, val/ and test/ beside train/"),
        ("validation/happy/0.png", "holds both val/ and validation/"),
        ("train/bored/0.png", "bored: unknown expression 'bored'"),
        ("train/contempt/0.png", "contempt: contempt is not one of the seven"),
        ("train/happy/movie.mp4", "movie.mp4: expected only images in this folder"),
        ("train/0.png", "0.png: expected only folders named after expressions"),
        ("train/happy/9.png", "9.png: 1 bytes that cannot be decoded"),
    ],
)
def test_what_does_not_belong_is_named(tmp_path: Path, cache: Path, file: str, message: str) -> None:
    write(tmp_path, "train/happy", "val/happy")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"x")
    assert message in read_error(f"folder:{tmp_path}", cache)


def test_nothing_there(tmp_path: Path, cache: Path) -> None:
    assert "is empty; expected folders named after expressions" in read_error(f"folder:{tmp_path}", cache)
    (tmp_path / "happy").mkdir()
    assert "happy holds no image" in read_error(f"folder:{tmp_path}", cache)
    assert "cannot list" in read_error(f"folder:{tmp_path / 'nowhere'}", cache)
    (tmp_path / "file").write_bytes(b"")
    assert "cannot list" in read_error(f"folder:{tmp_path / 'file'}", cache)


def test_a_face_moved_to_another_expression_is_read_anew(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "faces", "happy", "sad")
    before = load_dataset(f"folder:{root}", cache=cache)
    (root / "happy" / "1.png").rename(root / "sad" / "2.png")
    after = load_dataset(f"folder:{root}", cache=cache)
    assert after.split("report").labels.tolist() == [3, 4, 4, 4]
    assert after.sha256 != before.sha256
