"""What is rejected as not fit to be judged, and what an estimate then says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import tiny_bundle, tiny_crowd_bundle

from fer_edge.core.errors import InputError
from fer_edge.data.faces import synthetic_stills
from fer_edge.data.faces.scenes import cabin
from fer_edge.data.negatives import make_negatives
from fer_edge.runtime.detector import Face
from fer_edge.runtime.quality import QualityLimits, judge_crop, quality_limits
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer

_FACES = synthetic_stills(28, seed=4, size=64)[0]
_BOX = (10.0, 10.0, 74.0, 74.0)


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer(tiny_bundle(tmp_path / "bundle")) as opened:
        yield opened


def _scene(face: np.ndarray) -> np.ndarray:
    frame = np.full((90, 90), 90, np.uint8)
    frame[10:74, 10:74] = face
    return frame


def _frames(count: int, *, nv12: bool) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    code = cv2.COLOR_BGR2YUV_I420 if nv12 else cv2.COLOR_BGR2GRAY
    return [np.asarray(cv2.cvtColor(cabin(640, 480, random), code), np.uint8) for _ in range(count)]


class TestLimits:
    @pytest.mark.parametrize(
        ("crop", "reason"),
        [
            (np.zeros((80, 80), np.uint8), "dark"),
            (np.full((80, 80), 255, np.uint8), "bright"),
            (np.full((80, 80), 120, np.uint8), "flat"),
            (_FACES[0][::5, ::5], "too small"),
            ((_FACES[0] * 0.15).astype(np.uint8), "dark"),
            (cv2.GaussianBlur(_FACES[0], (0, 0), 9), "blurred"),
            (np.where(np.arange(64) < 40, 20, _FACES[0]).astype(np.uint8), "covered"),
            (np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8), "not a face"),
        ],
    )
    def test_each_reason(self, crop: np.ndarray, reason: str) -> None:
        judged = judge_crop(crop, quality_limits())
        assert reason in judged.reasons
        assert judged.score is not None
        assert judged.score < 0.5
        assert judged.detail is not None

    @pytest.mark.parametrize("kind", ["flat", "noise", "gradient", "stripes", "text", "cabin"])
    def test_pictures_without_a_face(self, kind: str) -> None:
        made = make_negatives(kind, 40, faces=_FACES, seed=2)
        assert np.mean([bool(judge_crop(each, quality_limits()).reasons) for each in made]) > 0.85

    @pytest.mark.parametrize("nv12", [False, True])
    def test_whole_frames_of_a_camera(self, nv12: bool) -> None:
        assert all(judge_crop(each, quality_limits()).reasons for each in _frames(8, nv12=nv12))

    def test_drawn_faces_of_all_sizes_are_accepted(self) -> None:
        for size in (40, 64, 200):
            assert not any(
                judge_crop(face, quality_limits()).reasons for face in synthetic_stills(28, seed=4, size=size)[0]
            )

    def test_beside_a_head_the_limits_are_looser(self) -> None:
        for limit, looser in zip(quality_limits().limits, quality_limits(beside_head=True).limits, strict=True):
            assert abs(looser.reject - looser.good) >= abs(limit.reject - limit.good)

    def test_reasons_may_be_left_out(self) -> None:
        limits = quality_limits().without("dark", "flat", "blurred", "covered")
        assert judge_crop(np.zeros((80, 80), np.uint8), limits).reasons == ()
        with pytest.raises(InputError, match="reasons: got 'dim', expected some of blurred"):
            quality_limits().without("dim")
        assert judge_crop(np.zeros((80, 80), np.uint8), QualityLimits(limits=())).score == 1

    @pytest.mark.data
    def test_one_face_of_a_hundred_at_most(self, fer2013_path: Path) -> None:
        from fer_edge.core.crowd import first_choice
        from fer_edge.data import load_dataset

        split = load_dataset(f"fer2013:{fer2013_path}").split("choose")
        faces = np.asarray(split.images)[first_choice(split.votes) >= 0]
        assert np.mean([bool(judge_crop(face, quality_limits()).reasons) for face in faces]) < 0.01
        with Recognizer("base") as recognizer:
            estimates = [
                estimate
                for start in range(0, len(faces), 256)
                for estimate in recognizer.recognize_stills(list(faces[start : start + 256]))
            ]
        assert np.mean([bool(each.quality_reasons) for each in estimates]) <= 0.01


class TestEstimates:
    def test_a_black_picture_is_nobody(self, recognizer: Recognizer) -> None:
        black = np.zeros((80, 80), np.uint8)
        stream = recognizer.stream()
        for estimate in (
            recognizer.recognize(black),
            recognizer.recognize_clip([black] * 3),
            stream.update(black, timestamp_s=0.0),
        ):
            assert (estimate.label, estimate.probabilities) == ("unknown", {})
            assert (estimate.quality, set(estimate.quality_reasons)) == (0.0, {"flat", "blurred", "covered", "dark"})
            assert (estimate.unknown_because or "").startswith("flat: contrast 0.001, expected at least")
        good, bad = recognizer.recognize_stills([_FACES[0], black])
        assert (bool(good.probabilities), bool(bad.probabilities), good.quality_reasons) == (True, False, ())
        assert (good.quality or 0) > 0.5

    def test_the_window_goes_on_without_rejected_frames(self, recognizer: Recognizer) -> None:
        stream, plain = recognizer.stream(), recognizer.stream()
        for index in range(6):
            crop = np.zeros((80, 80), np.uint8) if index % 2 else _FACES[index]
            estimate = stream.update(crop, timestamp_s=index / 10)
            assert (estimate.label == "unknown") == bool(estimate.quality_reasons)
            assert estimate.timestamp_s == index / 10
            if not index % 2:
                expected = plain.update(crop, timestamp_s=index / 10)
                assert estimate.probabilities == expected.probabilities
        assert expected.window_fill == 1.0

    def test_only_fit_frames_of_a_clip_count(self, recognizer: Recognizer) -> None:
        clip = recognizer.recognize_clip([_FACES[0], np.zeros((64, 64), np.uint8), _FACES[1]])
        assert clip.probabilities == recognizer.recognize_clip([_FACES[0], _FACES[1]]).probabilities

    def test_the_eighth_output_counts_too(self, tmp_path: Path) -> None:
        with Recognizer(tiny_crowd_bundle(tmp_path / "two", not_judgeable_threshold=1e-6)) as strict:
            estimate = strict.recognize(_FACES[0])
        assert (estimate.label, estimate.quality, estimate.quality_reasons) == ("unknown", 0.0, ("not a face",))

    def test_of_your_own(self, recognizer: Recognizer) -> None:
        """A rule of the caller's rejects the crop before anything else sees it, and leaves no stale estimate."""
        seen: list[tuple[tuple[int, ...], Face]] = []
        refuse = False

        def rule(crop: np.ndarray, face: Face) -> str | None:
            seen.append((crop.shape, face))
            return "sunglasses" if refuse else None

        video = VideoRecognizer(recognizer, reject=rule)
        [first] = video.process(_scene(_FACES[0]), timestamp_s=0.0, boxes=[_BOX]).estimates
        refuse = True
        [second] = video.process(_scene(_FACES[1]), timestamp_s=0.1, boxes=[_BOX]).estimates
        [still] = video.process_still(_scene(_FACES[1]), boxes=[_BOX]).estimates
        refuse = False
        [third] = video.process(_scene(_FACES[2]), timestamp_s=0.2, boxes=[_BOX]).estimates
        assert first.probabilities
        for estimate in (second, still):
            assert (estimate.label, estimate.unknown_because) == ("unknown", "sunglasses")
            assert (estimate.quality_reasons, estimate.probabilities) == (("sunglasses",), {})
        assert (second.timestamp_s, second.track_id, second.box_xyxy) == (0.1, 1, _BOX)
        assert third.probabilities
        assert seen[0] == ((64, 64), Face(box_xyxy=_BOX))
