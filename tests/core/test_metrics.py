"""Every metric against values worked by hand, or against SciPy's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fer_edge.core.errors import InputError
from fer_edge.core.json import decode, encode
from fer_edge.core.metrics import (
    AccuracyReport,
    PairedReport,
    accuracy_report,
    confusion_matrix,
    expected_calibration_error,
    fit_temperature,
    mcnemar_p,
    paired_report,
    softmax,
)


def one_hot(labels: list[int], *, confidence: float = 1.0, classes: int = 7) -> np.ndarray:
    rest = (1.0 - confidence) / (classes - 1)
    rows = np.full((len(labels), classes), rest)
    rows[np.arange(len(labels)), labels] = confidence
    return rows


def random_rows(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, 7)) * 2
    labels = np.array([generator.choice(7, p=row) for row in softmax(logits)])
    return logits, labels


def test_softmax_is_stable_and_keeps_the_float_type() -> None:
    rows = softmax(np.array([[1000.0, 1000.0, -1000.0]], np.float32))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.5, 0.5, 0.0]])
    np.testing.assert_allclose(softmax([[2.0, 0.0]], temperature=2.0), softmax([[1.0, 0.0]]))
    with pytest.raises(InputError, match="positive"):
        softmax([[1.0]], temperature=0.0)


def test_accuracy_report_by_hand() -> None:
    # angry: 2 of 3 right, happy: 1 of 2 right (the other called angry), five other classes absent.
    labels = np.array([0, 0, 0, 3, 3])
    predicted = [0, 0, 6, 3, 0]
    leaked = np.array([True, False, False, False, True])
    report = accuracy_report(one_hot(predicted), labels, dataset="d", split="s", leaked=leaked)
    assert report.n == 5
    assert report.top1 == pytest.approx(3 / 5)
    assert report.per_class == {"angry": pytest.approx(2 / 3), "happy": 0.5}
    assert report.macro_recall == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert report.macro_precision == pytest.approx((2 / 3 + 1) / 2)
    assert report.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert report.ece == pytest.approx(2 / 5)
    assert (report.top1_without_leaked, report.n_without_leaked) == (pytest.approx(2 / 3), 3)


def test_accuracy_report_survives_json() -> None:
    logits, labels = random_rows(50, seed=1)
    report = accuracy_report(softmax(logits), labels, dataset="d", split="s")
    assert AccuracyReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [({"surprise": 1}, "surprise: unknown field"), ({"top1": 70.2}, "fraction"), ({"n": 0}, "at least one row")],
)
def test_a_wrong_accuracy_report_is_refused(change: dict[str, float], message: str) -> None:
    value = accuracy_report(one_hot([0]), [0], dataset="d", split="s").to_json() | change
    with pytest.raises(InputError, match=message):
        AccuracyReport.from_json(value)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.zeros((0, 7)), np.zeros(0, int), "N >= 1"),
        (np.ones((2, 7)), np.array([0, 1]), "softmax"),
        (np.full((1, 7), np.nan), np.array([0]), "softmax"),
        (one_hot([0, 1]), np.array([0]), "labels"),
        (one_hot([0]), np.array([7]), r"0\.\.6"),
        (one_hot([0]), np.array([0.0]), "integers"),
        (one_hot([0], classes=5), np.array([0]), "5 columns"),
    ],
)
def test_rows_that_cannot_be_measured(rows: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        accuracy_report(rows, labels, dataset="d", split="s")


def test_leaked_mask_is_checked() -> None:
    with pytest.raises(InputError, match="bool"):
        accuracy_report(one_hot([0]), [0], dataset="d", split="s", leaked=[0])
    with pytest.raises(InputError, match="leaked: got all"):
        accuracy_report(one_hot([0]), [0], dataset="d", split="s", leaked=[True])


def test_confusion_matrix_rows_are_labels() -> None:
    matrix = confusion_matrix([1, 1, 2], [0, 1, 2], classes=3)
    assert matrix.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    with pytest.raises(InputError, match=r"0\.\.2"):
        confusion_matrix([3], [0], classes=3)


def test_calibration_error_by_hand() -> None:
    # Four rows at confidence 0.9, three right: |0.75 - 0.9|. Two at 0.6, one right: |0.5 - 0.6|.
    rows = np.concatenate([one_hot([0] * 4, confidence=0.9), one_hot([1] * 2, confidence=0.6)])
    labels = np.array([0, 0, 0, 1, 1, 0])
    assert expected_calibration_error(rows, labels) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    assert expected_calibration_error(one_hot([2]), [2]) == 0.0


def test_temperature_is_recovered() -> None:
    logits, labels = random_rows(20_000, seed=2)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3.0, rel=0.05)


def test_temperature_is_the_minimum_scipy_finds() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits, labels = random_rows(500, seed=3)

    def loss(temperature: float) -> float:
        return -float(np.log(softmax(logits, temperature=temperature)[np.arange(500), labels]).mean())

    found = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-8}).x
    assert fit_temperature(logits, labels) == pytest.approx(found, abs=1e-4)


def test_temperature_stays_in_range() -> None:
    assert fit_temperature([[5.0, 0.0]], [0]) == 0.05
    assert fit_temperature([[5.0, 0.0]], [1]) == 20.0
    with pytest.raises(InputError, match="NaN"):
        fit_temperature([[np.nan, 0.0]], [0])


def test_paired_report_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    reference, other = [0, 0, 0, 1, 1, 2], [0, 0, 2, 0, 2, 3]
    report = paired_report(one_hot(reference), one_hot(other, confidence=0.8), labels)
    assert report.flip_rate == pytest.approx(4 / 6)
    assert report.agreement == pytest.approx(2 / 6)
    assert (report.only_reference_right, report.only_other_right) == (2, 1)
    assert report.top1_delta == pytest.approx(-1 / 6)
    assert report.mcnemar_p == 1.0
    assert report.ece_delta == pytest.approx((0.8 - 3 / 6) - (1 - 4 / 6))
    assert decode(PairedReport, json.loads(json.dumps(encode(report)))) == report


def test_a_variant_against_itself_shows_no_change() -> None:
    logits, labels = random_rows(40, seed=4)
    report = paired_report(softmax(logits), softmax(logits), labels)
    assert (report.flip_rate, report.mcnemar_p, report.top1_delta, report.ece_delta) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 6), (12, 3), (50, 49), (400, 460), (2000, 1800)])
def test_mcnemar_equals_the_binomial_test(first: int, second: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = 1.0 if first + second == 0 else stats.binomtest(first, first + second, 0.5).pvalue
    assert mcnemar_p(first, second) == pytest.approx(expected, rel=1e-9)
