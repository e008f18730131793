from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import SIZE, tiny_bundle

from fer_edge.core.errors import FrameError, InputError, SessionError
from fer_edge.core.preprocess import PreprocessSpec
from fer_edge.runtime.detector import CropGeometry, Face
from fer_edge.runtime.face_finder import cut_tilted, open_detector
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.patch import overlap
from fer_edge.runtime.recognizer import Recognizer
from fer_edge.runtime.video_recognizer import VideoRecognizer
from fer_edge.runtime.yunet_detector import YuNetDetector

_FACE = (180.0, 66.0, 258.0, 168.0)


@pytest.fixture(scope="module")
def yunet() -> YuNetDetector:
    shared = Path(__file__).parents[3] / "shared" / "models" / "yunet_2026may.onnx"
    model = Path(os.environ.get("FER_EDGE_YUNET", shared))
    if not model.is_file():
        pytest.skip("needs YuNet's model: FER_EDGE_YUNET=FILE")
    return YuNetDetector(model)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="needs scikit-image: pip install 'fer-edge[dev]'")
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


def _turned(image: np.ndarray, tilt_deg: float) -> np.ndarray:
    """The picture with the face tilted clockwise about its middle."""
    middle = ((_FACE[0] + _FACE[2]) / 2, (_FACE[1] + _FACE[3]) / 2)
    turn = cv2.getRotationMatrix2D(middle, -tilt_deg, 1.0)
    return cv2.warpAffine(image, turn, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def test_finds_a_face_in_colour_and_in_grey(yunet: YuNetDetector, astronaut: np.ndarray) -> None:
    for image in (astronaut, cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY)):
        [box] = yunet.detect(image)
        assert overlap(box, _FACE) > 0.7
    [box] = yunet.detect(cv2.resize(astronaut, (1024, 768)))
    assert overlap(box, (360.0, 99.0, 516.0, 252.0)) > 0.7
    assert yunet.detect(np.zeros((40, 30, 3), np.uint8)) == ()


def test_landmarks_give_the_sign_of_the_tilt(yunet: YuNetDetector, astronaut: np.ndarray) -> None:
    """The landmarks of the model of May 2026 follow the tilt by a fifth only."""
    faces = [yunet.search(_turned(astronaut, tilt_deg))[0] for tilt_deg in (-30, 0, 30)]
    assert faces[0].tilt_deg + 2 < faces[1].tilt_deg < faces[2].tilt_deg - 2


def test_a_face_is_found_again_near_its_last_box(yunet: YuNetDetector, astronaut: np.ndarray) -> None:
    [face] = yunet.search(astronaut)
    near = yunet.search_near(astronaut, Face(box_xyxy=tuple(edge + 12 for edge in _FACE)))  # type: ignore[arg-type]
    assert near is not None
    assert overlap(near.box_xyxy, face.box_xyxy) > 0.7
    assert yunet.search_near(astronaut, Face(box_xyxy=(400.0, 400.0, 480.0, 480.0))) is None


def test_a_tilted_face_is_cut_level(astronaut: np.ndarray) -> None:
    spec, tilt = PreprocessSpec(), 25.0
    level = cut_tilted(astronaut, Face(box_xyxy=_FACE), CropGeometry(), spec)
    turned = _turned(astronaut, tilt)
    cut = cut_tilted(turned, Face(box_xyxy=_FACE, tilt_deg=tilt), CropGeometry(), spec)
    skewed = cut_tilted(turned, Face(box_xyxy=_FACE), CropGeometry(), spec)

    def difference(crop: np.ndarray) -> float:
        return float(np.abs(crop.astype(int) - level)[10:-10, 10:-10].mean())

    assert difference(cut) < 0.25 * difference(skewed)
    slightly = cut_tilted(turned, Face(box_xyxy=_FACE, tilt_deg=4.0), CropGeometry(), spec)
    np.testing.assert_array_equal(slightly, skewed)


def test_a_bundle_that_aligns_by_the_eyes_takes_it(yunet: YuNetDetector, astronaut: np.ndarray, tmp_path: Path) -> None:
    aligned = tiny_bundle(tmp_path / "aligned", preprocess=PreprocessSpec(size=SIZE, alignment="eyes"))
    with Recognizer(aligned, quality=None) as recognizer:
        result = VideoRecognizer(recognizer, detector=yunet).process(astronaut, timestamp_s=0.0)
    assert [estimate.state for estimate in result.estimates] == ["DEGRADED"]


def test_what_is_no_image_or_no_model_is_refused(yunet: YuNetDetector, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="image: got"):
        yunet.detect(np.zeros((9, 9), np.float32))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(SessionError, match="cannot read the YuNet model"):
        YuNetDetector(broken)


def test_detectors_by_name(tmp_path: Path) -> None:
    assert isinstance(open_detector("haar"), HaarDetector)
    for name in ("yunet", "yunet:", "haar:x", "", "mtcnn"):
        with pytest.raises(InputError, match=r"detector: got .*, expected haar or yunet:FILE"):
            open_detector(name)
    with pytest.raises(InputError, match=r"YuNet model: got .*, expected an ONNX file"):
        open_detector(f"yunet:{tmp_path / 'none.onnx'}")
