from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import fer_edge.core.cascade
from fer_edge.core.errors import FrameError, InputError, MissingPackageError, SessionError
from fer_edge.runtime.detector import Face
from fer_edge.runtime.estimate import BoxXyxy
from fer_edge.runtime.haar_detector import HaarDetector
from fer_edge.runtime.patch import box_overlaps

_FACE = (174.0, 63.0, 274.0, 163.0)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """A public-domain photograph with one frontal face: uint8 (512, 512, 3) BGR."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image: pip install 'fer-edge[dev]'")
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


def test_finds_a_real_face(astronaut: np.ndarray) -> None:
    [box] = HaarDetector().detect(astronaut)
    assert box_overlaps([box], [_FACE])[0, 0] > 0.8


def test_grey_and_large_images(astronaut: np.ndarray) -> None:
    grey = cv2.resize(cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY), (1536, 1536))
    [box] = HaarDetector().detect(grey)
    left, top, right, bottom = (3 * edge for edge in _FACE)
    assert box_overlaps([box], [(left, top, right, bottom)])[0, 0] > 0.8


def test_largest_first(astronaut: np.ndarray) -> None:
    scene = np.zeros((512, 900, 3), np.uint8)
    scene[:256, :256] = cv2.resize(astronaut, (256, 256))
    scene[:, 388:] = astronaut
    first, second = HaarDetector(min_face=0.08).detect(scene)
    assert first[2] - first[0] > second[2] - second[0]


def test_a_face_that_fills_the_frame_is_found(astronaut: np.ndarray) -> None:
    """The cascade alone needs a margin around a face; the detector pads the frame."""
    left, top, right, bottom = map(int, _FACE)
    face = cv2.resize(astronaut[top - 5 : bottom + 5, left - 5 : right + 5], (480, 480))
    [box] = HaarDetector().detect(face)
    assert box_overlaps([box], [(22.0, 22.0, 458.0, 458.0)])[0, 0] > 0.7


def test_the_parts_of_a_search_find_together_what_a_search_finds(astronaut: np.ndarray) -> None:
    detector = HaarDetector()
    for size in (300, 512, 900):
        scene = cv2.resize(astronaut, (size, size))
        [whole] = detector.detect(scene)
        found = [face.box_xyxy for part in range(detector.parts) for face in detector.search(scene, part=part)]
        assert box_overlaps(found, [whole]).max() > 0.8


@pytest.mark.parametrize("tilt_deg", [-20, 20])
def test_a_tilted_face_is_found_by_a_tilted_search(astronaut: np.ndarray, tilt_deg: float) -> None:
    """A positive tilt is clockwise."""
    centre = ((_FACE[0] + _FACE[2]) / 2, (_FACE[1] + _FACE[3]) / 2)
    turned = cv2.warpAffine(astronaut, cv2.getRotationMatrix2D(centre, -tilt_deg, 1.0), (512, 512))
    detector = HaarDetector()
    [face] = [face for face in detector.search(turned, tilt_deg=tilt_deg) if box_overlaps([face.box_xyxy], [_FACE])]
    assert box_overlaps([face.box_xyxy], [_FACE])[0, 0] > 0.7
    near = detector.search_near(turned, Face(box_xyxy=(165.0, 70.0, 265.0, 170.0), tilt_deg=tilt_deg))
    assert near is not None
    assert (face.tilt_deg, near.tilt_deg) == (tilt_deg, tilt_deg)
    assert box_overlaps([near.box_xyxy], [_FACE])[0, 0] > 0.7


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_a_face_is_found_again_near_its_last_box(astronaut: np.ndarray, scale: float) -> None:
    scene = cv2.resize(astronaut, None, fx=scale, fy=scale)
    last = Face(box_xyxy=(160 * scale, 75 * scale, 270 * scale, 185 * scale))
    near = HaarDetector().search_near(scene, last)
    assert near is not None
    assert box_overlaps([near.box_xyxy], [tuple(scale * edge for edge in _FACE)])[0, 0] > 0.75
    elsewhere = Face(box_xyxy=(380 * scale, 300 * scale, 460 * scale, 380 * scale))
    assert HaarDetector().search_near(scene, elsewhere) is None


@pytest.mark.parametrize("box", [(-500.0, -500.0, -400.0, -400.0), (600.0, 100.0, 700.0, 200.0), (500, 500, 900, 900)])
def test_nothing_is_found_near_a_box_outside_the_frame(astronaut: np.ndarray, box: BoxXyxy) -> None:
    assert HaarDetector().search_near(astronaut, Face(box_xyxy=box)) is None


def test_nothing_where_there_is_nothing() -> None:
    assert HaarDetector().detect(np.full((240, 320, 3), 90, np.uint8)) == ()
    assert HaarDetector().detect(np.zeros((2, 2), np.uint8)) == ()


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.float32), np.zeros((0, 9), np.uint8), np.zeros(9, np.uint8), 3])
def test_refuses_what_is_no_image(image: Any) -> None:
    with pytest.raises(FrameError, match="image: got"):
        HaarDetector().detect(image)


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_face", 0), ("min_face", 1.1), ("min_neighbours", -1)],
)
def test_options_are_checked(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field}: got {value}"):
        HaarDetector(**{field: value})  # type: ignore[arg-type]


class TestOtherOpenCvs:
    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(MissingPackageError, match="face detection needs the package 'cv2'"):
            HaarDetector()

    def test_opencv_5_has_no_cascades(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(__version__="5.0.0"))
        with pytest.raises(SessionError, match=r"OpenCV: got 5\.0\.0 without CascadeClassifier"):
            HaarDetector()

    def test_jetpack_keeps_the_cascades_elsewhere(self, monkeypatch: pytest.MonkeyPatch, astronaut: np.ndarray) -> None:
        """JetPack's cv2 has no `cv2.data`; the cascades lie in /usr/share/opencv4."""
        elsewhere = Path(cv2.data.haarcascades)
        monkeypatch.delattr(cv2, "data")
        monkeypatch.setattr(fer_edge.core.cascade, "_SYSTEM_FOLDERS", (Path("/nowhere"), elsewhere))
        assert len(HaarDetector().detect(astronaut)) == 1
        monkeypatch.setattr(fer_edge.core.cascade, "_SYSTEM_FOLDERS", (Path("/nowhere"),))
        with pytest.raises(SessionError, match=r"no haarcascade_frontalface_default\.xml in /nowhere.*apt-get"):
            HaarDetector()
