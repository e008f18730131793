"""Drawn stills and contact sheets, from a seed."""

from __future__ import annotations

import cv2
import numpy as np

from fer_edge.core.json import expect
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.faces.people import Box, random_face, random_identity
from fer_edge.data.faces.scenes import apply_camera, backdrop, face_in_scene, random_cloth

__all__ = ["contact_sheet", "synthetic_stills"]

_CAPTION = 24  # pixels


def synthetic_stills(count: int, *, seed: int, size: int = 48) -> tuple[Uint8, Int64]:
    """Draw tight grey face crops, framed like FER2013.

    Image `i` depends only on `seed` and `i`, so a longer set begins with the shorter one. Each seven images (0..6,
    7..13, ...) show every expression once, in random order.

    Args:
        count: number of faces, at least 1.
        seed: a whole number from 0.
        size: side of a crop in pixels, 17 to 512.

    Returns:
        images uint8 (count, size, size) grey, and labels int64 (count,), index into `EXPRESSIONS`.

    Raises:
        InputError: a count, seed or size out of range.
    """
    expect(count >= 1, "count", count, "at least 1")
    expect(seed >= 0, "seed", seed, "a whole number of at least 0")
    expect(17 <= size <= 512, "size", size, "17 to 512 pixels")
    sevens = range(-(-count // len(EXPRESSIONS)))
    labels = np.concatenate([np.random.default_rng((seed, 0, row)).permutation(len(EXPRESSIONS)) for row in sevens])
    stills = [_still(np.random.default_rng((seed, 1, row)), int(labels[row]), size) for row in range(count)]
    return np.stack(stills), labels[:count].astype(np.int64)


def _square(x: float, y: float, side: float) -> Box:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def _still(rng: np.random.Generator, label: int, size: int) -> Uint8:
    face = random_face(rng, EXPRESSIONS[label])
    side = size * rng.uniform(0.95, 1.08)
    x, y = size * rng.uniform(0.47, 0.53, 2)
    room = backdrop(size, size, rng, clutter=rng.random())
    scene = face_in_scene(face, room, box_xyxy=_square(x, y, side), cloth=random_cloth(rng))
    seen = apply_camera(scene, rng, blur=rng.uniform(0.0, 0.014) * side, noise=rng.uniform(0.5, 9.0))
    return np.asarray(cv2.cvtColor(seen, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def contact_sheet(people: int, *, seed: int, cell: int = 160) -> Uint8:
    """Draw a sheet of faces, one row per person and one column per expression, with captions.

    Args:
        people: rows, at least 1.
        seed: a whole number from 0.
        cell: side of a picture in pixels, 64 to 512.

    Returns:
        uint8 (24 + people * cell, 7 * cell, 3) BGR.

    Raises:
        InputError: an argument out of range.
    """
    expect(people >= 1, "people", people, "at least 1")
    expect(64 <= cell <= 512, "cell", cell, "64 to 512 pixels")
    sheet = np.full((_CAPTION + people * cell, len(EXPRESSIONS) * cell, 3), 255, np.uint8)
    box = _square(0.5 * cell, 0.54 * cell, 0.66 * cell)
    for column, expression in enumerate(EXPRESSIONS):
        at = (column * cell + 6, _CAPTION - 7)
        cv2.putText(sheet, expression, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        for row in range(people):
            identity = random_identity(np.random.default_rng((seed, 3, row)))
            rng = np.random.default_rng((seed, 3, row, column))
            face = random_face(rng, expression, identity=identity, turn=0.8)
            room = backdrop(cell, cell, rng, clutter=0.2)
            top = _CAPTION + row * cell
            picture = face_in_scene(face, room, box_xyxy=box, cloth=random_cloth(rng))
            sheet[top : top + cell, column * cell : (column + 1) * cell] = picture
    return sheet
