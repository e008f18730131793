from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import Fer2013Sample, noise, read_error, write_image

from fer_edge.core.errors import DataError
from fer_edge.data import load_dataset


def test_names_without_a_split_leave_one_test_split_that_serves_nothing(
    sample: Fer2013Sample, tmp_path: Path, cache: Path
) -> None:
    dataset = load_dataset(f"fer2013:{sample.write_folders(tmp_path, named=False)}", cache=cache)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"Training": 21, "test": 14}
    assert dataset.split("train").rows.tolist() == list(range(21))
    for role in ("choose", "report"):
        with pytest.raises(DataError, match=f"no split to {role} on; .*do not say PublicTest or PrivateTest"):
            dataset.split(role)


def test_system_files_are_no_data(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    root = sample.write_folders(tmp_path)
    for litter in (".DS_Store", "train/.DS_Store", "train/happy/Thumbs.db", "test/sad/desktop.ini", "README.txt"):
        (root / litter).write_bytes(b"x")
    assert len(load_dataset(f"fer2013:{root}", cache=cache).split("train")) == 21


def test_train_alone(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    write_image(tmp_path / "train" / "happy" / "Training_5.png", noise(1)[0])
    dataset = load_dataset(f"fer2013:{tmp_path}", cache=cache)
    assert dataset.split("train").rows.tolist() == [5]
    with pytest.raises(DataError, match="There is no PublicTest and no PrivateTest"):
        dataset.split("choose")


def test_jpeg_and_colour_are_read_as_grey(tmp_path: Path, cache: Path) -> None:
    write_image(tmp_path / "train" / "happy" / "Training_1.jpg", np.full((48, 48, 3), 99, np.uint8))
    image = load_dataset(f"fer2013:{tmp_path}", cache=cache).split("train").images[0]
    assert np.abs(image.astype(int) - 99).max() <= 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("test/happy/PublicTest_x.png", "expected a name such as PublicTest_123.png, as its neighbours have"),
        ("test/happy/Training_900.png", "Training_900.png: expected a name such as PublicTest_123.png"),
        ("train/happy/PrivateTest_900.png", "PrivateTest_900.png: expected a name such as Training_123.png"),
        ("train/happy/notes.txt", "notes.txt: expected only images in this folder"),
        ("train/happy/deeper/Training_900.png", "deeper: expected only images in this folder"),
        ("train/Training_900.png", "Training_900.png: expected only folders named after expressions"),
        ("train/bored/Training_900.png", "bored: unknown expression 'bored'"),
        ("train/contempt/Training_900.png", "contempt: contempt is not one of the seven"),
        (
            "validation/happy/im1.png",
            "validation: expected only train/ and test/; your own splits are read with folder:",
        ),
    ],
)
def test_what_does_not_belong_is_named(
    sample: Fer2013Sample, tmp_path: Path, cache: Path, file: str, message: str
) -> None:
    root = sample.write_folders(tmp_path)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(b"x")
    assert message in read_error(f"fer2013:{root}", cache)


def test_a_number_that_stands_twice(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    root = sample.write_folders(tmp_path)
    write_image(root / "train" / "sad" / "Training_0.png", noise(1)[0])
    assert "got Training_0 twice, also as" in read_error(f"fer2013:{root}", cache)


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_an_unreadable_image(sample: Fer2013Sample, tmp_path: Path, cache: Path, content: bytes | str) -> None:
    file = sample.write_folders(tmp_path) / "train" / "angry" / "Training_7.png"
    file.write_bytes(file.read_bytes()[:1000] if isinstance(content, str) else content)
    assert f"{file}: " in read_error(f"fer2013:{tmp_path}", cache)


def test_an_image_of_another_size(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    file = sample.write_folders(tmp_path) / "train" / "angry" / "Training_7.png"
    write_image(file, noise(1, size=(64, 48))[0])
    assert f"{file}: 48x64 pixels, expected 48x48. Faces of another size" in read_error(f"fer2013:{tmp_path}", cache)


def test_empty_folders(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    root = sample.write_folders(tmp_path)
    for file in (root / "test" / "happy").iterdir():
        file.unlink()
    assert f"{root / 'test' / 'happy'} holds no image" in read_error(f"fer2013:{root}", cache)
    (tmp_path / "bare" / "train").mkdir(parents=True)
    assert "train is empty; expected folders named" in read_error(f"fer2013:{tmp_path / 'bare'}", cache)
