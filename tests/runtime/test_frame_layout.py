"""Every pixel layout there and back, and what is refused."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fer_edge.core.errors import FrameError, InputError
from fer_edge.runtime.frame_layout import LAYOUTS, convert_frame

_NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
_PICTURE = cv2.resize(_NOISE, (64, 48), interpolation=cv2.INTER_CUBIC)  # smooth colours survive halved colour planes


def _planes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    planes = cv2.cvtColor(_PICTURE, cv2.COLOR_BGR2YUV_I420)
    u, v = planes[48:].reshape(2, 24, 32)
    return planes[:48], u, v


def test_colours_come_back() -> None:
    y, u, v = _planes()
    frames = {
        "bgr": _PICTURE,
        "rgb": _PICTURE[..., ::-1],
        "rgba": cv2.cvtColor(_PICTURE, cv2.COLOR_BGR2RGBA),
        "nv12": np.vstack([y, np.stack([u, v], axis=-1).reshape(24, 64)]),
        "yuyv": np.stack([y, np.stack([u, v], axis=-1).reshape(24, 64).repeat(2, axis=0)], axis=-1),
    }
    for layout, frame in frames.items():
        error = np.abs(convert_frame(frame, layout).astype(int) - _PICTURE)
        assert error.mean() < (8 if layout in ("nv12", "yuyv") else 1e-9), layout


def test_infrared_is_scaled_to_its_white_level() -> None:
    ramp = np.array([[0, 511, 1023, 4000]], np.uint16)
    assert convert_frame(ramp, "grey16", white_level=1023).tolist() == [[0, 127, 255, 255]]
    with pytest.raises(InputError, match="white_level"):
        convert_frame(ramp, "grey16")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "frame",
    [
        None,
        np.zeros((48, 64, 5), np.uint8),
        np.zeros((0, 64), np.uint8),
        np.zeros((48, 0, 3), np.uint8),
        np.zeros((48, 64), np.float32),
        np.zeros(7, np.uint8),
        np.zeros((47, 63, 2), np.uint8),
    ],
    ids=str,
)
def test_another_type_or_shape_is_refused_with_the_one_expected(frame: Any, layout: str) -> None:
    with pytest.raises(FrameError, match=rf"frame: got .*, expected .*\(H.*layout '{layout}'"):
        convert_frame(frame, layout, white_level=255)


def test_an_nv12_picture_is_not_taken_for_grey() -> None:
    for width, height in ((640, 480), (1280, 720), (1920, 1200)):
        with pytest.raises(FrameError, match=f"NV12 picture of {width}x{height}"):
            convert_frame(np.zeros((height * 3 // 2, width), np.uint8), "grey")
        assert convert_frame(np.zeros((height, width), np.uint8), "grey").shape == (height, width)


def test_an_unknown_layout() -> None:
    with pytest.raises(InputError, match="layout: got 'bayer', expected one of bgr, rgb"):
        convert_frame(_PICTURE, "bayer")
