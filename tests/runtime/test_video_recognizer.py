from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny import SIZE, WINDOW, tiny_bundle

from fer_edge.bench.annotate import annotate_frame
from fer_edge.core.bundle import PreprocessSpec
from fer_edge.core.errors import FrameError, InputError
from fer_edge.core.preprocess import cut_face
from fer_edge.data.faces import draw_face, random_face
from fer_edge.data.faces.scenes import backdrop
from fer_edge.runtime.estimate import BoxXyxy, ExpressionEstimate
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import VideoRecognizer

_ALL = TrackerOptions(passengers=True)
_LEFT = (10.0, 20.0, 42.0, 52.0)
_RIGHT = (80.0, 10.0, 140.0, 70.0)


@pytest.fixture
def recognizer(tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer(tiny_bundle(tmp_path / "bundle", temperature=0.2), quality=None) as opened:
        yield opened


def _frames(count: int) -> np.ndarray:
    """One scene, with noise that differs from frame to frame."""
    random = np.random.default_rng(0)
    scene = random.integers(0, 200, (90, 160, 3), dtype=np.uint8)
    return scene + random.integers(0, 56, (count, 90, 160, 3), dtype=np.uint8)


class TestVideoRecognizer:
    def test_each_face_has_its_own_stream(self, recognizer: Recognizer) -> None:
        video = VideoRecognizer(recognizer, tracking=_ALL)
        alone = [recognizer.stream(), recognizer.stream()]
        spec = recognizer.manifest.preprocess
        for index, frame in enumerate(_frames(6)):
            boxes = [_LEFT, _RIGHT] if index % 2 else [_RIGHT, _LEFT]
            result = video.process(frame, timestamp_s=index / 10, boxes=boxes)
            assert [estimate.track_id for estimate in result.estimates] == [1, 2]
            assert [estimate.box_xyxy for estimate in result.estimates] == [_RIGHT, _LEFT]
            for estimate, stream, box in zip(result.estimates, alone, (_RIGHT, _LEFT), strict=True):
                expected = stream.update(cut_face(frame, box, spec), timestamp_s=index / 10)
                assert estimate.label == expected.label
                assert estimate.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
                assert estimate.window_fill == min(index + 1, WINDOW) / WINDOW
        assert result.index == 5
        assert result.driver is not None
        assert result.driver.track_id == 1

    def test_all_faces_of_a_frame_are_one_batch(self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
        shapes: list[tuple[int, ...]] = []
        network = recognizer.network
        for name in ("encode_with_attention", "logits_with_attention"):
            inner = getattr(network, name)
            monkeypatch.setattr(network, name, lambda x, *more, inner=inner: shapes.append(x.shape) or inner(x, *more))
        VideoRecognizer(recognizer, tracking=_ALL).process(_frames(1)[0], timestamp_s=0.0, boxes=[_LEFT, _RIGHT])
        assert shapes == [(2, SIZE, SIZE), (2, WINDOW, 8)]

    def test_only_the_drivers_face_is_recognised(self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
        batches: list[int] = []
        inner = recognizer.network.encode_with_attention
        monkeypatch.setattr(
            recognizer.network, "encode_with_attention", lambda faces: batches.append(len(faces)) or inner(faces)
        )
        for tracking, box in ((None, _RIGHT), (TrackerOptions(seat="left"), _LEFT)):
            video = VideoRecognizer(recognizer, tracking=tracking)
            results = [
                video.process(frame, timestamp_s=index / 10, boxes=[_LEFT, _RIGHT])
                for index, frame in enumerate(_frames(4))
            ]
            assert [[each.box_xyxy for each in result.estimates] for result in results] == [[box]] * 4
            assert [result.driver is not None for result in results] == [False, False, True, True]
        assert set(batches) == {1}

    def test_the_stages_may_run_apart(self, recognizer: Recognizer) -> None:
        """`follow` may be a frame ahead of `recognize`; the result is that of `process`."""
        frames, whole, apart = _frames(4), VideoRecognizer(recognizer), VideoRecognizer(recognizer)
        expected = [whole.process(frame, timestamp_s=i / 10, boxes=[_LEFT]) for i, frame in enumerate(frames)]
        followed = [apart.follow(frame, timestamp_s=i / 10, boxes=[_LEFT]) for i, frame in enumerate(frames)]
        for each, wanted in zip(followed, expected, strict=True):
            [got], [want] = apart.recognize(each).estimates, wanted.estimates
            assert (got.track_id, got.driver, got.probabilities) == (want.track_id, want.driver, want.probabilities)

    def test_a_face_out_of_sight_keeps_its_estimate_and_grows_older(self, recognizer: Recognizer) -> None:
        video = VideoRecognizer(recognizer)
        frames = _frames(8)
        for index in range(5):
            last = video.process(frames[index], timestamp_s=index / 10, boxes=[_RIGHT]).estimates[0]
        assert last.state == "OK"
        [lost] = video.process(frames[5], timestamp_s=0.9, boxes=[]).estimates
        assert (lost.label, lost.probabilities, lost.timestamp_s) == (last.label, last.probabilities, 0.4)
        assert lost.state == "DEGRADED"
        assert lost.state_because == "the face was last seen 0.50 s ago"
        assert lost.age_ms == pytest.approx(last.age_ms + 500)
        assert video.process(frames[6], timestamp_s=1.5, boxes=[]).estimates == ()
        [back] = video.process(frames[7], timestamp_s=1.6, boxes=[_RIGHT]).estimates
        assert (back.track_id, back.window_fill) == (2, 1 / WINDOW)

    @pytest.mark.parametrize("gap_s", [0.1, 0.6])
    def test_a_person_exchanged_in_place_starts_a_new_window(self, recognizer: Recognizer, gap_s: float) -> None:
        """Also drawn people, who are more alike than real ones, in more than half of ten pairs."""
        box, begun = (40.0, 10.0, 110.0, 80.0), {"other": 0, "same": 0, "drawn": 0}
        for pair in range(10):
            random = np.random.default_rng(pair)
            scene = backdrop(160, 90, random, clutter=0.3)
            one, two = (random_face(random, "neutral", turn=0.0) for _ in range(2))
            drawn = [draw_face(person, scene, box_xyxy=box) for person in (one, two)]
            other = cv2.resize(random.integers(0, 256, (9, 16, 3), dtype=np.uint8), (160, 90))
            for name, second in (("other", other), ("same", drawn[0]), ("drawn", drawn[1])):
                video = VideoRecognizer(recognizer, tracking=_ALL)
                times_s = [*(index / 10 for index in range(WINDOW)), (WINDOW - 1) / 10 + gap_s]
                for picture, time_s in zip([drawn[0]] * WINDOW + [second], times_s, strict=True):
                    [found] = video.process(picture, timestamp_s=time_s, boxes=[box]).estimates
                begun[name] += found.window_fill == 1 / WINDOW
        assert begun["other"] >= 9
        assert begun["same"] == 0
        assert begun["drawn"] >= (6 if gap_s < 0.15 else 0)

    def test_a_box_off_the_picture_is_reported_not_raised(self, recognizer: Recognizer) -> None:
        video = VideoRecognizer(recognizer, tracking=_ALL)
        good, bad = video.process(
            _frames(1)[0], timestamp_s=0.0, boxes=[_RIGHT, (500.0, 500.0, 520.0, 520.0)]
        ).estimates
        assert good.state == "DEGRADED"
        assert (bad.state, bad.label) == ("FAILED", "unknown")
        assert bad.state_because is not None
        assert "outside the 160x90 image" in bad.state_because

    def test_a_detectors_arrays_become_plain_boxes_and_what_is_not_finite_is_left_out(
        self, recognizer: Recognizer
    ) -> None:
        class Arrays:
            def detect(self, image: np.ndarray) -> np.ndarray:
                return np.array([_LEFT, (np.nan, 0, 10, 10), _RIGHT], np.float32)

        result = VideoRecognizer(recognizer, detector=Arrays(), tracking=_ALL).process(_frames(1)[0], timestamp_s=0.0)
        assert [estimate.box_xyxy for estimate in result.estimates] == [_LEFT, _RIGHT]
        assert json.loads(json.dumps(result.to_json()))["estimates"][0]["box_xyxy"] == list(_LEFT)

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ((0.0, 0.0, 10.0), "expected four numbers"),
            (("left", 0, 1, 1), "expected four numbers"),
            (7, "expected four numbers"),
            ((0.1, 0.2, 0.5, 0.8), "fractions of the frame; multiply by 160 and 90"),
            ((60, 20, 40, 50), "x, y, width, height"),
            ((110, 20, 42, 52), "x, y, width, height"),
            ((140, 70, 80, 10), "corners in another order"),
        ],
    )
    def test_boxes_of_another_form_are_refused_by_name(self, recognizer: Recognizer, box: Any, message: str) -> None:
        video = VideoRecognizer(recognizer)
        for process in (video.process_still, lambda image, boxes: video.process(image, timestamp_s=0.0, boxes=boxes)):
            with pytest.raises(FrameError, match=f"boxes: got .*{message}"):
                process(_frames(1)[0], boxes=[_LEFT, box])

    @pytest.mark.parametrize("box", [(0.0, 0.0, np.inf, 10.0), (500.0, 10.0, 540.0, 60.0), (5.0, 5.0, 5.0, 30.0)])
    def test_one_bad_box_costs_its_own_face_only(self, recognizer: Recognizer, box: BoxXyxy) -> None:
        video, image = VideoRecognizer(recognizer, tracking=_ALL), _frames(1)[0]
        good, bad = video.process_still(image, boxes=[_LEFT, box]).estimates
        assert (good.state, bad.state, good.driver) == ("OK", "FAILED", True)
        assert json.loads(json.dumps(bad.to_json(), allow_nan=False))["label"] == "unknown"
        if not np.isfinite(box).all():
            with pytest.raises(FrameError, match=r"boxes: got .*, expected finite pixels"):
                video.process(image, timestamp_s=0.0, boxes=[_LEFT, box])
        else:
            states = [each.state for each in video.process(image, timestamp_s=0.0, boxes=[_LEFT, box]).estimates]
            assert states == ["DEGRADED", "FAILED"]

    def test_asks_the_detector_given(self, recognizer: Recognizer) -> None:
        class Fixed:
            def detect(self, image: np.ndarray) -> Sequence[BoxXyxy]:
                return [_LEFT]

        result = VideoRecognizer(recognizer, detector=Fixed()).process(_frames(1)[0], timestamp_s=0.0)
        assert [estimate.box_xyxy for estimate in result.estimates] == [_LEFT]

    def test_nobody_is_nothing(self, recognizer: Recognizer) -> None:
        result = VideoRecognizer(recognizer).process(_frames(1)[0], timestamp_s=0.0, boxes=[])
        assert (result.estimates, result.driver) == ((), None)

    def test_a_photograph(self, recognizer: Recognizer) -> None:
        image = _frames(1)[0]
        result = VideoRecognizer(recognizer).process_still(image, boxes=[_LEFT, _RIGHT])
        assert [estimate.driver for estimate in result.estimates] == [False, True]
        expected = recognizer.recognize(cut_face(image, _LEFT, recognizer.manifest.preprocess))
        assert result.estimates[0].probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert result.estimates[0].state == "OK"

    @pytest.mark.parametrize("image", [np.zeros((5, 5), np.float32), np.zeros((0, 5, 3), np.uint8)])
    def test_refuses_what_is_no_image(self, recognizer: Recognizer, image: np.ndarray) -> None:
        with pytest.raises(FrameError, match="image: got"):
            VideoRecognizer(recognizer).process(image, timestamp_s=0.0)

    def test_time_goes_forward(self, recognizer: Recognizer) -> None:
        video = VideoRecognizer(recognizer)
        video.process(_frames(1)[0], timestamp_s=1.0, boxes=[_LEFT])
        with pytest.raises(FrameError, match="timestamp_s"):
            video.process(_frames(1)[0], timestamp_s=1.0, boxes=[_LEFT])

    def test_alignment_by_eyes_is_refused_at_once(self, tmp_path: Path) -> None:
        aligned = tiny_bundle(tmp_path / "aligned", preprocess=PreprocessSpec(size=SIZE, alignment="eyes"))
        with Recognizer(aligned) as recognizer, pytest.raises(InputError, match="aligns faces by the eyes"):
            VideoRecognizer(recognizer)


class TestAnnotate:
    _ESTIMATE = ExpressionEstimate(
        label="happy", probabilities={"happy": 0.75, "sad": 0.25}, box_xyxy=(30.0, 40.0, 70.0, 80.0), track_id=1
    )

    def test_draws_into_a_copy(self) -> None:
        image = np.zeros((120, 160, 3), np.uint8)
        drawn = annotate_frame(image, [self._ESTIMATE])
        assert not image.any()
        assert drawn[40, 50].tolist() == [80, 200, 60], "the box's edge, green for OK"
        assert not drawn[60, 50].any(), "the face itself is left free"

    def test_grey_becomes_colour(self) -> None:
        assert annotate_frame(np.zeros((120, 160), np.uint8), [self._ESTIMATE]).shape == (120, 160, 3)

    def test_without_a_box_nothing_is_drawn(self) -> None:
        image = _frames(1)[0]
        np.testing.assert_array_equal(annotate_frame(image, []), image)

    @pytest.mark.parametrize("box", [(-50.0, -50.0, 500.0, 500.0), (150.0, 100.0, 170.0, 140.0)])
    def test_boxes_over_the_edge(self, box: BoxXyxy) -> None:
        estimate = ExpressionEstimate(
            label="unknown", unknown_because="x", state="FAILED", state_because="y", box_xyxy=box, driver=True
        )
        assert annotate_frame(_frames(1)[0], [estimate]).shape == (90, 160, 3)
