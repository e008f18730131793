"""FER+ votes and the accuracy of a head `crowd`, against values computed by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fer_edge.core.accuracy import CrowdAccuracy
from fer_edge.core.crowd import (
    class_shares,
    crowd_accuracy,
    first_choice,
    has_majority,
    rejection_threshold,
    vote_shares,
)
from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.metrics import fit_temperature, softmax
from fer_edge.data import load_dataset

#             neutral happy surprise sad angry disgust fear contempt unknown not-a-face
VOTES = np.array(
    [
        [6, 4, 0, 0, 0, 0, 0, 0, 0, 0],  # neutral, with a majority
        [5, 5, 0, 0, 0, 0, 0, 0, 0, 0],  # tie: neutral comes first; no majority
        [0, 0, 0, 0, 3, 0, 0, 6, 1, 0],  # contempt first
        [0, 0, 0, 1, 0, 0, 0, 0, 5, 4],  # unknown first
        [0, 0, 0, 0, 0, 0, 0, 10, 0, 0],  # contempt alone: no vote counts
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)
NEUTRAL, HAPPY, ANGRY, SAD = (EXPRESSIONS.index(name) for name in ("neutral", "happy", "angry", "sad"))


def one_hot(*classes: int) -> np.ndarray:
    return np.eye(8)[list(classes)]


class TestVotes:
    def test_shares_leave_contempt_out_and_join_unknown_with_not_a_face(self) -> None:
        shares = vote_shares(VOTES)
        assert shares[0, [NEUTRAL, HAPPY]].tolist() == [0.6, 0.4]
        assert shares[2, [ANGRY, 7]].tolist() == [0.75, 0.25]
        assert shares[3, [SAD, 7]].tolist() == pytest.approx([0.1, 0.9])
        assert shares.sum(axis=1).tolist() == pytest.approx([1, 1, 1, 1, 0, 0])

    def test_first_choice_and_majority(self) -> None:
        assert first_choice(VOTES).tolist() == [NEUTRAL, NEUTRAL, -1, -1, -1, -1]
        assert has_majority(VOTES).tolist() == [True, False, False, False, False, False]

    def test_class_shares_are_those_among_the_seven(self) -> None:
        shares = class_shares(VOTES[:1])
        assert (shares["neutral"], shares["happy"]) == (0.6, 0.4)

    def test_another_shape_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"votes: got uint8 \(6, 9\), expected integers"):
            vote_shares(VOTES[:, :9])


class TestAccuracy:
    def test_figures(self) -> None:
        rows = one_hot(NEUTRAL, HAPPY, ANGRY, 7, 7, 7) * 0.9 + 0.1 / 8
        report = crowd_accuracy(rows, VOTES, threshold=0.5, negatives={"flat": one_hot(7, 7, 7, SAD)})
        assert (report.n_first_choice, report.first_choice_top1) == (2, 0.5)
        assert (report.n_majority, report.majority_top1) == (1, 1.0)
        assert report.per_class == {"neutral": 0.5}
        high, low = -np.log2(0.9125), -np.log2(0.0125)
        by_hand = (0.6 * high + 0.4 * low, 0.5 * high + 0.5 * low, 0.75 * high + 0.25 * low, 0.9 * high + 0.1 * low)
        assert report.cross_entropy_bits == pytest.approx(np.mean(by_hand))
        confidence = 0.9125 / (0.9125 + 6 * 0.0125)
        assert report.ece == pytest.approx(confidence - (0.6 + 0.5) / 2)
        rejected = report.not_judgeable
        assert (rejected.faces, rejected.unclear, rejected.n_unclear) == (0.0, 1.0, 1)
        assert rejected.negatives == {"flat": 0.75}

    def test_eight_classes_as_others_report_them(self) -> None:
        votes = np.concatenate((VOTES, np.array([[4, 3, 1, 1, 1, 0, 0, 0, 0, 0]], np.uint8)))
        report = crowd_accuracy(one_hot(*[NEUTRAL] * len(votes)), votes, threshold=0.5)
        # Rows 0 and 6, whose single votes are struck, are right; rows 2 and 4 are contempt, which is no output.
        assert (report.eight_class_top1, report.n_eight_class) == (0.5, 4)

    def test_json_is_read_back(self) -> None:
        report = crowd_accuracy(one_hot(NEUTRAL, NEUTRAL), VOTES[[1, 1]], threshold=0.5)
        assert report.majority_top1 is None
        assert CrowdAccuracy.from_json(report.to_json()) == report

    def test_rows_without_an_expression_are_refused(self) -> None:
        with pytest.raises(InputError, match="no row whose first choice is an expression"):
            crowd_accuracy(one_hot(7, 7, 7), VOTES[3:], threshold=0.5)

    def test_the_threshold_rejects_at_most_a_hundredth_of_the_faces(self) -> None:
        votes = np.repeat(VOTES[:1], 1000, axis=0)
        scores = np.random.default_rng(0).random(1000)
        threshold = rejection_threshold(scores, votes)
        assert 0.005 < (scores > threshold).mean() <= 0.01

    def test_temperature_of_distributions(self) -> None:
        random = np.random.default_rng(0)
        logits = random.normal(0, 2, (400, 8))
        assert fit_temperature(3 * logits, softmax(logits)) == pytest.approx(3, rel=1e-3)


@pytest.mark.data
def test_public_test_has_the_rows_of_the_definitions() -> None:
    split = load_dataset(f"fer2013:{os.environ['FER_EDGE_DATA']}").split("choose")
    assert split.votes is not None
    assert int((first_choice(split.votes) >= 0).sum()) == 3529
    assert int(has_majority(split.votes).sum()) == 2854
