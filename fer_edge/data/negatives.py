"""Made pictures in which there is no face to judge, reproducible from a seed: teaching and testing material.

The kinds of `TRAINED_NEGATIVES` teach a head its output `not judgeable`; those of `UNTRAINED_NEGATIVES` are for tests
alone. Some kinds are made of face crops (turned over, scrambled, cut off, misplaced), the others of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.types import Float32, Uint8
from fer_edge.data.corruptions import hand_template, rim_template
from fer_edge.data.faces.scenes import backdrop, cabin

__all__ = ["NEGATIVES", "TRAINED_NEGATIVES", "UNTRAINED_NEGATIVES", "make_negatives"]

_Maker = Callable[[Uint8, np.random.Generator], "Float32 | Uint8"]
_TILES: Final = 4


def make_negatives(kind: str, count: int, *, faces: Uint8, seed: int) -> Uint8:
    """Make pictures of one kind, as large as `faces`.

    Args:
        kind: one of `NEGATIVES`.
        count: how many.
        faces: uint8 (N, H, W) grey face crops, at least 16 x 16 pixels; some kinds are made of them.
        seed: of the random choices.

    Returns:
        uint8 (count, H, W).

    Raises:
        InputError: an unknown kind, or faces of another type or shape.
    """
    if kind not in NEGATIVES:
        raise InputError(f"kind: got {kind!r}, expected one of {', '.join(NEGATIVES)}")
    if faces.dtype != np.uint8 or faces.ndim != 3 or not len(faces) or min(faces.shape[1:]) < 16:
        raise InputError(f"faces: got {faces.dtype} {faces.shape}, expected uint8 (N, H, W) of 16 x 16 pixels or more")
    random = np.random.default_rng([seed, list(NEGATIVES).index(kind)])
    make, made = NEGATIVES[kind], np.empty((count, *faces.shape[1:]), np.uint8)
    for index in range(count):
        face = np.asarray(faces[int(random.integers(len(faces)))])
        made[index] = np.clip(np.rint(np.asarray(make(face, random), dtype=np.float64)), 0, 255)
    return made


def _flat(face: Uint8, random: np.random.Generator) -> Float32:
    return (random.uniform(0, 255) + random.normal(0, random.uniform(0, 4), face.shape)).astype(np.float32)


def _noise(face: Uint8, random: np.random.Generator) -> Float32:
    noise = random.normal(128, random.uniform(20, 80), face.shape).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), random.uniform(0.1, 2.5)), dtype=np.float32)


def _gradient(face: Uint8, random: np.random.Generator) -> Float32:
    rows, columns = np.mgrid[-1 : 1 : face.shape[0] * 1j, -1 : 1 : face.shape[1] * 1j]
    angle, bend = random.uniform(0, 2 * np.pi), random.uniform(-1, 1)
    slope = rows * np.cos(angle) + columns * np.sin(angle) + bend * (rows**2 + columns**2)
    return np.asarray(random.uniform(60, 190) + random.uniform(20, 120) * slope, dtype=np.float32)


def _blobs(face: Uint8, random: np.random.Generator) -> Float32:
    cells = int(random.integers(3, 13))
    coarse = random.uniform(0, 255, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, face.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _waves(face: Uint8, random: np.random.Generator) -> Float32:
    rows, columns = np.mgrid[: face.shape[0], : face.shape[1]]
    total = np.zeros(face.shape)
    for _ in range(int(random.integers(1, 4))):
        angle, phase, frequency = random.uniform(0, np.pi), random.uniform(0, 6.3), random.uniform(0.05, 1.2)
        total += np.sin(frequency * (columns * np.cos(angle) + rows * np.sin(angle)) + phase)
    return np.asarray(128 + random.uniform(30, 110) * total, dtype=np.float32)


def _scene(face: Uint8, random: np.random.Generator) -> Uint8:
    picture = backdrop(face.shape[1], face.shape[0], random, clutter=float(random.uniform(0.2, 1)))
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def _inverted(face: Uint8, random: np.random.Generator) -> Uint8:
    return face[::-1, :: random.choice([-1, 1])]


def _scrambled(face: Uint8, random: np.random.Generator) -> Uint8:
    height, width = face.shape[0] // _TILES, face.shape[1] // _TILES
    picture = face.copy()
    for target, source in enumerate(random.permutation(_TILES**2)):
        (row, column), (old_row, old_column) = divmod(target, _TILES), divmod(int(source), _TILES)
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width] = face[
            old_row * height : (old_row + 1) * height, old_column * width : (old_column + 1) * width
        ]
    return picture


def _half_out(face: Uint8, random: np.random.Generator) -> Uint8:
    """Move the face out of the crop by 55 to 85 % of its side; the rest is a drawn backdrop or the edge repeated."""
    shape = face.shape
    moved = [int(random.uniform(0.55, 0.85) * side) * int(random.choice([-1, 1])) for side in shape]
    moved[int(random.integers(2))] = 0
    matrix = np.array([[1, 0, moved[1]], [0, 1, moved[0]]], np.float32)
    if random.random() < 0.5:
        picture = cv2.warpAffine(face, matrix, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    else:
        picture = cv2.warpAffine(face, matrix, shape[::-1], dst=_scene(face, random), borderMode=cv2.BORDER_TRANSPARENT)
    return np.asarray(picture, dtype=np.uint8)


def _misplaced(face: Uint8, random: np.random.Generator) -> Uint8:
    """Enlarge a third of the face to the whole crop, as after a box on an eye, a cheek or a chin."""
    side = np.maximum((np.array(face.shape) * random.uniform(0.25, 0.36)).astype(int), 4)
    top, left = (int(random.integers(0, whole - part + 1)) for whole, part in zip(face.shape, side, strict=True))
    part = face[top : top + side[0], left : left + side[1]]
    return np.asarray(cv2.resize(part, face.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _whole_frame(face: Uint8, random: np.random.Generator) -> Uint8:
    """Shrink the face to a seventh to a quarter of the crop, as in a whole camera frame taken for a face."""
    picture, shape = _scene(face, random), np.array(face.shape)
    side = np.maximum((shape * random.uniform(0.14, 0.25)).astype(int), 4)
    top, left = (int(random.integers(0, whole - part + 1)) for whole, part in zip(shape, side, strict=True))
    picture[top : top + side[0], left : left + side[1]] = cv2.resize(face, side[::-1].tolist())
    return picture


def _hand(face: Uint8, random: np.random.Generator) -> Float32:
    return _object(face, hand_template, random, tone=float(random.uniform(60, 220)), shift=0.15)


def _wheel(face: Uint8, random: np.random.Generator) -> Float32:
    return _object(face, rim_template, random, tone=float(random.uniform(15, 90)), shift=0.3)


def _object(
    face: Uint8, template: Callable[[], Float32], random: np.random.Generator, *, tone: float, shift: float
) -> Float32:
    """Lay a drawn object over a drawn backdrop, turned, as large as the crop or larger."""
    opacity, shading = template()
    side, half = opacity.shape[0], np.array(face.shape[::-1]) / 2
    matrix = cv2.getRotationMatrix2D(
        (side / 2, side / 2), float(random.uniform(0, 360)), face.shape[0] / side * float(random.uniform(1.1, 1.8))
    )
    matrix[:, 2] += half - side / 2 + random.uniform(-shift, shift, 2) * face.shape
    over, light = (cv2.warpAffine(part, matrix, face.shape[::-1]) for part in (opacity, shading))
    behind = _scene(face, random).astype(np.float32)
    grain = random.normal(0, random.uniform(0, 6), face.shape)
    return np.asarray(behind + over * (light * tone - behind) + grain, dtype=np.float32)


def _stripes(face: Uint8, random: np.random.Generator) -> Float32:
    rows, columns = np.mgrid[: face.shape[0], : face.shape[1]]
    angle, width = random.uniform(0, np.pi), random.uniform(3, 12)
    along = np.floor((columns * np.cos(angle) + rows * np.sin(angle)) / width)
    across = np.floor((rows * np.cos(angle) - columns * np.sin(angle)) / width) if random.random() < 0.5 else 0
    dark, bright = random.uniform(0, 100), random.uniform(140, 255)
    return np.where((along + across) % 2 == 0, dark, bright).astype(np.float32)


def _text(face: Uint8, random: np.random.Generator) -> Uint8:
    picture = np.full(face.shape, random.integers(150, 256), np.uint8)
    letters = "".join(chr(int(code)) for code in random.integers(65, 91, 60))
    size = float(random.uniform(0.25, 0.6))
    for line, row in enumerate(range(int(20 * size), face.shape[0] + 10, int(30 * size))):
        cv2.putText(picture, letters[7 * line :], (0, row), cv2.FONT_HERSHEY_SIMPLEX, size, 30, 1, cv2.LINE_AA)
    return picture


def _cabin(face: Uint8, random: np.random.Generator) -> Uint8:
    """Cut a crop out of an empty car."""
    picture = np.asarray(cv2.cvtColor(cabin(320, 240, random), cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    side = int(random.integers(60, 160))
    top, left = int(random.integers(0, 240 - side)), int(random.integers(0, 320 - side))
    crop = picture[top : top + side, left : left + side]
    return np.asarray(cv2.resize(crop, face.shape[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


TRAINED_NEGATIVES: Final = (
    "flat", "noise", "gradient", "blobs", "waves", "scene", "inverted", "scrambled", "half-out", "misplaced",
    "whole-frame", "hand", "wheel",
)  # fmt: skip
"""Kinds that a head is trained on."""

UNTRAINED_NEGATIVES: Final = ("stripes", "text", "cabin")
"""Kinds for tests alone: no training uses them."""

NEGATIVES: Final[Mapping[str, _Maker]] = {
    "flat": _flat,
    "noise": _noise,
    "gradient": _gradient,
    "blobs": _blobs,
    "waves": _waves,
    "scene": _scene,
    "inverted": _inverted,
    "scrambled": _scrambled,
    "half-out": _half_out,
    "misplaced": _misplaced,
    "stripes": _stripes,
    "text": _text,
    "cabin": _cabin,
    "whole-frame": _whole_frame,
    "hand": _hand,
    "wheel": _wheel,
}
"""Every kind and its maker."""
