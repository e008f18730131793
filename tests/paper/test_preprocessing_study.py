"""The measurement of the preprocessing, on systems that do what is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from studies import made_up_run, summarised

from fer_edge.core.errors import InputError
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.paper.preprocessing_study import CONDITIONS, PreprocessingReport, measure_cost, measure_preprocessing
from fer_edge.paper.report_page import render_study
from fer_edge.paper.report_plots import draw_study

SIZE = 24


def faces(count: int = 140) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Faces whose label is their brightest of seven columns."""
    labels = np.arange(count) % 7
    pictures = np.full((count, SIZE, SIZE), 90, np.uint8)
    for row, label in enumerate(labels):
        pictures[row, :, 3 * label : 3 * label + 3] = 130
    return pictures, labels


@dataclass
class ColumnReader:
    """Finds the brightest column after its own preprocessing; without `relative` it wants a bright picture, too."""

    median: int
    relative: bool
    seen: list[NDArray[np.uint8]] = field(default_factory=list)

    def predict(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen.append(faces)
        shown = np.stack([cv2.medianBlur(face, 3) if self.median else face for face in faces]).astype(np.float32)
        bright = np.quantile(shown[:, :, :21].reshape(len(faces), SIZE, 7, 3), 0.97, axis=(1, 3))
        said = bright.argmax(axis=1)
        if not self.relative:
            said = np.where(bright.max(axis=1) > 100, said, 6)
        return np.eye(7, dtype=np.float32)[said]


def systems() -> dict[str, dict[int, ColumnReader]]:
    return {
        "complete": {seed: ColumnReader(3, True) for seed in (0, 1, 2)},
        "no-median": {0: ColumnReader(0, True)},
        "no-gcn": {0: ColumnReader(3, False)},
        "no-preprocessing": {0: ColumnReader(0, False)},
    }


@pytest.fixture(scope="module")
def measured() -> PreprocessingReport:
    return measure_preprocessing(systems(), *faces(), split="PrivateTest")


class TestMeasurePreprocessing:
    def test_each_part_is_credited_where_it_helps(self, measured: PreprocessingReport) -> None:
        gains = {(gain.part, gain.corruption, gain.level): gain for gain in measured.gains}
        for part in ("median filter", "normalisation", "both"):
            assert gains[part, None, 0].report.difference == 0
        assert gains["median filter", "salt_and_pepper", 2].report.low > 0
        assert gains["normalisation", "salt_and_pepper", 2].report.difference == 0
        assert gains["normalisation", "poor_light", 3].report.low > 0
        assert gains["median filter", "salt_and_pepper", 2].p_holm < 0.05

    def test_every_system_under_every_condition(self, measured: PreprocessingReport) -> None:
        assert len(measured.conditions) == 4 * len(CONDITIONS) == 28
        assert measured.seeds == {
            "complete": (0, 1, 2), "no-median": (0,), "no-gcn": (0,), "no-preprocessing": (0,)
        }  # fmt: skip

    def test_all_see_the_same_spoilt_faces_and_none_the_filtered_ones(self) -> None:
        given = systems()
        pictures, labels = faces()
        measure_preprocessing(given, pictures, labels, split="PublicTest")
        first, other = given["complete"][0].seen, given["no-preprocessing"][0].seen
        assert len(first) == len(CONDITIONS)
        for mine, theirs in zip(first, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(first[0], pictures)

    def test_again_gives_the_same(self, measured: PreprocessingReport) -> None:
        assert measure_preprocessing(systems(), *faces(), split="PrivateTest") == measured

    def test_progress_reaches_its_end(self) -> None:
        told: list[tuple[str, int, int]] = []
        measure_preprocessing(
            {"complete": {0: ColumnReader(3, True)}},
            *faces(14),
            split="PublicTest",
            progress=lambda *step: told.append(step),
        )
        assert told[-1][1:] == (7, 7)

    def test_what_cannot_be_measured(self) -> None:
        pictures, labels = faces(14)
        with pytest.raises(InputError, match="complete"):
            measure_preprocessing({"no-gcn": {0: ColumnReader(3, True)}}, pictures, labels, split="PublicTest")
        with pytest.raises(InputError, match="no seed"):
            measure_preprocessing({"complete": {}}, pictures, labels, split="PublicTest")
        with pytest.raises(InputError, match="same rows"):
            measure_preprocessing(systems(), pictures, labels[:3], split="PublicTest")


class TestCost:
    def test_shares_are_of_the_whole(self) -> None:
        work = np.zeros((300, 300))
        cost = measure_cost(
            faces(1)[0][0],
            spec=PreprocessSpec(size=SIZE, median=3),
            encode=lambda prepared: work @ work,
            encoder="a matrix product",
            rounds=5,
        )
        assert set(cost.latency_ms) == {"prepare", "encoder", "median", "normalisation"}
        assert 0 < cost.median_share.median < 1
        assert cost.latency_ms["median"].n == 50

    def test_a_system_without_a_filter(self) -> None:
        with pytest.raises(InputError, match="median"):
            measure_cost(faces(1)[0][0], spec=PreprocessSpec(size=SIZE), encode=len, encoder="nothing")


class TestInTheReport:
    def test_tables_and_drawing(self, measured: PreprocessingReport) -> None:
        report = summarised([made_up_run("complete", 0, 0.6)], preprocessing=measured)
        page = render_study(report, draw_study(report))
        assert "| clean | 100.00 ± 0.00 | 100.00 | 100.00 | 100.00 |" in page
        assert "| condition | median filter and normalisation (3 seeds) | normalisation alone (1 seed) |" in page
        assert "| salt and pepper, level 2 | +" in page
        assert "![Accuracy under noise and in poor light](preprocessing.png)" in page
