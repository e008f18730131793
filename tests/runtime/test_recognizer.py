from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SIZE, WINDOW, tiny_bundle, tiny_encoder, tiny_frames, tiny_head, tiny_variant

from fer_edge.core.bundle import Bundle, PreprocessSpec
from fer_edge.core.bundle_writer import update_bundle
from fer_edge.core.errors import BundleError, FrameError, InputError, SessionError
from fer_edge.core.files import sha256_bytes
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.preprocess import prepare_face
from fer_edge.runtime.estimate import ExpressionEstimate
from fer_edge.runtime.inference import Network
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.streaming import StreamOptions


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle with fp32 and an int8 of another encoder and the same head."""
    made = tiny_bundle(tmp_path / "bundle", temperature=0.5)
    encoder = tiny_encoder(seed=5).SerializeToString()
    variant = tiny_variant("int8", encoder, made.graph_bytes("fp32", "head"), parent="fp32", temperature=0.5)
    return update_bundle(made, made.manifest.with_variant(variant), {sha256_bytes(encoder): encoder})


@pytest.fixture
def recognizer(bundle: Bundle) -> Iterator[Recognizer]:
    with Recognizer(bundle, variant="fp32", quality=None) as opened:
        yield opened


def _row(estimate: ExpressionEstimate) -> np.ndarray:
    return np.array([estimate.probabilities[label] for label in EXPRESSIONS])


class TestStill:
    def test_is_the_network_at_a_window_of_one(self, recognizer: Recognizer) -> None:
        [frame] = tiny_frames(1)
        estimate = recognizer.recognize(frame)
        network = recognizer.network
        expected = network.probabilities(network.encode(frame[None])[:, None], np.ones(1, np.int64))[0]
        np.testing.assert_allclose(_row(estimate), expected, atol=1e-7)
        assert estimate.label == EXPRESSIONS[int(expected.argmax())]
        assert estimate.probability == pytest.approx(expected.max())
        assert (estimate.state, estimate.window_fill, estimate.timestamp_s) == ("OK", 1.0, None)
        assert estimate.age_ms > 0

    def test_crops_of_any_size_and_colour_are_prepared(self, recognizer: Recognizer) -> None:
        crop = np.random.default_rng(0).integers(0, 256, (61, 50, 3), dtype=np.uint8)
        prepared = prepare_face(crop, PreprocessSpec(size=SIZE))
        np.testing.assert_array_equal(_row(recognizer.recognize(crop)), _row(recognizer.recognize(prepared)))

    def test_several_in_one_batch(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(3)
        batch = recognizer.recognize_stills(list(frames))
        for estimate, frame in zip(batch, frames, strict=True):
            np.testing.assert_allclose(_row(estimate), _row(recognizer.recognize(frame)), atol=1e-6)
        assert recognizer.recognize_stills([]) == ()

    @pytest.mark.parametrize(
        "face", [np.zeros((0, 5), np.uint8), np.zeros((5, 5), np.float32), np.zeros((5, 5, 4), np.uint8), None]
    )
    def test_refuses_what_is_no_face(self, recognizer: Recognizer, face: Any) -> None:
        with pytest.raises(FrameError, match="image: got"):
            recognizer.recognize(face)

    def test_unknown_below_the_threshold(self, tmp_path: Path) -> None:
        with Recognizer(
            tiny_bundle(tmp_path / "doubtful", temperature=100.0, unknown_threshold=0.5), quality=None
        ) as recognizer:
            estimate = recognizer.recognize(tiny_frames(1)[0])
        assert estimate.label == "unknown"
        assert estimate.unknown_because is not None
        assert "below the threshold 0.50" in estimate.unknown_because
        assert sum(estimate.probabilities.values()) == pytest.approx(1)
        assert estimate.state == "OK"


class TestClip:
    def test_short_is_one_window_of_its_length(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(3)
        network = recognizer.network
        expected = network.probabilities(network.encode(frames)[None], np.array([3]))[0]
        estimate = recognizer.recognize_clip(frames)
        np.testing.assert_allclose(_row(estimate), expected, atol=1e-6)
        assert (estimate.state, estimate.window_fill) == ("DEGRADED", 0.75)

    def test_long_is_the_mean_of_windows_that_cover_it(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(10)
        network = recognizer.network
        features = network.encode(frames)
        windows = np.stack([features[0:4], features[3:7], features[6:10]])
        expected = network.probabilities(windows, np.full(3, 4)).mean(axis=0)
        estimate = recognizer.recognize_clip(frames)
        np.testing.assert_allclose(_row(estimate), expected, atol=1e-6)
        assert (estimate.state, estimate.window_fill) == ("OK", 1.0)

    def test_empty_is_refused(self, recognizer: Recognizer) -> None:
        with pytest.raises(InputError, match="empty clip"):
            recognizer.recognize_clip([])


class TestStream:
    def test_is_the_head_on_the_padded_window(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(6)
        network = recognizer.network
        features = network.encode(frames)
        stream = recognizer.stream()
        for index, frame in enumerate(frames):
            estimate = stream.update(frame, timestamp_s=10 + index / 10)
            length = min(index + 1, WINDOW)
            real = features[index + 1 - length : index + 1]
            window = np.concatenate([np.repeat(real[:1], WINDOW - length, axis=0), real])
            expected = network.probabilities(window[None], np.array([length]))[0]
            np.testing.assert_allclose(_row(estimate), expected, atol=1e-6)
            assert estimate.window_fill == length / WINDOW
            assert estimate.timestamp_s == 10 + index / 10
            assert estimate.state == ("OK" if length == WINDOW else "DEGRADED")

    def test_costs_one_encoder_pass_a_frame(self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
        passes: list[int] = []
        encode = recognizer.network.encode_with_attention
        monkeypatch.setattr(
            recognizer.network, "encode_with_attention", lambda frames: passes.append(len(frames)) or encode(frames)
        )
        stream = recognizer.stream()
        for index, frame in enumerate(tiny_frames(6)):
            stream.update(frame, timestamp_s=index / 10)
        assert passes == [1] * 6

    def test_a_camera_of_another_rate_gives_the_same_window(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(31)
        slow, fast = recognizer.stream(), recognizer.stream()
        for index, frame in enumerate(frames):
            last = fast.update(frame, timestamp_s=index / 30)
        for index in range(0, 31, 3):
            expected = slow.update(frames[index], timestamp_s=index / 30)
        np.testing.assert_allclose(_row(last), _row(expected), atol=1e-6)

    def test_streams_do_not_mix_and_run_as_one_batch(self, recognizer: Recognizer) -> None:
        first, second = tiny_frames(5, seed=1), tiny_frames(5, seed=2)
        together = [recognizer.stream(), recognizer.stream()]
        alone = [recognizer.stream(), recognizer.stream()]
        for index in range(5):
            faces = [first[index], second[index]]
            batch = recognizer.update_streams(together, faces, timestamp_s=index / 10)
            single = [stream.update(face, timestamp_s=index / 10) for stream, face in zip(alone, faces, strict=True)]
            for got, expected in zip(batch, single, strict=True):
                np.testing.assert_allclose(_row(got), _row(expected), atol=1e-6)

    def test_a_time_that_is_not_later_is_refused_and_changes_nothing(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(3)
        stream, other = recognizer.stream(), recognizer.stream()
        stream.update(frames[0], timestamp_s=1.0)
        other.update(frames[0], timestamp_s=1.0)
        with pytest.raises(FrameError, match=r"timestamp_s: got 1\.000000, expected later"):
            stream.update(frames[1], timestamp_s=1.0)
        with pytest.raises(FrameError, match="image: got"):
            stream.update(frames[1].astype(float), timestamp_s=1.1)
        got, expected = (each.update(frames[2], timestamp_s=1.1) for each in (stream, other))
        np.testing.assert_array_equal(_row(got), _row(expected))

    def test_another_variant_starts_the_window_over(self, recognizer: Recognizer) -> None:
        frames = tiny_frames(5)
        stream = recognizer.stream()
        for index in range(4):
            stream.update(frames[index], timestamp_s=index / 10)
        recognizer.change_variant("int8")
        assert recognizer.info.variant == "int8"
        estimate = stream.update(frames[4], timestamp_s=0.4)
        assert estimate.window_fill == 1 / WINDOW
        np.testing.assert_allclose(
            _row(estimate), _row(recognizer.stream().update(frames[4], timestamp_s=0.0)), atol=1e-6
        )

    def test_a_call_under_way_ends_with_the_variant_it_began_with(
        self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where another thread changes it between encoder and head."""
        frames, stream, old = tiny_frames(2), recognizer.stream(), recognizer.network
        expected = [_row(recognizer.recognize(frames[0])), _row(recognizer.stream().update(frames[0], timestamp_s=0.0))]
        encode, closed = old.encode_with_attention, []

        def changing(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            features = encode(batch)
            recognizer.change_variant("int8")
            assert not closed
            return features

        monkeypatch.setattr(old, "close", lambda close=old.close: closed.append(close()))
        monkeypatch.setattr(old, "encode_with_attention", changing)
        estimate = stream.update(frames[0], timestamp_s=0.0)
        assert estimate.state == "DEGRADED"
        np.testing.assert_allclose(_row(estimate), expected[1], atol=1e-6)
        assert closed == [None]
        assert recognizer.info.variant == "int8"
        assert stream.update(frames[1], timestamp_s=0.1).window_fill == 1 / WINDOW

    def test_a_variant_that_is_not_there_leaves_the_old_one(self, recognizer: Recognizer) -> None:
        with pytest.raises(BundleError, match="no variant 'fp16'"):
            recognizer.change_variant("fp16")
        assert recognizer.recognize(tiny_frames(1)[0]).state == "OK"

    def test_reset(self, recognizer: Recognizer) -> None:
        stream = recognizer.stream()
        frames = tiny_frames(3)
        stream.update(frames[0], timestamp_s=5.0)
        stream.reset()
        assert stream.update(frames[1], timestamp_s=1.0).window_fill == 1 / WINDOW

    def test_missing_frames_degrade(self, recognizer: Recognizer) -> None:
        stream = recognizer.stream()
        frames = tiny_frames(6)
        for index, time_s in enumerate((0.0, 0.1, 0.2, 0.3)):
            assert "missing" not in (stream.update(frames[index], timestamp_s=time_s).state_because or "")
        late = stream.update(frames[4], timestamp_s=0.8)
        assert late.state == "DEGRADED"
        assert late.state_because == "frames are missing: 0.50 s between two of the window"

    def test_age_counts_from_the_frame_where_its_clock_is_known(self, recognizer: Recognizer) -> None:
        now = 100.25
        options = StreamOptions(max_age_ms=200)
        stream = recognizer.stream(clock=lambda: now, options=options)
        old = stream.update(tiny_frames(1)[0], timestamp_s=100.0)
        assert old.age_ms == pytest.approx(250)
        assert old.state == "DEGRADED"
        assert old.state_because == "the frame is 250 ms old, more than 200"
        assert recognizer.stream().update(tiny_frames(1)[0], timestamp_s=100.0).age_ms < 200

    def test_an_engine_that_fails_gives_failed_and_recovers(
        self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = recognizer.stream()
        frames = tiny_frames(2)

        def fail(network: Network, frames: np.ndarray) -> np.ndarray:
            raise SessionError("the GPU fell off the bus")

        with monkeypatch.context() as patch:
            patch.setattr(Network, "encode_with_attention", fail)
            failed = stream.update(frames[0], timestamp_s=0.0)
        assert (failed.state, failed.label, failed.window_fill) == ("FAILED", "unknown", 0)
        assert failed.state_because == "the GPU fell off the bus"
        assert failed.probabilities == {}
        assert failed.probability == 0
        assert stream.update(frames[1], timestamp_s=0.1).window_fill == 1 / WINDOW

    def test_a_margin_holds_the_label(self, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [(0.5, 0.5, 0.0), (0.45, 0.55, 0.0), (0.4, 0.6, 0.0), (0.5, 0.5, 0.0), (0.12, 0.18, 0.7)]
        padded = [np.array([[*row, 0, 0, 0, 0]], np.float32) for row in rows]
        shown = {}
        for margin in (0.0, 0.15):
            waiting = iter(padded)
            monkeypatch.setattr(
                recognizer.network, "probabilities_with_attention", lambda *_, waiting=waiting: (next(waiting), None)
            )
            stream = recognizer.stream(options=StreamOptions(change_margin=margin))
            shown[margin] = [
                EXPRESSIONS.index(stream.update(frame, timestamp_s=index / 10).label)
                for index, frame in enumerate(tiny_frames(len(rows)))
            ]
        assert shown == {0.0: [0, 1, 1, 0, 2], 0.15: [0, 0, 1, 1, 2]}

    def test_streams_and_faces_belong_together(self, recognizer: Recognizer, bundle: Bundle) -> None:
        stream = recognizer.stream()
        face = tiny_frames(1)[0]
        with pytest.raises(InputError, match="got 1 for 2 faces"):
            recognizer.update_streams([stream], [face, face], timestamp_s=0.0)
        with pytest.raises(InputError, match="none twice"):
            recognizer.update_streams([stream, stream], [face, face], timestamp_s=0.0)
        with Recognizer(bundle) as other, pytest.raises(InputError, match="another recognizer"):
            other.update_streams([stream], [face], timestamp_s=0.0)


def test_auto_takes_int8_and_says_so(bundle: Bundle) -> None:
    with Recognizer(bundle.path, quality=None) as recognizer:
        assert recognizer.info.variant == "int8"
        assert recognizer.info.provider == "cpu"


@pytest.mark.parametrize("field", ["max_gap_s", "max_age_ms", "max_stretch"])
def test_options_are_positive(field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: got 0"):
        StreamOptions(**{field: 0})


class TestEstimate:
    @pytest.mark.parametrize(
        "fields",
        [
            {"label": "unknown"},
            {"label": "happy", "probabilities": {"happy": 1.0}, "unknown_because": "x"},
            {"label": "happy"},
            {"label": "happy", "probabilities": {"happy": 1.0}, "state": "FAILED"},
            {"label": "happy", "probabilities": {"happy": 1.0}, "state_because": "x"},
            {"label": "happy", "probabilities": {"happy": 1.0}, "window_fill": 2.0},
        ],
    )
    def test_does_not_contradict_itself(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InputError):
            ExpressionEstimate(**fields)

    def test_json(self) -> None:
        estimate = ExpressionEstimate(
            label="happy", probabilities={"happy": 0.75, "sad": 0.25}, box_xyxy=(1.0, 2.0, 3.0, 4.0), window_fill=0.5
        )
        value = estimate.to_json()
        assert value["probabilities"] == {"happy": 0.75, "sad": 0.25}
        assert value["box_xyxy"] == [1.0, 2.0, 3.0, 4.0]
        assert set(value) == {field.name for field in dataclasses.fields(estimate)}


def test_the_runtime_loads_numpy_opencv_and_its_engine_alone(bundle: Bundle) -> None:
    code = """
import sys
for name in ("torch", "nncf", "onnx", "openvino", "matplotlib", "pyarrow", "sklearn"):
    sys.modules[name] = None
import numpy as np
from fer_edge import Recognizer
with Recognizer(sys.argv[1], quality=None) as recognizer:
    stream = recognizer.stream()
    print(stream.update(np.zeros((20, 20), np.uint8), timestamp_s=0.0).state)
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", str(bundle.path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("DEGRADED\n", "")


def test_a_failed_open_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fer_edge.runtime.ort_session import OrtSession

    closed: list[object] = []
    monkeypatch.setattr(OrtSession, "close", lambda self: closed.append(self))
    broken = tiny_bundle(tmp_path / "broken", head=tiny_head().SerializeToString()[:-60])
    with pytest.raises(BundleError):
        Network.open(broken)
    assert len(closed) == 1
