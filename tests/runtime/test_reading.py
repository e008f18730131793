"""Two readings of one encoder: the default, `not judgeable` apart, and priors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import WINDOW, tiny_bundle, tiny_crowd_bundle, tiny_frames

from fer_edge.core.bundle import Bundle
from fer_edge.core.errors import BundleError, InputError
from fer_edge.core.labels import EXPRESSIONS, FER2013_FREQUENCIES
from fer_edge.runtime.estimate import UNKNOWN
from fer_edge.runtime.inference import Network
from fer_edge.runtime.reading import prior_weights
from fer_edge.runtime.recognizer import Recognizer


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_crowd_bundle(tmp_path_factory.mktemp("bundles") / "two", temperature=2.0)


class TestReadings:
    def test_crowd_is_the_default_where_the_bundle_has_it(self, bundle: Bundle, tmp_path: Path) -> None:
        with Recognizer(bundle) as both, Recognizer(tiny_bundle(tmp_path / "one")) as one:
            assert (both.info.reading, one.info.reading) == ("crowd", "fer2013")
            assert both.labels == one.labels == EXPRESSIONS

    def test_both_heads_read_the_same_features(self, bundle: Bundle) -> None:
        with Network.open(bundle, reading="crowd") as crowd, Network.open(bundle) as labels:
            frames = tiny_frames(3)
            assert np.array_equal(crowd.encode(frames), labels.encode(frames))
            assert (len(crowd.outputs), len(labels.outputs)) == (8, 7)

    def test_not_judgeable_is_apart(self, bundle: Bundle) -> None:
        frames = tiny_frames(5)
        with Recognizer(bundle, quality=None) as recognizer, Network.open(bundle, reading="crowd") as network:
            rows = network.probabilities(network.encode(frames)[:, None], np.ones(5, np.int64))
            for row, estimate in zip(rows, recognizer.recognize_stills(list(frames)), strict=True):
                assert estimate.not_judgeable == pytest.approx(row[7])
                got = [estimate.probabilities[name] for name in EXPRESSIONS]
                assert got == pytest.approx(list(row[:7] / row[:7].sum()), rel=1e-5)
                assert estimate.label == EXPRESSIONS[int(row[:7].argmax())]
                assert estimate.reading == "crowd"

    def test_the_other_reading_has_no_such_probability(self, bundle: Bundle) -> None:
        with Recognizer(bundle, reading="fer2013", quality=None) as recognizer:
            estimate = recognizer.recognize(tiny_frames(1)[0])
        assert (estimate.not_judgeable, estimate.reading) == (None, "fer2013")
        assert sum(estimate.probabilities.values()) == pytest.approx(1)

    def test_above_the_threshold_the_face_cannot_be_judged(self, tmp_path: Path) -> None:
        face = tiny_frames(1)[0]
        strict = tiny_crowd_bundle(tmp_path / "strict", not_judgeable_threshold=0.0)
        with Recognizer(strict, quality=None) as recognizer:
            estimates = [recognizer.recognize(face), recognizer.recognize_clip([face] * (WINDOW + 2))]
            estimates.append(recognizer.stream().update(face, timestamp_s=0.0))
        for estimate in estimates:
            assert (estimate.label, estimate.unknown_because) == (UNKNOWN, "face cannot be judged")
            assert estimate.not_judgeable is not None
            assert estimate.not_judgeable > 0

    def test_a_missing_head_is_refused(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "one")
        with pytest.raises(BundleError, match="reading: got 'crowd', expected 'fer2013'"):
            Recognizer(bundle, reading="crowd")
        with pytest.raises(InputError, match="reading: got 'people', expected one of crowd, fer2013"):
            Recognizer(bundle, reading="people")  # type: ignore[arg-type]


class TestPriors:
    def test_equal_posteriors_become_the_priors(self, bundle: Bundle) -> None:
        """Where the face says nothing, the posterior is the training's frequency, and becomes the given one."""
        frequencies = np.array([bundle.manifest.class_frequencies["crowd"][name] for name in EXPRESSIONS])
        wanted = dict(zip(EXPRESSIONS, (0.1, 0.05, 0.05, 0.1, 0.1, 0.1, 0.5), strict=True))
        weights = prior_weights(bundle.manifest, "crowd", wanted)
        assert weights is not None
        moved = frequencies * weights / (frequencies * weights).sum()
        assert moved == pytest.approx(list(wanted.values()))

    def test_labels_that_are_not_named_share_the_rest(self, bundle: Bundle) -> None:
        known = bundle.manifest.class_frequencies["crowd"]
        weights = prior_weights(bundle.manifest, "crowd", {"neutral": 0.7})
        assert weights is not None
        assert weights[EXPRESSIONS.index("neutral")] == pytest.approx(0.7 / known["neutral"])
        others = np.delete(weights, EXPRESSIONS.index("neutral"))
        assert others == pytest.approx([0.3 / (1 - known["neutral"])] * 6)

    def test_named_priors(self, bundle: Bundle) -> None:
        balanced, half = (prior_weights(bundle.manifest, "fer2013", name) for name in ("balanced", "half"))
        expected = np.array([1 / FER2013_FREQUENCIES[name] for name in EXPRESSIONS])
        assert balanced == pytest.approx(expected)
        assert half == pytest.approx(np.sqrt(expected))

    def test_the_recognizer_applies_them_and_leaves_not_judgeable(self, bundle: Bundle) -> None:
        face = tiny_frames(1)[0]
        with (
            Recognizer(bundle, quality=None) as plain,
            Recognizer(bundle, priors="balanced", quality=None) as balanced,
        ):
            before, after = plain.recognize(face), balanced.recognize(face)
        known = bundle.manifest.class_frequencies["crowd"]
        raw = {name: value / known[name] for name, value in before.probabilities.items()}
        expected = {name: value / sum(raw.values()) for name, value in raw.items()}
        assert dict(after.probabilities) == pytest.approx(expected, rel=1e-4)
        assert after.not_judgeable == before.not_judgeable

    @pytest.mark.parametrize(
        ("priors", "message"),
        [
            ("even", "priors: got 'even', expected one of balanced, half"),
            ({"joy": 0.5}, "priors: got 'joy', expected labels"),
            ({"neutral": 1.0}, "priors: got a sum of 1, expected less than 1"),
            ({"neutral": -0.1}, r"priors\['neutral'\]: got -0.1"),
            (dict.fromkeys(EXPRESSIONS, 0.2), "priors: got a sum of 1.4, expected 1"),
            (0.5, "priors: got float 0.5"),
        ],
    )
    def test_bad_priors_are_refused(self, bundle: Bundle, priors: object, message: str) -> None:
        with pytest.raises(InputError, match=message):
            Recognizer(bundle, priors=priors)  # type: ignore[arg-type]

    def test_unknown_frequencies_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="does not record the class frequencies"):
            Recognizer(tiny_bundle(tmp_path / "one"), priors="half")

    def test_shipped_bundles_of_fer2013_have_them(self) -> None:
        weights = prior_weights(Bundle.open("nano").manifest, "fer2013", "balanced")
        assert weights is not None
        assert weights[EXPRESSIONS.index("disgust")] == pytest.approx(28_709 / 436)
