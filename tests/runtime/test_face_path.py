"""One way for a face: every entry point feeds the encoder the pixels of `prepare_stills`, bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from scripts import load_script
from tiny import SIZE, tiny_bundle

from fer_edge.bench import workload
from fer_edge.bench.explain import VideoExplainer
from fer_edge.bench.source_run import run_source
from fer_edge.core.bundle import Bundle
from fer_edge.core.preprocess import PreprocessSpec, cut_face, prepare_stills
from fer_edge.runtime.inference import Network
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.tracker import TrackerOptions
from fer_edge.runtime.video_recognizer import VideoRecognizer
from fer_edge.runtime.video_source import SourceFrame, VideoSource

BOX = (10.0, 20.0, 60.0, 70.0)
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


@pytest.fixture(params=[3, 5])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle", preprocess=PreprocessSpec(size=SIZE, median=request.param))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every batch of faces that reaches an encoder."""
    batches: list[np.ndarray] = []
    inner = Network.encode_with_attention
    monkeypatch.setattr(
        Network, "encode_with_attention", lambda self, faces: batches.append(faces.copy()) or inner(self, faces)
    )
    return batches


def expected(spec: PreprocessSpec) -> np.ndarray:
    """The face of `FRAME` as training prepares it: cut out of the grey frame, then `prepare_stills`."""
    grey = cv2.cvtColor(FRAME, cv2.COLOR_BGR2GRAY)
    prepared = prepare_stills(np.ascontiguousarray(grey[20:70, 10:60])[None], spec)
    assert not np.array_equal(prepare_stills(prepared, spec), prepared), "a second filter would show"
    return prepared


def source(kind: Any) -> VideoSource:
    frames = iter([SourceFrame(image=FRAME, timestamp_s=0.0, boxes=(BOX,))])
    return VideoSource(frames, name="own", kind=kind, frame_rate=10.0)


class Found:
    """A detector that finds the one face, in grey or in colour."""

    def __init__(self, *, grey: bool) -> None:
        self.grey = grey

    def detect(self, image: np.ndarray) -> list[tuple[float, ...]]:
        assert image.ndim == (2 if self.grey else 3)
        return [BOX]


def crop(recognizer: Recognizer) -> np.ndarray:
    return cut_face(FRAME, BOX, recognizer.manifest.preprocess)


def process(recognizer: Recognizer, *, grey: bool) -> None:
    VideoRecognizer(recognizer, detector=Found(grey=grey)).process(FRAME, timestamp_s=0.0)


ENTRY_POINTS: dict[str, Callable[[Recognizer], object]] = {
    "still": lambda recognizer: recognizer.recognize(crop(recognizer)),
    "clip": lambda recognizer: recognizer.recognize_clip([crop(recognizer)]),
    "stream": lambda recognizer: recognizer.stream().update(crop(recognizer), timestamp_s=0.0),
    "video, boxes given": lambda recognizer: VideoRecognizer(recognizer).process(FRAME, timestamp_s=0.0, boxes=[BOX]),
    "video, grey detector": lambda recognizer: process(recognizer, grey=True),
    "video, colour detector": lambda recognizer: process(recognizer, grey=False),
    "photograph": lambda recognizer: VideoRecognizer(recognizer).process_still(FRAME, boxes=[BOX]),
    "run": lambda recognizer: run_source(recognizer, source("file")),
    "run of a photograph": lambda recognizer: run_source(recognizer, source("image")),
    "explain": lambda recognizer: VideoExplainer(recognizer).process(FRAME, timestamp_s=0.0, boxes=[BOX]),
    "explain a photograph": lambda recognizer: VideoExplainer(recognizer).process_still(FRAME, boxes=[BOX]),
}


@pytest.mark.parametrize("entry", list(ENTRY_POINTS))
def test_the_encoder_gets_what_training_prepares(bundle: Bundle, encoded: list[np.ndarray], entry: str) -> None:
    with Recognizer(bundle, quality=None) as recognizer:
        encoded.clear()  # the warm-up
        ENTRY_POINTS[entry](recognizer)
    [faces] = encoded
    np.testing.assert_array_equal(faces, expected(bundle.manifest.preprocess))


def test_bench_times_the_same_face(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "camera_frame", lambda: FRAME)
    monkeypatch.setattr(workload, "FACE_BOX_XYXY", BOX)
    spec = bundle.manifest.preprocess
    np.testing.assert_array_equal(workload.camera_face(spec)[None], expected(spec))


def test_the_triton_client_sends_the_same_face(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("tritonclient")
    package.grpc = ModuleType("tritonclient.grpc")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    client = load_script("export/examples/triton_client.py")
    monkeypatch.setattr(client, "open_any_source", lambda spec: source("file"))
    [(time_s, face)] = client.faces(bundle, "own")
    assert time_s == 0.0
    np.testing.assert_array_equal(face[None], expected(bundle.manifest.preprocess))


def test_the_arm64_script_records_the_same_face(bundle: Bundle, encoded: list[np.ndarray], tmp_path: Path) -> None:
    outputs = load_script("runtime/arm64/outputs.py")
    grey = cv2.cvtColor(FRAME, cv2.COLOR_BGR2GRAY)[20:70, 10:60]
    np.savez(tmp_path / "faces.npz", faces=np.repeat(grey[None], outputs.FRAMES, axis=0))
    outputs.record(*map(str, (bundle.path, tmp_path / "faces.npz", tmp_path / "outputs.npz", tmp_path / "no-litert")))
    wanted = np.repeat(expected(bundle.manifest.preprocess), outputs.FRAMES, axis=0)
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npz")["prepared"], wanted)
    np.testing.assert_array_equal(encoded[-1], wanted)


def test_several_faces_share_one_conversion(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that reads grey frames shares one conversion with all crops; otherwise only crops are converted."""
    boxes = [BOX, (70.0, 10.0, 120.0, 60.0), (100.0, 30.0, 150.0, 80.0)]
    converted: list[tuple[int, ...]] = []
    convert = cv2.cvtColor
    monkeypatch.setattr(cv2, "cvtColor", lambda image, code: converted.append(image.shape[:2]) or convert(image, code))
    finder = Found(grey=True)
    monkeypatch.setattr(finder, "detect", lambda image: boxes)
    everyone = TrackerOptions(passengers=True)
    with Recognizer(bundle, quality=None) as recognizer:
        VideoRecognizer(recognizer, detector=finder, tracking=everyone).process(FRAME, timestamp_s=0.0)
        assert converted == [(90, 160)]
        converted.clear()
        VideoRecognizer(recognizer, tracking=everyone).process(FRAME, timestamp_s=0.0, boxes=boxes)
        assert converted == [(50, 50)] * 3
