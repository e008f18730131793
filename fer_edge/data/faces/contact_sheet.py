"""A sheet of synthetic faces, one row a person and one column an expression, to look at."""

from __future__ import annotations

import cv2
import numpy as np

from fer_edge.core.errors import InputError
from fer_edge.core.labels import EXPRESSIONS
from fer_edge.core.types import Uint8
from fer_edge.data.faces.parameters import Face
from fer_edge.data.faces.random_source import Draws, random_identity, random_pose, random_units
from fer_edge.data.faces.render import draw_face
from fer_edge.data.faces.scenes import backdrop, paint_torso, random_cloth
from fer_edge.data.faces.stills import exposed_light, random_gaze

__all__ = ["contact_sheet"]

_CAPTION = 24  # pixels


def contact_sheet(people: int, *, seed: int, cell: int = 160) -> Uint8:
    """Draw the seven expressions of several people, with the expressions' names above.

    Args:
        people: rows, at least 1.
        seed: any whole number from 0.
        cell: side of a picture in pixels, 64 to 512.

    Returns:
        uint8 (24 + people * cell, 7 * cell, 3) BGR.

    Raises:
        InputError: an argument outside its range.
    """
    if people < 1 or not 64 <= cell <= 512:
        raise InputError(
            f"contact sheet of {people} people in cells of {cell} pixels; expected at least 1, and 64 to 512"
        )
    sheet = np.full((_CAPTION + people * cell, len(EXPRESSIONS) * cell, 3), 255, np.uint8)
    for column, expression in enumerate(EXPRESSIONS):
        at = (column * cell + 6, _CAPTION - 7)
        cv2.putText(sheet, expression, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        for row in range(people):
            top = _CAPTION + row * cell
            sheet[top : top + cell, column * cell : (column + 1) * cell] = _picture(seed, row, expression, cell)
    return sheet


def _picture(seed: int, person: int, expression: str, cell: int) -> Uint8:
    identity = random_identity(Draws(seed, 3, person))
    draws = Draws(seed, 3, person, EXPRESSIONS.index(expression))
    face = Face(
        identity=identity,
        units=random_units(draws, expression, intensity=draws.between(0.85, 1.0)),
        pose=random_pose(draws, spread=0.8),
        light=exposed_light(draws, identity),
        gaze=random_gaze(draws, expression),
    )
    side, centre = 0.66 * cell, (0.5 * cell, 0.54 * cell)
    box = (centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2)
    picture = backdrop(cell, cell, draws, clutter=0.2)
    cloth = random_cloth(draws)
    paint_torso(picture, centre=centre, half=side / 2, cloth=cloth, belt=False)
    return draw_face(face, picture, box_xyxy=box)
