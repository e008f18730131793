"""Converts camera frames of every pixel layout to what the recognisers read: BGR or grey, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fer_edge.core.errors import FrameError, InputError, require
from fer_edge.core.json import is_one_of
from fer_edge.core.types import Uint8
from fer_edge.runtime.arguments import whole_number

__all__ = ["LAYOUTS", "FrameSizes", "check_layout", "convert_frame"]

_SENSOR_RATIOS: Final = ((4, 3), (16, 9), (16, 10))


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """One pixel layout: its array and OpenCV's conversion."""

    shape: str
    channels: int  # 0 for an array without a last axis
    conversion: str | None = None
    dtype: str = "uint8"


_LAYOUTS: Final[dict[str, _Layout]] = {
    "bgr": _Layout(shape="(H, W, 3)", channels=3),
    "rgb": _Layout(shape="(H, W, 3)", channels=3, conversion="COLOR_RGB2BGR"),
    "rgba": _Layout(shape="(H, W, 4)", channels=4, conversion="COLOR_RGBA2BGR"),
    "grey": _Layout(shape="(H, W)", channels=0),
    "nv12": _Layout(shape="(H * 3 / 2, W), Y above UV", channels=0, conversion="COLOR_YUV2BGR_NV12"),
    "yuyv": _Layout(shape="(H, W, 2)", channels=2, conversion="COLOR_YUV2BGR_YUY2"),
    "grey16": _Layout(shape="(H, W)", channels=0, dtype="uint16"),
}

LAYOUTS: Final = tuple(_LAYOUTS)
"""The names of the pixel layouts."""


def check_layout(layout: str, white_level: int | None) -> None:
    """Refuse an unknown layout, and ``"grey16"`` without the value that is white.

    Raises:
        InputError: naming the known layouts, or the range of `white_level`.
    """
    if not is_one_of(layout, LAYOUTS):
        raise InputError(f"layout: got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if layout == "grey16":
        if white_level is None:
            raise InputError("white_level: got None, expected the value of white for grey16 (1023 for a 10-bit sensor)")
        whole_number("white_level", white_level, least=1, most=65535)


def convert_frame(frame: Any, layout: str = "bgr", *, white_level: int | None = None) -> Uint8:
    """Convert one frame to BGR, or to grey where it has no colour.

    Args:
        frame: a numpy array as the layout demands: uint8 (H, W, 3) ``bgr`` or ``rgb``, (H, W, 4) ``rgba``, (H, W)
            ``grey``, (H * 3 / 2, W) ``nv12``, (H, W, 2) ``yuyv``; uint16 (H, W) ``grey16``.
        layout: one of `LAYOUTS`.
        white_level: of ``grey16``: this value and above become 255, 0 stays 0.

    Returns:
        uint8 (H, W, 3) BGR, or (H, W) for ``grey`` and ``grey16``; the frame itself for ``bgr`` and ``grey``.

    Raises:
        InputError: as `check_layout`.
        FrameError: a frame of another type or shape, or a ``grey`` one of the size of an NV12 picture.

    Example:
        >>> import numpy as np
        >>> from fer_edge.runtime import convert_frame
        >>> convert_frame(np.zeros((720, 640), np.uint8), "nv12").shape
        (480, 640, 3)
        >>> int(convert_frame(np.full((480, 640), 1023, np.uint16), "grey16", white_level=1023).max())
        255
    """
    check_layout(layout, white_level)
    kind = _LAYOUTS[layout]
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"frame: got {type(frame).__name__}, expected a numpy array, {_expected(layout)}")
    channels = frame.shape[2] if frame.ndim == 3 else 0
    fits = frame.ndim == (3 if kind.channels else 2) and channels == kind.channels and 0 not in frame.shape
    if layout == "nv12":
        fits = fits and frame.shape[0] % 3 == 0 and frame.shape[1] % 2 == 0
    if layout == "yuyv":
        fits = fits and frame.shape[1] % 2 == 0
    if frame.dtype != kind.dtype or not fits:
        raise FrameError(f"frame: got {frame.dtype} {frame.shape}, expected {_expected(layout)}")
    if layout == "grey":
        _refuse_nv12(frame)
    if layout == "grey16":
        assert white_level is not None
        cv2 = require("cv2", needed_by="converting frames", extra="cpu")
        return np.asarray(cv2.convertScaleAbs(frame, alpha=255 / white_level))
    if kind.conversion is None:
        return frame
    cv2 = require("cv2", needed_by="converting frames", extra="cpu")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), getattr(cv2, kind.conversion)))


class FrameSizes:
    """Tells a frame of a wrong size from a camera that was set to another size.

    Args:
        patience: so many frames in a row of one new size are the camera's new size.
    """

    def __init__(self, *, patience: int) -> None:
        self._patience = patience
        self._size: tuple[int, ...] | None = None
        self._other: tuple[int, ...] | None = None
        self._others = 0

    def changed(self, image: Uint8) -> bool:
        """Return whether the camera has a new size from this frame on.

        Raises:
            FrameError: a frame of another size than those before.
        """
        size = image.shape[1::-1]
        known = self._size in (None, size)
        self._others = 0 if known else self._others + 1 if size == self._other else 1
        self._other = size
        if not known and self._others < self._patience:
            (width, height), (old_width, old_height) = size, self._size or size
            raise FrameError(f"size: got {width}x{height}, expected {old_width}x{old_height} as in the frames before")
        self._size, self._others = size, 0
        return not known


def _expected(layout: str) -> str:
    return f"{_LAYOUTS[layout].dtype} {_LAYOUTS[layout].shape} for the layout {layout!r}"


def _refuse_nv12(frame: Uint8) -> None:
    """Refuse a grey frame that would be an NV12 picture of a usual aspect ratio; no sensor has that one."""
    rows, columns = frame.shape
    height = rows * 2 // 3
    if rows % 3 == 0 and columns % 2 == 0 and any(columns * down == height * across for across, down in _SENSOR_RATIOS):
        raise FrameError(
            f"frame: got grey {frame.shape}, which is the shape of an NV12 picture of {columns}x{height}; expected "
            "(H, W); pass layout='nv12', or cut the Y plane out: frame[: rows * 2 // 3]"
        )
