"""What all of FER2013's shapes have in common, and how they are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trees import Fer2013Sample, read_error

from fer_edge.data import Dataset, load_dataset


def write(sample: Fer2013Sample, shape: str, root: Path) -> Path:
    if shape == "csv":
        return sample.write_csv(root / "fer2013.csv")
    if shape == "folders":
        return sample.write_folders(root / "images")
    sample.write_parquet(root / "a.parquet", rows=range(20, 35))
    sample.write_parquet(root / "b.parquet", rows=range(20))
    return root


def check(dataset: Dataset, sample: Fer2013Sample) -> None:
    usages = np.array(sample.usages)
    assert list(dataset.splits) == ["Training", "PublicTest", "PrivateTest"]
    for role, usage in (("train", "Training"), ("choose", "PublicTest"), ("report", "PrivateTest")):
        split = dataset.split(role)
        rows = np.flatnonzero(usages == usage)
        assert split.name == usage
        assert np.array_equal(split.rows, rows)
        assert np.array_equal(split.images, sample.images[rows])
        assert np.array_equal(split.labels, np.array(sample.labels)[rows])


@pytest.mark.parametrize("shape", ["csv", "folders", "parquet"])
def test_each_shape_gives_the_official_rows(sample: Fer2013Sample, tmp_path: Path, cache: Path, shape: str) -> None:
    path = write(sample, shape, tmp_path)
    steps: list[tuple[int, int]] = []
    dataset = load_dataset(
        f"fer2013:{path}", cache=cache, progress=lambda what, done, total: steps.append((done, total))
    )
    check(dataset, sample)
    assert dataset.layout == shape
    assert steps[-1] == (35, 35)
    check(load_dataset(f"fer2013:{path}", cache=cache), sample)


def test_the_same_rows_have_the_same_hash_in_every_shape(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    hashes = set()
    for shape in ("csv", "folders", "parquet"):
        (tmp_path / shape).mkdir()
        hashes.add(load_dataset(f"fer2013:{write(sample, shape, tmp_path / shape)}", cache=cache).sha256)
    assert len(hashes) == 1


def test_a_folder_is_looked_into(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    spec = f"fer2013:{tmp_path}"
    write(sample, "folders", tmp_path)
    assert load_dataset(spec, cache=cache).layout == "folders"
    write(sample, "csv", tmp_path)
    sample.write_votes(tmp_path / "fer2013new.csv")
    assert load_dataset(spec, cache=cache).layout == "csv"
    write(sample, "parquet", tmp_path)
    assert load_dataset(spec, cache=cache).layout == "parquet"


def test_a_table_is_known_by_its_content_not_its_name(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    assert load_dataset(f"fer2013:{sample.write_parquet(tmp_path / 'faces.bin')}", cache=cache).layout == "parquet"
    assert load_dataset(f"fer2013:{sample.write_csv(tmp_path / 'faces.txt')}", cache=cache).layout == "csv"


def test_a_relative_path_opens_the_same_cache(
    sample: Fer2013Sample, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.write_csv(tmp_path / "fer2013.csv")
    monkeypatch.chdir(tmp_path)
    relative = load_dataset("fer2013:fer2013.csv", cache=cache)
    assert relative.source == "fer2013:fer2013.csv"
    assert load_dataset(f"fer2013:{tmp_path / 'fer2013.csv'}", cache=cache).cache == relative.cache
    assert len(list(cache.iterdir())) == 1


def test_nothing_there(tmp_path: Path, cache: Path) -> None:
    assert "does not exist; expected fer2013.csv" in read_error(f"fer2013:{tmp_path / 'nowhere'}", cache)
    assert "holds no FER2013; expected fer2013.csv" in read_error(f"fer2013:{tmp_path}", cache)


def test_two_tables_are_not_chosen_between(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    sample.write_csv(tmp_path / "fer2013.csv")
    sample.write_csv(tmp_path / "icml_face_data.csv")
    assert "several FER2013 tables: fer2013.csv, icml_face_data.csv" in read_error(f"fer2013:{tmp_path}", cache)


def test_a_missing_split_is_named(sample: Fer2013Sample, tmp_path: Path, cache: Path) -> None:
    training = [row for row, usage in enumerate(sample.usages) if usage == "Training"]
    dataset = load_dataset(f"fer2013:{sample.write_parquet(tmp_path / 'a.parquet', rows=training)}", cache=cache)
    with pytest.raises(Exception, match=r"no split to report on; .* There is no PublicTest and no PrivateTest\."):
        dataset.split("report")
