"""Drawn stills and contact sheets, from a seed."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from fer_edge.core.json import expect
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Int64, Uint8
from fer_edge.data.faces.parameters import Box, Face, Identity, Light
from fer_edge.data.faces.random_source import (
    Draws,
    random_camera,
    random_identity,
    random_light,
    random_occlusion,
    random_pose,
    random_units,
)
from fer_edge.data.faces.render import apply_camera, draw_face
from fer_edge.data.faces.scenes import backdrop, paint_torso, random_cloth

__all__ = ["contact_sheet", "face_in_scene", "random_face", "synthetic_stills"]

_OCCLUDED_SHARE = 0.12
_CAPTION = 24  # pixels


def random_face(draws: Draws, expression: str, *, frontal: bool = False) -> Face:
    """Draw a random person with an expression; `frontal` limits the pose and leaves out occlusions.

    Raises:
        InputError: an unknown expression.
    """
    identity = random_identity(draws)
    units = random_units(draws, expression, intensity=draws.between(0.75, 1.0))
    light = _exposed_light(draws, identity)
    pose = random_pose(draws, spread=0.3 if frontal else 1.0)
    occlusion = random_occlusion(draws) if draws.chance(_OCCLUDED_SHARE) else None
    return Face(
        identity=identity,
        units=units,
        pose=pose,
        light=light,
        occlusion=None if frontal else occlusion,
        gaze=_random_gaze(draws, expression),
    )


def _exposed_light(draws: Draws, identity: Identity) -> Light:
    """Choose a random light, brighter for darker skin like automatic exposure."""
    light = random_light(draws)
    exposure = (165.0 * 3.0 / sum(identity.skin)) ** 0.45
    return dataclasses.replace(light, brightness=min(1.6, light.brightness * exposure))


def _random_gaze(draws: Draws, expression: str) -> tuple[float, float]:
    """Choose a gaze near the camera; sad faces look down."""
    across = draws.between(-0.35, 0.35)
    return across, 0.45 if expression == "sad" else draws.between(-0.1, 0.15)


def face_in_scene(face: Face, background: Uint8, draws: Draws, *, box_xyxy: Box) -> Uint8:
    """Draw a clothed person, seen by a random camera: uint8 (H, W, 3) BGR.

    Raises:
        InputError: as `draw_face`.
    """
    half = (box_xyxy[2] - box_xyxy[0]) / 2
    centre = ((box_xyxy[0] + box_xyxy[2]) / 2, (box_xyxy[1] + box_xyxy[3]) / 2)
    cloth = random_cloth(draws)
    picture = background.copy()
    paint_torso(picture, centre=centre, half=half, cloth=cloth, belt=False)
    picture = draw_face(face, picture, box_xyxy=box_xyxy)
    return apply_camera(picture, random_camera(draws), box_side=2 * half, draws=draws)


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
    images = np.empty((count, size, size), np.uint8)
    labels = np.empty(count, np.int64)
    for index in range(count):
        labels[index] = _shuffled_labels(seed, index // len(EXPRESSIONS))[index % len(EXPRESSIONS)]
        images[index] = _still(Draws(seed, 1, index), EXPRESSIONS[labels[index]], size)
    return images, labels


def _shuffled_labels(seed: int, run: int) -> list[int]:
    draws, labels = Draws(seed, 0, run), list(range(len(EXPRESSIONS)))
    for index in range(len(labels) - 1, 0, -1):
        other = draws.whole(index + 1)
        labels[index], labels[other] = labels[other], labels[index]
    return labels


def _still(draws: Draws, expression: str, size: int) -> Uint8:
    face = random_face(draws, expression)
    side = size * draws.between(0.95, 1.08)
    middle = (size / 2 + size * draws.between(-0.03, 0.03), size / 2 + size * draws.between(-0.03, 0.03))
    box = (middle[0] - side / 2, middle[1] - side / 2, middle[0] + side / 2, middle[1] + side / 2)
    scene = face_in_scene(face, backdrop(size, size, draws, clutter=draws.between(0, 1)), draws, box_xyxy=box)
    return np.asarray(cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


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
    for column, expression in enumerate(EXPRESSIONS):
        at = (column * cell + 6, _CAPTION - 7)
        cv2.putText(sheet, expression, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        for row in range(people):
            top = _CAPTION + row * cell
            sheet[top : top + cell, column * cell : (column + 1) * cell] = _sheet_cell(seed, row, expression, cell)
    return sheet


def _sheet_cell(seed: int, person: int, expression: str, cell: int) -> Uint8:
    identity = random_identity(Draws(seed, 3, person))
    draws = Draws(seed, 3, person, EXPRESSIONS.index(expression))
    face = Face(
        identity=identity,
        units=random_units(draws, expression, intensity=draws.between(0.85, 1.0)),
        pose=random_pose(draws, spread=0.8),
        light=_exposed_light(draws, identity),
        gaze=_random_gaze(draws, expression),
    )
    side, centre = 0.66 * cell, (0.5 * cell, 0.54 * cell)
    box = (centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2)
    picture = backdrop(cell, cell, draws, clutter=0.2)
    cloth = random_cloth(draws)
    paint_torso(picture, centre=centre, half=side / 2, cloth=cloth, belt=False)
    return draw_face(face, picture, box_xyxy=box)
