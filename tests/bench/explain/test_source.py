"""Photographs and recordings explained: what is found, what is drawn, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import WINDOW, tiny_bundle

from fer_edge.bench.explain import ExplainOptions, VideoExplainer, explain_source
from fer_edge.bench.explain.drawing import attention_shades, draw_frame, drop_shades
from fer_edge.core.errors import DataError, InputError, OutputError
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.runtime.feature_window import FeatureWindow
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer
from fer_edge.runtime.video_source import VideoSource, open_source

BOX = (10.0, 10.0, 58.0, 58.0)
OTHER = (80.0, 10.0, 128.0, 58.0)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    with Recognizer(tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), quality=None) as opened:
        yield opened


def pictures(count: int) -> np.ndarray:
    """uint8 (count, 64, 140, 3): one smooth scene, with noise that differs from frame to frame."""
    random = np.random.default_rng(0)
    small = random.integers(0, 200, (8, 14, 3), dtype=np.uint8)
    small = small + random.integers(0, 56, (count, 8, 14, 3), dtype=np.uint8)
    return np.stack([cv2.resize(each, (140, 64), interpolation=cv2.INTER_CUBIC) for each in small])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """20 frames at 10 a second."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (140, 64))
    for image in pictures(20):
        writer.write(image)
    writer.release()
    return path


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), pictures(1)[0])
    return path


class TestVideoExplainer:
    def test_reports_what_the_runtime_reports(self, recognizer: Recognizer) -> None:
        explainer, runtime = VideoExplainer(recognizer), VideoRecognizer(recognizer)
        for place, image in enumerate(pictures(8)):
            found = explainer.process(image, timestamp_s=place / 10, boxes=[OTHER, BOX])
            driver = runtime.process(image, timestamp_s=place / 10, boxes=[OTHER, BOX]).driver
            assert (found.face is None) == (driver is None)
            if driver is not None:
                assert found.face is not None
                assert found.box_xyxy == driver.box_xyxy
                assert found.face.probabilities == driver.probabilities

    def test_the_window_fills_and_slides(self, recognizer: Recognizer) -> None:
        explainer = VideoExplainer(recognizer)
        found = [
            explainer.process(image, timestamp_s=place / 10, boxes=[BOX]) for place, image in enumerate(pictures(8))
        ]
        assert [frame.face is None for frame in found[:3]] == [True, True, False]  # the driver is a face seen thrice
        window = found[-1].window
        assert window is not None
        assert window.times_s == pytest.approx([0.4, 0.5, 0.6, 0.7])
        assert sum(window.weights) == pytest.approx(1, abs=1e-5)
        assert window.entropy is not None
        third = found[2].window
        assert third is not None
        assert len(third.weights) == 3
        assert len(explainer.window_faces) == WINDOW
        assert found[-1].face is not None
        np.testing.assert_allclose(explainer.window_faces[-1].attention, found[-1].face.attention, atol=1e-6)

    @pytest.mark.parametrize("times_s", [[0.9 * index for index in range(6)], [0.0, 0.1, 0.2, 1.1, 1.2, 1.3, 1.4]])
    def test_slow_and_broken_recordings(self, recognizer: Recognizer, times_s: list[float]) -> None:
        explainer, runtime = VideoExplainer(recognizer), FeatureWindow(recognizer.manifest.sequence)
        for image, time_s in zip(pictures(len(times_s)), times_s, strict=True):
            found = explainer.process(image, timestamp_s=time_s, boxes=[(10, 10, 50, 50)])
            runtime.push(np.zeros(recognizer.manifest.sequence.feature_size, np.float32), timestamp_s=time_s)
        view = runtime.view()
        assert found.window is not None
        assert found.window.times_s == tuple(view.times_s[-view.length :])

    def test_another_camera_rate_keeps_to_the_bundles(self, recognizer: Recognizer) -> None:
        explainer = VideoExplainer(recognizer)
        for place, image in enumerate(pictures(40)):
            found = explainer.process(image, timestamp_s=place / 30, boxes=[BOX])
        assert found.window is not None
        assert np.diff(found.window.times_s) == pytest.approx([0.1] * 3, abs=0.01)
        assert len(explainer.window_faces) == WINDOW

    def test_a_face_that_comes_back_begins_anew(self, recognizer: Recognizer) -> None:
        explainer = VideoExplainer(recognizer)
        for place, image in enumerate(pictures(6)):
            explainer.process(image, timestamp_s=place / 10, boxes=[BOX])
        assert explainer.process(pictures(1)[0], timestamp_s=0.7, boxes=[]).face is None
        for place, image in enumerate(pictures(3)):
            found = explainer.process(image, timestamp_s=5 + place / 10, boxes=[BOX])
        assert found.window is not None
        assert len(found.window.weights) == 3

    def test_a_photograph_has_its_most_prominent_face(self, recognizer: Recognizer) -> None:
        found = VideoExplainer(recognizer, occlusion=True).process_still(pictures(1)[0], boxes=[OTHER, (0, 0, 64, 64)])
        assert (found.faces, found.box_xyxy, found.window) == (2, (0, 0, 64, 64), None)
        assert found.face is not None
        assert found.face.occlusion_drop is not None
        assert VideoExplainer(recognizer).process_still(pictures(1)[0], boxes=[]).face is None

    def test_eyes_are_needed(self, tmp_path: Path) -> None:
        bundle = tiny_bundle(tmp_path / "eyes", preprocess=PreprocessSpec(size=16, alignment="eyes"))
        with Recognizer(bundle) as recognizer, pytest.raises(InputError, match="aligns faces by the eyes"):
            VideoExplainer(recognizer)


