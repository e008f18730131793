"""Seeded synthetic stills, cropped like FER2013's."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from fer_edge.core.errors import InputError
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

__all__ = ["exposed_light", "face_in_scene", "random_face", "random_gaze", "synthetic_stills"]

_OCCLUDED_SHARE = 0.12


def random_face(draws: Draws, expression: str, *, frontal: bool = False) -> Face:
    """Any person showing an expression, in any pose and light; `frontal` looks straight on, with nothing in front.

    Raises:
        InputError: the expression is none of the seven.
    """
    identity = random_identity(draws)
    units = random_units(draws, expression, intensity=draws.between(0.75, 1.0))
    light = exposed_light(draws, identity)
    pose = random_pose(draws, spread=0.3 if frontal else 1.0)
    occlusion = random_occlusion(draws) if draws.chance(_OCCLUDED_SHARE) else None
    return Face(
        identity=identity,
        units=units,
        pose=pose,
        light=light,
        occlusion=None if frontal else occlusion,
        gaze=random_gaze(draws, expression),
    )


def exposed_light(draws: Draws, identity: Identity) -> Light:
    """A random light, brighter for darker skin: the camera's automatic exposure."""
    light = random_light(draws)
    exposure = (165.0 * 3.0 / sum(identity.skin)) ** 0.45
    return dataclasses.replace(light, brightness=min(1.6, light.brightness * exposure))


def random_gaze(draws: Draws, expression: str) -> tuple[float, float]:
    """Into the camera or past it; the sad look down."""
    across = draws.between(-0.35, 0.35)
    return across, 0.45 if expression == "sad" else draws.between(-0.1, 0.15)


def face_in_scene(face: Face, background: Uint8, draws: Draws, *, box_xyxy: Box) -> Uint8:
    """A clothed person, seen by a random camera: uint8 (H, W, 3) BGR.

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
    """Tight grey face crops of people who do not exist, framed like FER2013.

    Image `i` depends on `seed` and `i` alone, so a longer set begins with the shorter one. Every run of seven images
    (0..6, 7..13, ...) shows each expression once, in random order.

    Args:
        count: how many, at least 1.
        seed: any whole number from 0.
        size: side of a crop in pixels, 17 to 512: a face fills at least 95 % of it, and 16 is the smallest drawn.

    Returns:
        images uint8 (count, size, size) grey, and labels int64 (count,), index into `labels.EXPRESSIONS`.

    Raises:
        InputError: a count, seed or size outside its range.
    """
    if count < 1:
        raise InputError(f"count is {count}, expected at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}, expected a whole number of at least 0")
    if not 17 <= size <= 512:
        raise InputError(f"size is {size}, expected 17 to 512 pixels")
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
