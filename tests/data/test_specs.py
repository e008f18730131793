from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trees import read_error, write_image

from fer_edge.core.errors import DataError
from fer_edge.data import class_folders, load_dataset
from fer_edge.data.specs import READERS, DataSpec, Reader


def test_a_spec_is_parsed() -> None:
    assert DataSpec.parse("fer2013:~/a b/fer:2013.csv") == DataSpec(
        kind="fer2013", where="~/a b/fer:2013.csv", options={}
    )
    assert DataSpec.parse("ckplus:ck?fold=3&size=96").options == {"fold": 3, "size": 96}
    assert DataSpec.parse("synthetic?size=64") == DataSpec(kind="synthetic", where="", options={"size": 64})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unknown kind ''; expected fer2013:PATH"),
        ("fer2031:x", "did you mean 'fer2013'?"),
        ("/data/fer2013.csv", "unknown kind '/data/fer2013.csv'"),
        ("fer2013:", "the path is missing, as in fer2013:PATH"),
        ("fer2013", "the path is missing"),
        ("fer2013:x?size=96", "got the option 'size=96', expected for fer2013: none"),
        ("folder:x?fold=1", "got the option 'fold=1', expected for folder: size=16 to 512"),
        ("folder:x?size=big", "got the option 'size=big'"),
        ("folder:x?size=", "got the option 'size='"),
        ("folder:x?size=4", "got the option 'size=4', expected for folder: size=16 to 512"),
    ],
)
def test_a_spec_that_cannot_be_used(spec: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        DataSpec.parse(spec)
    assert message in str(caught.value)


def test_a_path_in_the_home_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path / 'faces'}" in read_error("folder:~/faces", cache)


def test_synthetic_faces_by_count_and_seed(cache: Path) -> None:
    dataset = load_dataset("synthetic:14@3?size=32", cache=cache)
    assert {role: len(dataset.split(role)) for role in dataset.roles} == {"train": 14, "choose": 7, "report": 7}
    assert dataset.split("report").images.shape == (7, 32, 32)
    assert sorted(dataset.split("choose").labels.tolist()) == list(range(7))
    every = np.concatenate([split.images for split in dataset.splits.values()])
    assert len({image.tobytes() for image in every}) == 28
    assert load_dataset("synthetic:14@3?size=32", cache=cache / "other").sha256 == dataset.sha256
    assert load_dataset("synthetic:14@4?size=32", cache=cache).sha256 != dataset.sha256


def test_a_longer_synthetic_set_begins_with_the_shorter(cache: Path) -> None:
    shorter, longer = (load_dataset(f"synthetic:{count}?size=24", cache=cache).split("train") for count in (3, 77))
    assert np.array_equal(longer.images[:3], shorter.images)
    assert sorted(longer.labels.tolist())[::11] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("where", ["x", "7@", "@x", "0", "-3", "9999999999"])
def test_a_synthetic_count_that_cannot_be_used(cache: Path, where: str) -> None:
    assert "expected synthetic:COUNT@SEED" in read_error(f"synthetic:{where}", cache)


def test_importing_the_readers_loads_no_opencv_and_no_pyarrow() -> None:
    script = (
        "import sys, fer_edge.data, fer_edge.data.fer2013, fer_edge.data.ckplus, fer_edge.data.class_folders;"
        "print([name for name in ('cv2', 'pyarrow', 'torch', 'onnx', 'matplotlib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_new_reader_needs_one_row_in_the_table(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "happy" / "1.png", np.zeros((48, 48), np.uint8))
    reader = Reader(plan=class_folders.plan, form="own:PATH[?size=S]", options={"size": range(16, 65)})
    monkeypatch.setitem(READERS, "own", reader)  # type: ignore[arg-type]
    dataset = load_dataset(f"own:{tmp_path}?size=24", cache=cache)
    assert dataset.source == f"own:{tmp_path}?size=24"
    assert dataset.split("report").images.shape == (1, 24, 24)
    with pytest.raises(DataError, match="expected for own: size=16 to 64"):
        load_dataset(f"own:{tmp_path}?size=65", cache=cache)