class TestExplainSource:
    def test_nothing_is_written_unless_named(self, recognizer: Recognizer, clip: Path) -> None:
        before = sorted(clip.parent.iterdir())
        with open_source(str(clip)) as source:
            found = explain_source(recognizer, source, options=ExplainOptions(whole_frame=True))
        assert (len(found.frames), len(found.explained), found.grid) == (20, 18, 2)
        assert sorted(clip.parent.iterdir()) == before

    def test_a_photograph_becomes_a_panel(self, recognizer: Recognizer, photograph: Path, tmp_path: Path) -> None:
        shapes = []
        for occlusion in (False, True):
            out = tmp_path / f"{occlusion}.png"
            with open_source(str(photograph)) as source:
                options = ExplainOptions(out=out, whole_frame=True, occlusion=occlusion)
                explain_source(recognizer, source, options=options)
            shapes.append(cv2.imread(str(out)).shape)
        assert shapes[1][1] > shapes[0][1] > shapes[0][0]

    def test_a_video_becomes_a_video_or_a_strip(self, recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
        for name in ("out.avi", "strip.png"):
            with open_source(str(clip)) as source:
                explain_source(recognizer, source, options=ExplainOptions(out=tmp_path / name, whole_frame=True))
        with open_source(str(tmp_path / "out.avi")) as written:
            frames = list(written)
        assert len(frames) == 20
        assert frames[0].image.shape[0] > 64  # room for the bars
        assert cv2.imread(str(tmp_path / "strip.png")) is not None

    def test_until(self, recognizer: Recognizer, clip: Path) -> None:
        with open_source(str(clip)) as source:
            found = explain_source(recognizer, source, options=ExplainOptions(whole_frame=True, until_s=0.55))
        assert len(found.frames) == 6

    def test_no_face_leaves_no_picture(self, recognizer: Recognizer, photograph: Path, tmp_path: Path) -> None:
        class Blind:
            def detect(self, image: np.ndarray) -> tuple[()]:
                return ()

        out = tmp_path / "out.png"
        with open_source(str(photograph)) as source, pytest.raises(DataError, match="pass --whole-frame"):
            explain_source(recognizer, source, options=ExplainOptions(out=out), detector=Blind())
        assert not out.exists()

    def test_what_is_refused_before_any_work(self, photograph: Path, clip: Path, tmp_path: Path) -> None:
        with open_source(str(photograph)) as source:
            with pytest.raises(InputError, match=r"got the ending '.mp4', expected for the annotated image"):
                ExplainOptions(out=tmp_path / "out.mp4").check(source)
            with pytest.raises(OutputError, match="is an input"):
                ExplainOptions(out=photograph, overwrite=True).check(source)
        with open_source(str(clip)) as source, pytest.raises(InputError, match=r"'.gif'"):
            ExplainOptions(out=tmp_path / "out.gif").check(source)
        camera = VideoSource(iter([]), name="0", kind="camera", frame_rate=30, count=None)
        with pytest.raises(InputError, match="got the live 0, expected a photograph or a recording"):
            ExplainOptions().check(camera)
        with pytest.raises(InputError, match="until_s: got -1"):
            ExplainOptions(until_s=-1)


class TestDrawing:
    def test_even_weights_leave_the_picture_clear(self) -> None:
        assert not attention_shades(np.full((3, 3), 1 / 9)).any()
        assert attention_shades([[1.0, 0.0], [0.0, 0.0]]).tolist() == [[1, -1], [-1, -1]]
        assert drop_shades([[0.25, -2.0]]).tolist() == [[0.5, -1]]

    def test_a_box_beyond_the_border(self, recognizer: Recognizer) -> None:
        image = pictures(1)[0]
        explainer = VideoExplainer(recognizer)
        for place in range(3):
            found = explainer.process(image, timestamp_s=place / 10, boxes=[(-20, -20, 40, 40)])
        drawn = draw_frame(image, found, (-20, -20, 60, 60))
        assert drawn.shape == (64 + 72, 360, 3)
        assert not np.array_equal(drawn[:40, :40], image[:40, :40])
        assert np.array_equal(drawn[41:64, 41:140], image[41:, 41:])
