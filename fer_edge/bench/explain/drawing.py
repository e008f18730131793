"""Draws attention with OpenCV, one cell per region: red above the even share, blue below, clear at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fer_edge.bench.explain.faces import FaceExplanation, cell_edges
from fer_edge.bench.explain.video import FrameExplanation, WindowExplanation, WindowFace
from fer_edge.core.errors import require
from fer_edge.core.types import Uint8

__all__ = ["attention_shades", "draw_frame", "draw_panel", "draw_strip", "drop_shades"]

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""

_RED: Final[Colour] = (50, 60, 220)
_BLUE: Final[Colour] = (220, 120, 40)
_WHITE: Final[Colour] = (255, 255, 255)
_INK: Final[Colour] = (40, 40, 40)
_FAINT: Final[Colour] = (170, 170, 170)
_STRENGTH: Final = 0.6  # opacity of the strongest colour; the face stays visible
_FULL_DROP: Final = 0.5  # lost probability with the strongest colour
_TILE: Final = 288  # pixels of a photograph's panel
_SLOT: Final = 112  # pixels of a strip's face
_BARS: Final = 72  # pixels below a video's frame
_LINE: Final = 22
_NARROWEST: Final = 360  # pixels that a caption needs


def attention_shades(attention: Any) -> NDArray[np.float64]:
    """Convert weights (G, G) to shades: -1 for a quarter of the even share or less, 0 for it, 1 for four times it."""
    weights = np.asarray(attention, np.float64)
    return np.asarray(np.clip(np.log2(np.maximum(weights * weights.size, 1e-9)) / 2, -1, 1))


def drop_shades(drop: Any) -> NDArray[np.float64]:
    """Convert lost probabilities (G, G) to shades from -1 (half gained, or more) to 1 (half lost, or more)."""
    return np.asarray(np.clip(np.asarray(drop, np.float64) / _FULL_DROP, -1, 1))


def draw_panel(crop: Uint8, face: FaceExplanation) -> Uint8:
    """Draw the network's input beside its attention and, where it was computed, its occlusion map.

    Args:
        crop: uint8 (S, S) grey.
        face: its explanation.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    cv2 = _cv2()
    tile = cv2.cvtColor(cv2.resize(crop, (_TILE, _TILE), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    everywhere = (0, 0, _TILE, _TILE)
    tiles = [(tile, f"{face.label} {face.probabilities[face.label]:.0%}")]
    shown = tile.copy()
    _paint_cells(cv2, shown, everywhere, attention_shades(face.attention), face.attention)
    tiles.append((shown, f"attention, entropy {face.attention_entropy:.2f} of 1"))
    if face.occlusion_drop is not None:
        shown = tile.copy()
        _paint_cells(cv2, shown, everywhere, drop_shades(face.occlusion_drop), face.occlusion_drop)
        tiles.append((shown, "probability lost when covered"))
    gap = 8
    sheet = np.full((_TILE + _LINE + 2 * gap, len(tiles) * (_TILE + gap) + gap, 3), 255, np.uint8)
    for place, (picture, caption) in enumerate(tiles):
        left = gap + place * (_TILE + gap)
        _text(cv2, sheet, caption, (left, gap + 12), 0.48)
        sheet[gap + _LINE : gap + _LINE + _TILE, left : left + _TILE] = picture
    return sheet


def draw_frame(image: Uint8, frame: FrameExplanation, rectangle: Rectangle | None) -> Uint8:
    """Draw the attention over the driver's face, and the window's weights as bars below the frame.

    Args:
        image: uint8 (H, W, 3) BGR or (H, W) grey.
        frame: its explanation.
        rectangle: the crop (`crop_rectangle`), which may extend beyond the image; None where there is no face.

    Returns:
        uint8 (H + 72, W, 3) BGR, at least 360 wide.
    """
    cv2 = _cv2()
    rows, columns = image.shape[:2]
    drawn = np.full((rows + _BARS, max(columns, _NARROWEST), 3), 255, np.uint8)
    drawn[:rows, :columns] = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
    if frame.face is None or rectangle is None:
        _text(cv2, drawn, "no driver's face", (6, rows + _LINE - 6), 0.45)
        return drawn
    picture = drawn[:rows, :columns]
    _paint_cells(cv2, picture, rectangle, attention_shades(frame.face.attention), frame.face.attention)
    text = f"{frame.face.label} {frame.face.probabilities[frame.face.label]:.0%}"
    if frame.window is not None:
        text += f"; weights of the last {len(frame.window.weights)} frames, newest right"
        _bars(cv2, drawn[rows + _LINE :], frame.window)
    _text(cv2, drawn, text, (6, rows + _LINE - 6), 0.45)
    return drawn


def draw_strip(faces: Sequence[WindowFace], frame: FrameExplanation) -> Uint8:
    """Draw the frames of one window side by side, oldest first, each with its spatial attention and weight.

    Args:
        faces: one per time of `frame.window`.
        frame: the newest frame of the window, with a face and a window.

    Returns:
        uint8 (H, W, 3) BGR, rows of eight.
    """
    assert frame.face is not None
    assert frame.window is not None
    cv2, window = _cv2(), frame.window
    across = min(8, len(faces))
    down = -(-len(faces) // across)
    gap, bars = 6, 56
    width = max(_NARROWEST, across * (_SLOT + gap) + gap)
    sheet = np.full((_LINE + 2 * gap + down * (_SLOT + bars + gap), width, 3), 255, np.uint8)
    title = f"{frame.face.label} {frame.face.probabilities[frame.face.label]:.0%} at {frame.timestamp_s:.2f} s"
    _text(cv2, sheet, title + ", oldest frame first", (gap, gap + 14), 0.5)
    tallest = _tallest(window)
    for place, (face, weight) in enumerate(zip(faces, window.weights, strict=True)):
        row, column = divmod(place, across)
        left, top = gap + column * (_SLOT + gap), _LINE + 2 * gap + row * (_SLOT + bars + gap)
        tile = cv2.cvtColor(cv2.resize(face.crop, (_SLOT, _SLOT), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
        _paint_cells(cv2, tile, (0, 0, _SLOT, _SLOT), attention_shades(face.attention), None)
        sheet[top : top + _SLOT, left : left + _SLOT] = tile
        foot, height = top + _SLOT + bars - 18, round((bars - 22) * weight / tallest)
        cv2.rectangle(sheet, (left, foot - height), (left + _SLOT - 1, foot), _bar_colour(weight, window), -1)
        _text(cv2, sheet, f"{weight:.1%}  {window.times_s[place] - frame.timestamp_s:+.1f} s", (left, foot + 14), 0.38)
    return sheet


def _paint_cells(cv2: Any, picture: Uint8, rectangle: Rectangle, shades: NDArray[np.float64], values: Any) -> None:
    """Tint the cells of a grid over `rectangle`, in place, and write `values` (fractions) into cells wide enough."""
    left, top, width, height = rectangle
    across, down = cell_edges(left, width, len(shades)), cell_edges(top, height, len(shades))
    rows, columns = picture.shape[:2]
    for row in range(len(shades)):
        for column in range(len(shades)):
            x, y = max(0, across[column]), max(0, down[row])
            right, bottom = min(columns, across[column + 1]), min(rows, down[row + 1])
            if right <= x or bottom <= y:
                continue
            shade = float(shades[row, column])
            tint = np.array(_RED if shade > 0 else _BLUE, np.float64)
            cell = picture[y:bottom, x:right]
            cell[:] = np.round(cell + _STRENGTH * abs(shade) * (tint - cell)).astype(np.uint8)
            cv2.rectangle(picture, (x, y), (right - 1, bottom - 1), _WHITE, 1)
            if values is not None and right - x >= 40:
                text = f"{100 * float(np.asarray(values)[row, column]):.0f}%"
                _outlined(cv2, picture, text, (x + 4, bottom - 6), min(0.5, (right - x) / 150))


def _bars(cv2: Any, area: Uint8, window: WindowExplanation) -> None:
    """Draw the window's weights as bars, and the even share as a line."""
    rows, columns = area.shape[:2]
    tallest, edges = _tallest(window), cell_edges(6, columns - 12, len(window.weights))
    for place, weight in enumerate(window.weights):
        height = round((rows - 6) * weight / tallest)
        corner = (edges[place] + 1, rows - 4 - height)
        cv2.rectangle(area, corner, (edges[place + 1] - 2, rows - 4), _bar_colour(weight, window), -1)
    even = rows - 4 - round((rows - 6) / len(window.weights) / tallest)
    cv2.line(area, (6, even), (columns - 6, even), _INK, 1)


def _tallest(window: WindowExplanation) -> float:
    """Return the weight of a full bar: three even shares, so that nearly even weights look even, or the largest."""
    return max(*window.weights, min(1.0, 3 / len(window.weights)))


def _bar_colour(weight: float, window: WindowExplanation) -> Colour:
    return _RED if weight * len(window.weights) > 1.05 else _FAINT


def _outlined(cv2: Any, picture: Uint8, text: str, at: tuple[int, int], scale: float) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, 1, cv2.LINE_AA)


def _text(cv2: Any, picture: Uint8, text: str, at: tuple[int, int], scale: float) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)


def _cv2() -> Any:
    return require("cv2", needed_by="drawing attention", extra="cpu")
