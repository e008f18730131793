"""Data sets in their official layouts and namings, filled with noise or generated faces."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fer_edge.core.errors import DataError
from fer_edge.core.label_sets import CKPLUS_CODES
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.data import load_dataset
from fer_edge.data.faces import Face, draw_face, random_face, synthetic_stills
from fer_edge.data.faces.people import random_units

USAGES = ("Training", "PublicTest", "PrivateTest")
FACE_BOX = (200, 120, 460, 380)
FRONTAL_SEED = 1
CKPLUS_COUNTS = {"angry": 45, "contempt": 18, "disgust": 59, "fear": 25, "happy": 69, "sad": 28, "surprise": 83}
CKPLUS_UNITS = {"contempt": {"au12": 0.4, "au43": 0.35}}


@dataclass(frozen=True, kw_only=True)
class Fer2013Sample:
    """Rows in the official order: images uint8 (N, 48, 48), labels, usages, FER+ votes uint8 (N, 10)."""

    images: NDArray[np.uint8]
    labels: list[int]
    usages: list[str]
    votes: NDArray[np.uint8]

    def write_csv(self, path: Path, header: Sequence[str] = ("emotion", "pixels", "Usage")) -> Path:
        cells = {
            "emotion": [str(label) for label in self.labels],
            "pixels": [" ".join(map(str, image.ravel().tolist())) for image in self.images],
            "usage": self.usages,
        }
        columns = [cells[name.strip().lower()] for name in header]
        with path.open("w", newline="") as handle:
            csv.writer(handle).writerows([header, *zip(*columns, strict=True)])
        return path

    def write_votes(self, path: Path) -> Path:
        names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
        rows = [
            [usage, f"fer{place:07}.png", *votes]
            for place, (usage, votes) in enumerate(zip(self.usages, self.votes.tolist(), strict=True))
        ]
        with path.open("w", newline="") as handle:
            csv.writer(handle).writerows([["Usage", "Image name", *names], *rows])
        return path

    def write_folders(self, root: Path, *, named: bool = True) -> Path:
        for row, (image, label, usage) in enumerate(zip(self.images, self.labels, self.usages, strict=True)):
            folder = root / ("train" if usage == "Training" else "test") / EXPRESSIONS[label]
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / (f"{usage}_{row}.png" if named else f"im{row}.png"), image)
        return root

    def write_parquet(self, path: Path, *, rows: Sequence[int] | None = None, **replaced: object) -> Path:
        pa = pytest.importorskip("pyarrow")
        chosen = list(range(len(self.labels))) if rows is None else list(rows)
        columns = {
            "row": pa.array(chosen, pa.int32()),
            "image": pa.array([cv2.imencode(".png", self.images[row])[1].tobytes() for row in chosen]),
            "emotion": pa.array([self.labels[row] for row in chosen], pa.int8()),
            "usage": pa.array([self.usages[row] for row in chosen]).dictionary_encode(),
            "ferplus_votes": pa.array([self.votes[row].tolist() for row in chosen], pa.list_(pa.uint8(), 10)),
        } | replaced
        kept = {name: column for name, column in columns.items() if column is not None}
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(kept), path)
        return path


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def read_error(spec: str, cache: Path) -> str:
    """What reading `spec` says is wrong."""
    with pytest.raises(DataError) as caught:
        load_dataset(spec, cache=cache)
    return str(caught.value)


def noise(count: int, seed: int = 0, size: tuple[int, int] = (48, 48)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)


def fer2013_sample(count: int = 35) -> Fer2013Sample:
    """Noise, three fifths of it for training, the rest for the two test splits."""
    cycle = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
    return Fer2013Sample(
        images=noise(count),
        labels=[place % 7 for place in range(count)],
        usages=sorted((cycle[place % 5] for place in range(count)), key=USAGES.index),
        votes=np.random.default_rng(1).integers(0, 11, (count, 10), np.uint8),
    )


def write_cropped_ckplus(root: Path, sequences: Mapping[str, str]) -> Path:
    """CK+48: sequence name (``"S010_004"``) -> folder; three frames each, 48x48 grey."""
    for place, (name, expression) in enumerate(sequences.items()):
        for frame, image in zip((15, 16, 17), noise(3, seed=place), strict=True):
            write_image(root / "CK+48" / expression / f"{name}_{frame:08}.png", image)
    return root


def write_whole_ckplus(
    root: Path, sequences: Mapping[str, int | None], *, frames: int = 6, size: tuple[int, int] = (640, 490)
) -> Path:
    """The authors' tree: sequence name -> emotion code or None; a generated face in camera images.

    Every other sequence is in colour, as in CK+.
    """
    width, height = size
    face = synthetic_stills(1, seed=FRONTAL_SEED, size=FACE_BOX[2] - FACE_BOX[0])[0][0]
    left, top, right, bottom = FACE_BOX
    for place, (name, code) in enumerate(sequences.items()):
        folder = Path(*name.split("_"))
        for frame in range(1, frames + 1):
            image = np.full((height, width), 90, np.uint8)
            image[top:bottom, left:right] = face
            image[:20, :20] = frame
            written = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if place % 2 else image
            write_image(root / "cohn-kanade-images" / folder / f"{name}_{frame:08}.png", written)
        if code is not None:
            label = root / "Emotion" / folder / f"{name}_{frames:08}_emotion.txt"
            label.parent.mkdir(parents=True)
            label.write_text(f"   {code:.7e}\n")
    return root


def ckplus_subjects() -> list[str]:
    """123 ids with gaps, from S005 to S999, as CK+ numbers its subjects."""
    return ["S005", *(f"S{number:03}" for number in range(10, 124)), *(f"S{n}" for n in (*range(501, 507), 895, 999))]


def touch_official_ckplus(root: Path) -> Path:
    """The authors' tree in its full extent, without pixels: 123 subjects, 593 sequences, 327 of them labelled.

    Sequences have 5 to 9 frames, fewer than CK+'s 6 to 71. As in CK+, the folders of unlabelled sequences exist under
    `Emotion` and are empty, and every folder holds what macOS left there.
    """
    subjects = ckplus_subjects()
    names = [(subject, f"{1 + place // len(subjects):03}") for place, subject in enumerate(subjects * 5)][:593]
    codes = [code for code, name in CKPLUS_CODES.items() for _ in range(CKPLUS_COUNTS.get(name, 0))]
    order = np.random.default_rng(0).permutation(len(names))
    labels = dict(zip(order.tolist(), codes, strict=False))
    for place, (subject, number) in enumerate(names):
        frames = 5 + place % 5
        folder = root / "cohn-kanade-images" / subject / number
        folder.mkdir(parents=True)
        (folder / ".DS_Store").touch()
        for frame in range(1, frames + 1):
            (folder / f"{subject}_{number}_{frame:08}.png").touch()
        label = root / "Emotion" / subject / number / f"{subject}_{number}_{frames:08}_emotion.txt"
        label.parent.mkdir(parents=True)
        if place in labels:
            label.write_text(f"   {labels[place]:.7e}\n")
    return root


def write_drawn_ckplus(
    root: Path, subjects: Sequence[str], *, frames: int = 6, size: tuple[int, int] = (640, 490)
) -> Path:
    """The authors' tree of drawn people who go from neutral to each of CK+'s seven emotions.

    Every person is drawn neutral and at each peak; the frames between are blends. Every other person is in colour.
    """
    (left, top, right, bottom), (width, height) = FACE_BOX, size
    for place, subject in enumerate(subjects):
        rng = np.random.default_rng((place, 77))
        person = random_face(rng, "neutral", turn=0.3)
        neutral = _portrait(person, right - left)
        for number, (code, name) in enumerate([item for item in CKPLUS_CODES.items() if item[0]], start=1):
            units = person.units if name in CKPLUS_UNITS else random_units(rng, name)
            units = dataclasses.replace(units, **CKPLUS_UNITS.get(name, {}))
            peak = _portrait(dataclasses.replace(person, units=units), right - left)
            folder = root / "cohn-kanade-images" / subject / f"{number:03}"
            for frame in range(1, frames + 1):
                share = (frame - 1) / (frames - 1)
                image = np.full((height, width, 3), 90, np.uint8)
                image[top:bottom, left:right] = cv2.addWeighted(peak, share, neutral, 1 - share, 0)
                written = image if place % 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                write_image(folder / f"{subject}_{number:03}_{frame:08}.png", written)
            label = root / "Emotion" / subject / f"{number:03}" / f"{subject}_{number:03}_{frames:08}_emotion.txt"
            label.parent.mkdir(parents=True)
            label.write_text(f"   {code:.7e}\n")
    return root


def _portrait(face: Face, side: int) -> NDArray[np.uint8]:
    """uint8 (side, side, 3) BGR: drawn small and enlarged, because that is quick."""
    small = draw_face(face, np.full((64, 64, 3), 90, np.uint8), box_xyxy=(2, 2, 62, 62))
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
