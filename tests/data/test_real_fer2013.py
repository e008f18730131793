"""FER2013 itself: the published counts, the duplicates that the literature speaks of, all shapes alike."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from trees import Fer2013Sample

from fer_edge.data import Dataset, describe, load_dataset
from fer_edge.data.statistics import leaked_rows

pytestmark = pytest.mark.data

# Angry, disgust, fear, happy, sad, surprise, neutral (Goodfellow et al. 2013).
CLASS_COUNTS = {
    "Training": [3995, 436, 4097, 7215, 4830, 3171, 4965],
    "PublicTest": [467, 56, 496, 895, 653, 415, 607],
    "PrivateTest": [491, 55, 528, 879, 594, 416, 626],
}


@pytest.fixture(scope="module")
def fer2013(fer2013_path: Path) -> Dataset:
    return load_dataset(f"fer2013:{fer2013_path}")


def test_the_published_counts_and_the_known_duplicates(fer2013: Dataset) -> None:
    report = describe(fer2013)
    assert {split.name: list(split.classes.values()) for split in report.splits} == CLASS_COUNTS
    assert {split.name: split.leaked for split in report.splits} == {
        "Training": None,
        "PublicTest": 280,
        "PrivateTest": 288,
    }
    assert report.splits[0].repeated == 1237
    assert report.contradictory == 58
    assert report.image_size == (48, 48)


def test_rows_are_the_official_ones(fer2013: Dataset) -> None:
    assert fer2013.split("train").rows.tolist() == list(range(28709))
    assert fer2013.split("choose").rows.tolist() == list(range(28709, 32298))
    assert fer2013.split("report").rows.tolist() == list(range(32298, 35887))


def test_the_cache_opens_in_under_a_second(fer2013: Dataset, fer2013_path: Path) -> None:
    durations = []
    for _ in range(3):
        start = time.process_time()
        again = load_dataset(f"fer2013:{fer2013_path}")
        durations.append(time.process_time() - start)
    assert again.cache is not None
    assert min(durations) < 1.0


def test_leaked_rows_have_an_identical_training_row(fer2013: Dataset) -> None:
    report, train = fer2013.split("report"), fer2013.split("train")
    leaked = np.flatnonzero(leaked_rows(fer2013, report))
    assert all((train.images == report.images[row]).all(axis=(1, 2)).any() for row in leaked[:5])


def test_a_csv_of_the_first_rows_hashes_like_them(fer2013: Dataset, tmp_path: Path) -> None:
    head = fer2013.split("train").subset(np.arange(300))
    sample = Fer2013Sample(
        images=head.images,
        labels=head.labels.tolist(),
        usages=["Training"] * 300,
        votes=np.zeros((300, 10), np.uint8),
    )
    read = load_dataset(f"fer2013:{sample.write_csv(tmp_path / 'fer2013.csv')}", cache=tmp_path / "cache")
    assert read.split("train").sha256 == head.sha256
    folders = load_dataset(f"fer2013:{sample.write_folders(tmp_path / 'images')}", cache=tmp_path / "cache")
    assert folders.split("train").sha256 == head.sha256
