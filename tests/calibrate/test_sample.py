from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from miniature import noise_dataset

from fer_edge.calibrate.gate import draw_agreement_rows
from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import DataError
from fer_edge.core.provenance import read_provenance
from fer_edge.data import load_dataset
from fer_edge.data.dataset import Dataset, StillSet
from fer_edge.data.sampling import draw_sample

COMMITTED = Path(__file__).parents[2] / "calibrate" / "samples"


def uneven(counts: tuple[int, ...] = (400, 44, 410, 720, 480, 317, 497)) -> Dataset:
    """A training split with FER2013's class shares; every image is its own row number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), counts))
    images = np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2)
    split = StillSet(name="Training", images=images, labels=labels, rows=np.arange(len(labels)) + 100)
    return Dataset(name="uneven", source="uneven", layout="x", splits={"Training": split}, roles={"train": "Training"})


def test_every_class_has_its_share() -> None:
    dataset = uneven()
    sample = draw_sample(dataset, size=512, seed=2013)
    train = dataset.split("train")
    exact = np.bincount(train.labels) * 512 / len(train)
    assert len(sample.stills) == 512
    assert np.abs(np.bincount(sample.stills.labels) - exact).max() < 1
    assert len(np.unique(sample.stills.rows)) == 512


def test_the_seed_decides() -> None:
    first, again, other = (draw_sample(uneven(), size=64, seed=seed) for seed in (1, 1, 2))
    assert first.to_json() == again.to_json()
    assert first.stills.sha256 != other.stills.sha256


def test_the_rows_go_with_their_labels_and_images() -> None:
    dataset = uneven()
    stills = draw_sample(dataset, size=64, seed=3).stills
    train = dataset.split("train")
    index = stills.rows - 100
    assert (stills.labels == train.labels[index]).all()
    assert (stills.images == train.images[index]).all()
    assert (np.diff(stills.rows) > 0).all()


def test_the_record_holds_row_numbers_and_hashes_and_no_image() -> None:
    dataset = uneven()
    sample = draw_sample(dataset, size=16, seed=3)
    record = json.loads(json.dumps(sample.to_json()))
    assert record == {
        "dataset": "uneven",
        "dataset_sha256": dataset.sha256,
        "split": "Training",
        "size": 16,
        "seed": 3,
        "sha256": sample.stills.sha256,
        "rows": sample.stills.rows.tolist(),
    }
    assert "rows" not in sample.summary()


def test_the_whole_split_may_be_the_sample() -> None:
    assert len(draw_sample(noise_dataset(), size=140, seed=0).stills) == 140


def test_a_split_that_is_too_small_is_refused_with_the_cure() -> None:
    with pytest.raises(DataError, match=r"holds 140 rows, fewer than the 512 .*--set sample.size=35"):
        draw_sample(noise_dataset(), size=512, seed=0)


def test_rows_to_agree_on_share_no_image_with_the_sample() -> None:
    dataset = noise_dataset()
    train = dataset.split("train")
    images = train.images.copy()
    images[70:] = images[:70]
    twice = StillSet(name="Training", images=images, labels=train.labels, rows=train.rows)
    dataset = Dataset(name="twice", source="twice", layout="x", splits={"Training": twice}, roles={"train": "Training"})
    sample = draw_sample(dataset, size=30, seed=0)
    used = {image.tobytes() for image in sample.stills.images}
    left = sum(image.tobytes() not in used for image in images)
    assert left < 140 - 30
    outside = draw_agreement_rows(dataset, sample, size=left, seed=1)
    assert not used & {image.tobytes() for image in outside.stills.images}
    with pytest.raises(DataError, match=rf"{left} rows of Training .*--set gate.agreement_rows={left}"):
        draw_agreement_rows(dataset, sample, size=left + 1, seed=1)


@pytest.mark.parametrize(("rows", "distinct"), [(300, 1), (300, 2), (300, 299), (5, 5), (2, 1), (1, 1)])
def test_the_advice_about_small_sets_ends(rows: int, distinct: int) -> None:
    """Every `--set` that an error gives leads on, or the next error says that nothing remains."""
    images = np.random.default_rng(0).integers(0, 256, (distinct, 8, 8), dtype=np.uint8)
    stills = StillSet(
        name="train", images=images[np.arange(rows) % distinct], labels=np.zeros(rows, np.int64), rows=np.arange(rows)
    )
    dataset = Dataset(name="few", source="few", layout="x", splits={"train": stills}, roles={"train": "train"})
    sizes, seen = {"sample.size": 300, "gate.agreement_rows": 10_000}, set[str]()
    said = None
    while said is None or "--set" in said:
        if said is not None:
            assert said not in seen, "the same advice again"
            seen.add(said)
            name, value = re.findall(r"--set ([a-z_.]+)=(\d+)", said)[0]
            sizes[name] = int(value)
        try:
            sample = draw_sample(dataset, size=sizes["sample.size"], seed=0)
            draw_agreement_rows(dataset, sample, size=sizes["gate.agreement_rows"], seed=0)
        except DataError as error:
            said = str(error)
        else:
            said = "enough"
    assert (said == "enough") == (distinct > 1)


def test_a_balanced_choice_is_what_it_says() -> None:
    dataset = noise_dataset()
    train = dataset.split("train")
    counts = np.bincount(draw_sample(dataset, size=35, seed=3, choice="balanced").stills.labels, minlength=7)
    available = np.bincount(train.labels, minlength=7)
    assert counts.sum() == 35
    short = counts < counts.max() - 1
    assert counts[short].tolist() == available[short].tolist(), "a class gives less than the others only if it has less"


def test_rows_to_agree_on_lie_outside_every_sample() -> None:
    dataset = noise_dataset()
    samples = [draw_sample(dataset, size=30, seed=seed) for seed in (1, 2)]
    used = {image.tobytes() for sample in samples for image in sample.stills.images}
    outside = draw_agreement_rows(dataset, *samples, size=60, seed=1)
    assert not used & {image.tobytes() for image in outside.stills.images}


def test_a_data_set_without_a_training_split_is_refused() -> None:
    dataset = noise_dataset()
    without = Dataset(name="x", source="x", layout="x", splits=dataset.splits, roles={"choose": "PublicTest"})
    with pytest.raises(DataError, match="no split to train on"):
        draw_sample(without, size=8, seed=0)


@pytest.mark.data
def test_committed_samples_are_drawn_again(fer2013_path: Path) -> None:
    """The row numbers hold for every copy of FER2013; the hash for those with the same pixels in every row."""
    dataset = load_dataset(f"fer2013:{fer2013_path}")
    sample = draw_sample(dataset, size=512, seed=2013)
    assert np.bincount(sample.stills.labels).tolist() == [71, 8, 73, 129, 86, 57, 88]
    assert set(sample.stills.rows.tolist()) <= set(dataset.split("train").rows.tolist())
    for path in sorted(COMMITTED.glob("*.json")):
        committed = json.loads(path.read_text("utf-8"))
        told = read_provenance(Bundle.open(path.stem)).calibration["int8"]["recipe"]["sample"]
        drawn = draw_sample(dataset, size=committed["size"], seed=committed["seed"], choice=told["choice"])
        again = drawn.to_json()
        assert again["rows"] == committed["rows"], path
        if again["dataset_sha256"] == committed["dataset_sha256"]:
            assert again == committed, path
